"""What a network returns as NaN or infinite is an error, and never a label.

Images that cannot be read are another matter: `on_error` is about them alone.
"""

import pickle

import numpy as np
import pytest
import torch
from networks import OddNet, SmallNet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import (
    FeatureMapper,
    FineTuneClassifier,
    FineTuneRegressor,
    NonFiniteOutputError,
    PretrainedFeatureExtractor,
    SelfSupervisedExtractor,
    TrainingDivergedError,
    check_can_learn,
    learning_rate_range_test,
)
from skdeepfeat.cache import FeatureCache
from skdeepfeat.compression import compress
from skdeepfeat.inspection import activation_maps, relative_gradient_norms

N = 24
SIZE = 16
LABELS = np.arange(N) % 2
ODD = [3, 20]
GOOD = np.setdiff1d(np.arange(N), ODD)
PREPROCESSING = {"resize": (SIZE, SIZE), "crop": (SIZE, SIZE)}


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    images[LABELS == 1] += 100
    images[ODD] = 255
    images[ODD[0], 0, 0, 0] = 254
    return images.astype(np.uint8)


def extractor(net=None, **parameters):
    return PretrainedFeatureExtractor(
        net or OddNet(), preprocessing=PREPROCESSING, **parameters
    )


def fine_tune(kind=FineTuneClassifier, net=None, **parameters):
    defaults = {"max_epochs": 1, "batch_size": 8, "cache": None, "random_state": 0}
    return kind(
        net or OddNet(), preprocessing=PREPROCESSING, **{**defaults, **parameters}
    )


@pytest.fixture(params=["raise", "nan"])
def on_error(request):
    return request.param


# -- Features


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(pixels, tmp_path, on_error, value):
    cache = FeatureCache(tmp_path)
    features = extractor(OddNet(float(value)), on_error=on_error, cache=cache)
    with pytest.raises(NonFiniteOutputError, match=r"2 image.*\[3, 20\]") as caught:
        features.transform(pixels)
    assert isinstance(caught.value, ValueError)
    assert caught.value.indices == tuple(ODD)
    assert "arithmetic" in str(caught.value)
    # Nothing that was computed is lost.
    assert cache.info().n_rows == N - len(ODD)
    assert np.isfinite(features.transform(pixels[GOOD])).all()


def test_duplicates_and_many_rows_are_counted(pixels, on_error):
    X = np.concatenate([pixels[ODD[:1]]] * 7 + [pixels[GOOD]] + [pixels[ODD]] * 3)
    with pytest.raises(NonFiniteOutputError, match="13 image.* and 3 more") as caught:
        extractor(on_error=on_error, cache=None).transform(X)
    n = len(X)
    assert caught.value.indices == (*range(7), *range(n - 6, n))


def test_an_unreadable_image_is_something_else(pixels, tmp_path):
    X = [*pixels, tmp_path / "missing.png"]
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        extractor(on_error="nan", cache=None).transform(X)
    good = [X[i] for i in [*GOOD, N]]
    with pytest.warns(UserWarning, match="1 image"):
        rows = extractor(on_error="nan", cache=None).transform(good)
    assert np.isnan(rows).all(axis=1).tolist() == [False] * len(GOOD) + [True]


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_one_output_of_several(pixels, tmp_path, n_jobs):
    cache = FeatureCache(tmp_path)
    both = extractor(layer=["stem", "neck"], cache=cache, n_jobs=n_jobs)
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        both.transform(pixels)
    assert np.isfinite(extractor(layer="stem", cache=cache).transform(pixels)).all()
    assert both.transform(pixels[GOOD]).shape == (len(GOOD), 6 + 8)


def test_a_layer_that_only_the_cache_gets_is_no_error(pixels, tmp_path):
    cache = FeatureCache(tmp_path)
    stem = extractor(layer="stem", cache=cache, cache_layers=["neck"])
    assert np.isfinite(stem.transform(pixels)).all()
    assert sorted(one.n_rows for one in cache.info().namespaces) == [N - 2, N]
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        extractor(cache=cache).transform(pixels)


def test_what_was_written_to_a_file_stays(pixels, tmp_path, on_error):
    path = tmp_path / "features.npy"
    features = extractor(on_error=on_error, cache=None)
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        features.extract_to(pixels, path)
    assert not path.exists()
    assert (tmp_path / "features.npy.partial").exists()


