"""linear_probe: one pass for all layers, and scores that scikit-learn confirms."""

import numpy as np
import pandas as pd
import pytest
from networks import CountingStages, rows_counted
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
)
from skdeepfeat.inspection import linear_probe, score_name

N = 30
LABELS = np.repeat(["light", "dark", "red"], N // 3)
STAGES = ["conv", "layer2", "layer3"]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, 32, 32, 3))
    images[LABELS == "light"] += 100
    images[LABELS == "red", ..., 0] += 100
    return images.astype(np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def extractor(log, tmp_path):
    """Return a function that makes extractors of one network."""

    def make(**parameters):
        parameters = {"cache": tmp_path / "cache", **parameters}
        return PretrainedFeatureExtractor(
            CountingStages(log), image_size=32, batch_size=8, **parameters
        )

    return make


@pytest.mark.parametrize("is_cached", [True, False])
def test_all_stages_cost_one_pass(extractor, images, log, tmp_path, is_cached):
    one = extractor(cache=tmp_path / "cache" if is_cached else None)
    probe = linear_probe(one, images, LABELS, cv=3)
    assert probe["layer"].tolist() == [*STAGES, "neck"]
    assert rows_counted(log) == N
    again = linear_probe(one, images, LABELS, cv=3)
    assert rows_counted(log) == (N if is_cached else 2 * N)
    pd.testing.assert_series_equal(again["score"], probe["score"])


def test_the_scores_are_those_of_each_layer_alone(extractor, images):
    probe = linear_probe(
        extractor(), images, LABELS, [1, "conv"], LogisticRegression(), 3
    )
    assert probe["layer"].tolist() == ["layer2", "conv"]
    for _, row in probe.iterrows():
        rows = extractor(layer=row["layer"], cache=None).transform(images)
        wanted = cross_val_score(LogisticRegression(), rows, LABELS, cv=3)
        splits = row[["split0_score", "split1_score", "split2_score"]]
        assert_allclose(splits.to_numpy(float), wanted)
        assert_allclose(row["score"], wanted.mean())
        assert_allclose(row["standard_error"], wanted.std(ddof=1) / np.sqrt(3))
        assert row["n_features"] == rows.shape[1]
    assert (probe["fit_seconds"] > 0).all()
    assert probe.attrs["extract_seconds"] > 0
    assert probe.attrs["scoring"] == "accuracy"


def test_depth_is_the_share_of_the_operations(extractor, images):
    probe = linear_probe(extractor(), images, LABELS, cv=3)
    assert probe["depth"].is_monotonic_increasing
    assert 0 < probe["depth"].iloc[0] < 1
    assert 0.99 < probe["depth"].iloc[-1] <= 1


def test_a_pipeline_is_an_extractor_and_its_estimator(extractor, images):
    steps = StandardScaler(), RidgeClassifier()
    pipe = make_pipeline(extractor(layer="conv"), *steps)
    whole = linear_probe(pipe, images, LABELS, cv=3)
    parts = linear_probe(
        extractor(), images, LABELS, "stages", make_pipeline(*steps), 3
    )
    pd.testing.assert_series_equal(whole["score"], parts["score"])
    with pytest.raises(ValueError, match="The 'estimator' parameter"):
        linear_probe(pipe, images, LABELS, estimator=RidgeClassifier())


def test_targets_of_a_regression(extractor, images):
    target = images.mean((1, 2, 3)) / 100
    folds = KFold(3, shuffle=True, random_state=0)
    probe = linear_probe(extractor(), images, target, cv=folds)
    assert probe.attrs["scoring"] == "R²"
    assert probe["score"].max() > 0.9
    pair = np.stack([target, -target], axis=1)
    both = linear_probe(extractor(), images, pair, cv=folds, scoring="r2")
    assert both["score"].max() > 0.5
    counts = np.arange(N)
    errors = linear_probe(
        extractor(), images, counts, ["neck"], Ridge(), scoring="neg_mean_squared_error"
    )
    assert errors["score"].item() < 0
    assert errors.attrs["scoring"] == "neg mean squared error"
    assert score_name(lambda estimator, X, y: 0.0, True) == "score"


def test_groups_stay_together(extractor, images):
    groups = np.arange(N) // 5
    rows = extractor(layer="neck", cache=None).transform(images)
    model = RandomForestClassifier(5, random_state=0)
    found = linear_probe(
        extractor(), images, LABELS, ["neck"], model, GroupKFold(3), groups=groups
    )
    wanted = cross_val_score(model, rows, LABELS, cv=GroupKFold(3), groups=groups)
    assert_allclose(found["score"], wanted.mean())


def test_every_layer_has_the_same_folds(extractor, images):
    class Noting(RidgeClassifier):
        seen = []

        def fit(self, X, y):
            Noting.seen.append(tuple(y))
            return super().fit(X, y)

    splitter = ShuffleSplit(2, test_size=0.4)  # other folds whenever it is asked
    linear_probe(extractor(), images, LABELS, estimator=Noting(), cv=splitter)
    assert len(Noting.seen) == 8
    assert len(set(Noting.seen)) == 2


def test_folds_may_be_masks_and_targets_a_column(extractor, images):
    fold = np.arange(N) % 3 == 0
    masks = linear_probe(extractor(), images, LABELS, ["neck"], cv=[(~fold, fold)])
    rows = [(np.flatnonzero(~fold), np.flatnonzero(fold))]
    column = linear_probe(extractor(), images, LABELS[:, None], ["neck"], cv=rows)
    assert masks["score"].item() == column["score"].item()


def test_one_fold_has_no_standard_error(extractor, images):
    probe = linear_probe(
        extractor(), images, LABELS, ["neck"], cv=ShuffleSplit(1, random_state=0)
    )
    assert np.isnan(probe["standard_error"].item())


def test_images_that_cannot_be_read(extractor, images):
    broken = [Image.fromarray(image) for image in images]
    broken[4] = b"no image"
    with pytest.raises(BadImageError):
        linear_probe(extractor(), broken, LABELS, cv=3)
    with pytest.warns(BadImageWarning, match="1 image"):
        probe = linear_probe(extractor(on_error="nan"), broken, LABELS, cv=3)
    assert probe["score"].between(0, 1).all()
    bad_fold = LeaveOneOut()
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match="1 of 30 images could not be read"),
    ):
        linear_probe(extractor(on_error="nan"), broken, LABELS, cv=bad_fold)


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_a_class_of_one_image(extractor, images, log):
    labels = ["a"] + ["b"] * (N - 1)
    with pytest.raises(ValueError, match="'cv' .* at least two classes"):
        linear_probe(extractor(), images, labels)
    assert rows_counted(log) == 0


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"y": ["same"] * N}, ValueError, "'y' parameter .* only 'same'"),
        ({"y": LABELS[:-1]}, ValueError, "inconsistent numbers of samples"),
        ({"y": np.eye(3, dtype=int)[np.arange(N) % 3] * [1, 1, 0] + [0, 0, 1]},
         ValueError, "'estimator' parameter .*multilabel"),
        ({"y": [np.nan] * N}, ValueError, "y must not have missing"),
        ({"y": ["cat", np.nan] * (N // 2)}, ValueError, "missing .* index 1"),
        ({"cv": 11}, ValueError, "'cv' parameter .* class, which is 10. Got 11"),
        ({"cv": 31, "y": np.linspace(0, 1, N)}, ValueError, "'cv' parameter .* is 30"),
        ({"cv": []}, ValueError, "'cv' parameter .* folds"),
        ({"cv": [(np.arange(20), [])]}, ValueError, "'cv' .* folds with images"),
        ({"cv": [(np.arange(20), [N])]}, ValueError, "'cv' .* Got the index 30"),
        ({"y": [None, "a"] * (N // 2)}, ValueError, "missing .* index 0"),
        (
            {"y": np.array([1, "a"] * (N // 2), dtype=object)},
            ValueError,
            "'y' .*Got int, str",
        ),
        ({"cv": "five"}, ValueError, "'cv' parameter"),
        ({"layers": "neck"}, ValueError, "'layers' parameter"),
        ({"layers": []}, ValueError, "'layers' parameter .* at least one layer"),
        ({"layers": ["layer4"]}, ValueError, "'layers' parameter .* Did you mean"),
        ({"layers": [2, "layer3"]}, ValueError, "'layers' .*'layer3' is in it twice"),
        ({"scoring": "acuracy"}, ValueError, "'scoring' parameter"),
        ({"scoring": ["accuracy", "f1"]}, ValueError, "'scoring' parameter"),
        ({"estimator": "svm"}, ValueError, "'estimator' parameter"),
        ({"extractor": "resnet50"}, TypeError, "'extractor' .* Got 'resnet50'"),
        ({"extractor": FineTuneClassifier()}, TypeError, "estimator.body_"),
        ({"extractor": make_pipeline(StandardScaler())}, TypeError, "'extractor'"),
    ],
)  # fmt: skip
def test_bad_input(extractor, images, log, changes, error, match):
    arguments = {"extractor": extractor(), "X": images, "y": LABELS, **changes}
    with pytest.raises(error, match=match):
        linear_probe(**arguments)
    assert rows_counted(log) == 0