def test_a_network_that_is_broken_is_given_up_soon():
    seen = []

    class Broken(SmallNet):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x) * torch.nan

    X = np.random.default_rng(0).integers(0, 255, (200, SIZE, SIZE, 3), np.uint8)
    features = extractor(Broken(), cache=None, batch_size=8, layer="output")
    features.fit(X)
    seen.clear()
    with pytest.raises(NonFiniteOutputError, match="indices .* and 22 more"):
        features.transform(X)
    assert sum(seen) < 120


def test_the_mapper(pixels, on_error):
    mapper = FeatureMapper(
        PretrainedFeatureExtractor(OddNet(), preprocessing=PREPROCESSING, cache=None)
    )
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        mapper({"image": pixels})


# -- The likely cause


def test_weights_that_are_not_finite_are_named(pixels):
    net = SmallNet()
    net.last.weight.data[0, 0] = torch.nan
    net.last.bias.data[0] = torch.inf
    with pytest.raises(NonFiniteOutputError, match=r"'last\.weight' and 1 more"):
        extractor(net, cache=None).transform(pixels)


def test_buffers_that_are_infinite_by_design_are_no_cause(pixels):
    net = OddNet()
    net.register_buffer("mask", torch.full((2, 2), -torch.inf))
    with pytest.raises(NonFiniteOutputError, match="Its weights are finite"):
        extractor(net, cache=None).transform(pixels)


def test_overflow_of_float16(pixels):
    net = SmallNet()
    with torch.no_grad():
        net.last.weight.mul_(1e6)
    with pytest.raises(NonFiniteOutputError, match="'bfloat16' or 'float32'"):
        extractor(net, cache=None, precision="float16").transform(pixels)
    rows = extractor(net, cache=None, precision="bfloat16").transform(pixels)
    assert np.isfinite(rows).all()


def test_the_error_can_be_sent_to_another_process():
    error = NonFiniteOutputError("because.", range(12))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.indices == error.indices


# -- Fine-tuning


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_no_row_is_left_out_of_a_fit(pixels, on_error, kind):
    estimator = fine_tune(kind, on_error=on_error)
    with pytest.raises(NonFiniteOutputError, match=r"of X .*\[3, 20\]"):
        estimator.fit(pixels, LABELS)
    assert not hasattr(estimator, "head_")
    with pytest.raises(NonFiniteOutputError, match=r"of X_val .*\[3, 20\]"):
        estimator.fit(pixels[GOOD], LABELS[GOOD], X_val=pixels, y_val=LABELS)
    for function in (learning_rate_range_test, check_can_learn):
        with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
            function(estimator, pixels, LABELS, **_all_rows(function))


def _all_rows(function):
    return {"n_samples": N} if function is check_can_learn else {}


@pytest.mark.parametrize("views", [None, "flip"])
def test_no_label_and_no_score(pixels, on_error, views):
    classifier = fine_tune(on_error=on_error, test_time_augmentation=views)
    classifier.fit(pixels[GOOD], LABELS[GOOD])
    regressor = fine_tune(
        FineTuneRegressor, on_error=on_error, test_time_augmentation=views
    ).fit(pixels[GOOD], LABELS[GOOD])
    calls = [
        classifier.predict,
        classifier.predict_proba,
        classifier.predict_log_proba,
        classifier.decision_function,
        classifier.transform,
        regressor.predict,
        lambda X: classifier.score(X, LABELS),
        lambda X: regressor.score(X, LABELS),
    ]
    for call in calls:
        with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
            call(pixels)
    assert len(classifier.predict(pixels[GOOD])) == len(GOOD)


def test_no_labels_from_an_indicator_matrix(pixels):
    Y = np.stack([LABELS, 1 - LABELS], axis=1)
    classifier = fine_tune(max_epochs=0).fit(pixels[GOOD], Y[GOOD])
    with pytest.raises(NonFiniteOutputError, match=r"\[3, 20\]"):
        classifier.predict(pixels)


@pytest.mark.parametrize(
    ("weight", "cause"), [(np.nan, "weights are NaN"), (3e38, "outputs overflow")]
)
def test_outputs_of_the_head(pixels, weight, cause):
    classifier = fine_tune(net=SmallNet(), max_epochs=0).fit(pixels, LABELS)
    with torch.no_grad():
        classifier.head_[-1].weight.fill_(weight)
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NonFiniteOutputError, match=f"24 image.*{cause}"):
            getattr(classifier, method)(pixels)


def test_images_without_labels(pixels, on_error):
    teacher = fine_tune(net=SmallNet()).fit(pixels, LABELS)
    student = fine_tune(teacher=teacher, on_error=on_error)
    with pytest.raises(NonFiniteOutputError, match=r"of X_unlabeled .*\[3, 20\]"):
        student.fit(pixels[GOOD], LABELS[GOOD], X_unlabeled=pixels)
    assert not hasattr(student, "head_")


@pytest.mark.parametrize("unfreeze", ["all", None])
@pytest.mark.parametrize("own", [True, False])
def test_a_teacher_without_numbers(own, unfreeze, pixels):
    teacher = fine_tune() if own else make_pipeline(extractor(), LogisticRegression())
    teacher.fit(pixels[GOOD], LABELS[GOOD])
    student = fine_tune(net=SmallNet(), teacher=teacher, unfreeze=unfreeze)
    # The same image twice, which is asked about once.
    images = pixels.copy()
    images[ODD[1]] = images[ODD[0]]
    with pytest.raises(NonFiniteOutputError, match=r"of X .*\[3, 20\].*'teacher'"):
        student.fit(images, LABELS)
    with pytest.raises(NonFiniteOutputError, match=r"of X_unlab.*\[3, 20\].*'teacher'"):
        student.fit(images[GOOD], LABELS[GOOD], X_unlabeled=images)


def test_what_looks_into_an_estimator(pixels):
    """Also where images are drawn or held out."""
    classifier = fine_tune().fit(pixels[GOOD], LABELS[GOOD])
    calls = [
        lambda X: activation_maps(classifier, X, method="occlusion", grid=2),
        lambda X: activation_maps(classifier, X),
        lambda X: relative_gradient_norms(classifier, X, LABELS),
        lambda X: compress(classifier, X, LABELS, validation_fraction=0.5,
                           random_state=0, fine_tune_epochs=0),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NonFiniteOutputError) as caught:
            call(pixels)
        assert set(caught.value.indices) <= set(ODD)


def unchanged(images):
    return images


def test_pretraining(pixels, on_error):
    pretrained = SelfSupervisedExtractor(
        OddNet(), preprocessing=PREPROCESSING, max_epochs=1, batch_size=8, cache=None,
        augment=unchanged, on_error=on_error, random_state=0,
    )  # fmt: skip
    with pytest.raises(NonFiniteOutputError, match=r"of X .*\[3, 20\]"):
        pretrained.fit(pixels)


class Exploding(SmallNet):
    """Overflows in evaluation once its weights have moved, though they are finite."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(self.last.bias.detach().clone())

    def forward(self, x):
        maps = self.last(self.stem(x).relu()).relu()
        if not self.training and not torch.equal(self.last.bias, self.start):
            maps = maps * 3e38 * 10
        return self.head(maps.mean((2, 3)))


def test_a_validation_set_without_numbers_ends_the_training(pixels):
    classifier = fine_tune(net=Exploding(), max_epochs=3, ema_decay=0.0)
    with pytest.raises(TrainingDivergedError, match="validation set"):
        classifier.fit(pixels, LABELS, X_val=pixels, y_val=LABELS)
    # Finite features from before are kept.
    assert classifier.history_["phase"].tolist() == ["head"]
    assert np.isfinite(classifier.predict_proba(pixels)).all()


def test_a_head_that_diverges_is_kept_as_it_was(pixels, monkeypatch):
    monkeypatch.setattr("skdeepfeat.fine_tuning._head_phase._LEARNING_RATE", 1e20)
    regressor = fine_tune(
        FineTuneRegressor, net=SmallNet(), head_epochs=5, hidden_layer_sizes=(4,)
    )
    with pytest.raises(TrainingDivergedError, match="head"):
        regressor.fit(pixels, LABELS)
    assert np.isfinite(regressor.predict(pixels)).all()
