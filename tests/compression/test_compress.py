"""`compress` on networks that are trained in seconds."""

import copy
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from skdeepfeat import (
    FineTuneClassifier,
    FineTuneRegressor,
    NonFiniteOutputError,
    PretrainedFeatureExtractor,
)
from skdeepfeat.compression import compress
from skdeepfeat.compression._search import METHODS
from skdeepfeat.compression._subjects import make_subject
from skdeepfeat.networks import changes_of, zero_subnormal

SIZE = 16

# Other runtimes take seconds; `test_timing.py` has them.
compress = functools.partial(compress, runtimes=["torch"])


class Net(nn.Module):
    """Two blocks with room to be made smaller, and an old head."""

    def __init__(self, seed=0):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.middle = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.point = nn.Conv2d(64, 48, 1)
        self.hidden = nn.Linear(48, 40)
        self.neck = nn.Linear(40, 24)
        self.head = nn.Linear(24, 1000)
        fix_weights(self, scale=1 / 8, seed=seed)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.point(self.wide(self.middle(x).relu()).relu()).relu()
        return self.head(self.neck(self.hidden(x.mean((2, 3))).relu()).relu())


@pytest.fixture(scope="module")
def images():
    digits = load_digits(n_class=4)
    pixels = (digits.images[:200] * 15).astype(np.uint8)
    pixels = pixels.repeat(2, 1).repeat(2, 2)
    return pixels[..., None].repeat(3, -1), digits.target[:200]


def make(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": Net(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 12,
        "learning_rate": 2e-3,
        "layer_decay": 1.0,
        "augment": None,
        "device": "cpu",
        "cache": None,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted(images):
    return make().fit(*images)


def state_of(estimator):
    return {
        name: value.clone()
        for part in (estimator.body_, estimator.head_, estimator.model)
        for name, value in part.state_dict(prefix=f"{id(part)}.").items()
    }


def n_parameters(estimator):
    return sum(p.numel() for p in estimator.body_.parameters())


# The kernels of this network were random not long ago, and have no low rank.
ALLOWED = {"svd": 1.0, "tucker": 1.0, "tensor_train": 1.0}


def quick_if(is_quick, value):
    return value if is_quick else pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "method", [quick_if(one in ("low_rank", "prune"), one) for one in METHODS]
)
def test_every_method(method, fitted, images, tmp_path):
    X, y = images
    before = state_of(fitted)
    allowed = ALLOWED.get(method, 0.1)
    small = compress(
        fitted, X, y, method=method, max_score_drop=allowed, fine_tune_epochs=1,
        random_state=0,
    )  # fmt: skip
    # The original is as it was, and its parameters are those of the small one.
    for name, value in state_of(fitted).items():
        assert_array_equal(value, before[name])
    assert changes_of(fitted.body_) == changes_of(fitted.model) == []
    assert not hasattr(fitted, "compression_report_")
    shown = {name: str(value) for name, value in fitted.get_params().items()}
    assert {name: str(value) for name, value in small.get_params().items()} == shown
    assert small.score(X, y) > fitted.score(X, y) - allowed - 0.05

    summary = small.compression_summary_.set_index("network")
    first, last = summary.loc["before"], summary.loc[f"after {method}"]
    assert last["score"] >= first["score"] - allowed
    if method == "obd_weights":
        assert last["bytes"] == first["bytes"]
        assert last["sparse_bytes"] < 0.8 * first["sparse_bytes"]
    else:
        assert last["bytes"] < first["bytes"]
        cost = "parameters" if method == "tensor_train" else "multiply_adds"
        assert last[cost] < 0.95 * first[cost]
    times = [column for column in summary if column.startswith("ms_per_image")]
    assert {"ms_per_image_torch_1", "ms_per_image_torch_32"} <= set(times)
    assert (summary[times] > 0).all().all()

    report = small.compression_report_.set_index("layer")
    assert (report["method"] == method).all()
    assert (report["parameters"] <= report["parameters_before"]).all()
    changed = report[report["kind"] != "unchanged"]
    assert len(changed)
    if method not in ("prune", "obd_weights"):
        assert changed["relative_error"].between(0, 1).all()

    # Files and pickles bring it back, with the tables.
    path = tmp_path / "small.safetensors"
    small.save(path)
    assert file_size(path) == pytest.approx(last["bytes"], abs=12_000)
    for again in (
        FineTuneClassifier.load(path, model=Net(seed=3)),
        pickle.loads(pickle.dumps(small)),
        copy.deepcopy(small),
    ):
        assert_array_equal(again.predict_proba(X), small.predict_proba(X))
        assert changes_of(again.body_) == changes_of(small.body_)
        for name in ("compression_report_", "compression_summary_"):
            pd.testing.assert_frame_equal(getattr(again, name), getattr(small, name))


def file_size(path):
    """Return the size of a file without the original network of the user's own."""
    return path.stat().st_size - sum(4 * p.numel() for p in Net().parameters())


@pytest.fixture(scope="module")
def small(fitted, images):
    return compress(
        fitted, *images, method=["prune", "low_rank"], max_score_drop=0.1,
        fine_tune_epochs=1, random_state=0,
    )  # fmt: skip


@pytest.mark.slow
def test_several_methods_follow_each_other(small, fitted):
    summary = small.compression_summary_
    assert summary["network"].tolist() == ["before", "after prune", "after low_rank"]
    assert (np.diff(summary["multiply_adds"]) < 0).all()
    report = small.compression_report_
    assert report["method"].unique().tolist() == ["prune", "low_rank"]
    kinds = set(report["kind"])
    assert "pruned" in kinds and kinds & {"low_rank", "separable"}
    sizes = report[report["kind"] == "pruned"]["size"]
    assert sizes.str.fullmatch(r"(, )?(\d+ of \d+ (channels|inputs)(, )?)+").all()
    notes = report.set_index("layer")["note"]
    assert notes["neck"].iloc[0] == "the features are returned"
    # The old head of 1,000 classes is not kept.
    assert small.body_.head.out_features == 1
    assert n_parameters(small) < n_parameters(fitted) / 2
    # Nor does it count before.
    old_head = sum(p.numel() for p in fitted.body_.head.parameters())
    heads = [*fitted.head_.parameters()]
    n_before = n_parameters(fitted) + sum(p.numel() for p in heads) - old_head
    assert summary["parameters"][0] == n_before + 25  # one output is left


def test_a_clone_trains_the_original_network(small, fitted, images):
    again = clone(small).fit(*images)
    assert not hasattr(again, "compression_report_")
    assert changes_of(again.body_) == []
    assert_array_equal(again.predict_proba(images[0]), fitted.predict_proba(images[0]))


def test_a_warm_start_continues_from_the_small_network(small, images, tmp_path):
    again = copy.deepcopy(small).set_params(warm_start=True, max_epochs=1)
    again.fit(*images)
    assert again.n_epochs_ == small.n_epochs_ + 1
    assert changes_of(again.body_) == changes_of(small.body_)
    assert n_parameters(again) == n_parameters(small)
    # The tables would no longer be true.
    assert not hasattr(again, "compression_summary_")
    again.save(tmp_path / "again.safetensors")
    loaded = FineTuneClassifier.load(tmp_path / "again.safetensors", model=Net())
    assert_array_equal(loaded.predict(images[0]), again.predict(images[0]))


def test_the_small_body_is_a_network_of_its_own(small, fitted, images, tmp_path):
    X, y = images
    rows = [
        PretrainedFeatureExtractor(
            one.body_, preprocessing=fitted.preprocessing, cache=tmp_path
        ).transform(X)
        for one in (fitted, small)
    ]
    assert not np.allclose(*rows)
    assert_allclose(rows[1], small.transform(X), rtol=1e-4, atol=1e-5)
    # As the model of an estimator, its changes are in the file.
    tuned = make(model=small.body_, max_epochs=1).fit(X, y)
    assert n_parameters(tuned) == n_parameters(small)
    tuned.save(tmp_path / "tuned.safetensors")
    for model in (Net(), small.body_):
        loaded = FineTuneClassifier.load(tmp_path / "tuned.safetensors", model=model)
        assert_array_equal(loaded.predict_proba(X), tuned.predict_proba(X))


@pytest.mark.parametrize("method", ["low_rank", "prune"])
def test_a_file_that_fits(method, fitted, images, tmp_path):
    small = compress(
        fitted, *images, method=method, max_bytes=110_000, max_score_drop=0.3,
        fine_tune_epochs=1, random_state=0,
    )  # fmt: skip
    small.save(tmp_path / "small.safetensors")
    assert 60_000 < file_size(tmp_path / "small.safetensors") <= 110_000


def test_a_file_that_cannot_fit(fitted, images):
    with pytest.warns(RuntimeWarning, match="'max_bytes'") as record:
        small = compress(
            fitted, *images, max_bytes=1000, max_score_drop=1.0, fine_tune_epochs=0,
            random_state=0,
        )  # fmt: skip
    assert record[0].filename == __file__
    assert n_parameters(small) < n_parameters(fitted) / 4


@pytest.mark.parametrize("method", ["low_rank", "prune", "obd_weights"])
def test_a_drop_that_cannot_be_kept(method, fitted, images):
    # Scores fall with each candidate.
    scores = iter(np.linspace(1, 0, 60))
    with pytest.warns(RuntimeWarning, match="'max_score_drop'"):
        small = compress(
            fitted, *images, method=method, max_score_drop=0.0, fine_tune_epochs=0,
            scoring=lambda estimator, X, y: next(scores), random_state=0,
        )  # fmt: skip
    assert len(small.compression_summary_) == 2
    small.predict(images[0])


class Standardized(nn.Conv2d):
    """A convolution whose weights are divided by their deviation."""

    def forward(self, x):
        weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.slow
def test_candidates_that_return_nan_do_not_end_the_search(images):
    X, y = images
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), Standardized(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    estimator = make(model=network, max_epochs=0).fit(X, y)
    # Without its last weight, a channel is divided by zero.
    small = compress(
        estimator, X, y, method="obd_weights", max_score_drop=1.0, random_state=0
    )
    assert np.isfinite(small.predict_proba(X[:4])).all()


@pytest.mark.slow
def test_candidates_whose_training_diverges_stay_untrained(fitted, images):
    estimator = copy.deepcopy(fitted).set_params(learning_rate=1e30)
    small = compress(
        estimator, *images, method="svd", max_score_drop=1.0, fine_tune_epochs=1,
        random_state=0,
    )  # fmt: skip
    assert n_parameters(small) < n_parameters(fitted)
    assert small.history_.equals(fitted.history_)


@pytest.mark.parametrize("weight", [0.0, 0.95])
def test_candidates_learn_what_the_original_says(weight, fitted, images):
    X, y = images
    estimator = copy.deepcopy(fitted).set_params(distill_weight=weight)
    random_state = np.random.RandomState(0)
    subject = make_subject(estimator, X, (y + 1) % 4, None, 0.25, random_state, 12)
    trained = subject.result(subject.train(subject.model()))
    agreement = (trained.predict(X) == fitted.predict(X)).mean()
    assert agreement > 0.9 if weight else agreement < 0.5
    assert trained.get_params()["teacher"] is None


def test_without_probabilities_there_is_no_teacher(images):
    estimator = make(loss="hinge", max_epochs=1).fit(*images)
    small = compress(
        estimator, *images, method="svd", max_score_drop=1.0, fine_tune_epochs=1,
        scoring=lambda estimator, X, y: 1.0, random_state=0,
    )  # fmt: skip
    assert len(small.history_) > len(estimator.history_)


def interrupted_at(number, scores=None):
    """Return a scorer that Ctrl-C ends at a call, counted from 0."""
    calls = iter(range(100))

    def scoring(estimator, X, y):
        call = next(calls)
        if call == number:
            raise KeyboardInterrupt
        return estimator.score(X, y) if scores is None else scores[call]

    return scoring


def test_an_interruption_keeps_the_last_network(fitted, images):
    with pytest.warns(RuntimeWarning, match="interrupted"):
        small = compress(
            fitted, *images, method=["prune", "low_rank"], max_score_drop=0.5,
            fine_tune_epochs=0, scoring=interrupted_at(3), random_state=0,
        )  # fmt: skip
    assert small.compression_report_["method"].unique().tolist() == ["prune"]
    assert n_parameters(small) < n_parameters(fitted)


@pytest.mark.parametrize("method", ["low_rank", "prune"])
def test_an_interruption_before_a_network_keeps_the_limits(method, fitted, images):
    with pytest.raises(KeyboardInterrupt):
        compress(
            fitted, *images, method=method, max_score_drop=0.1, fine_tune_epochs=0,
            scoring=interrupted_at(2, scores=[1.0, 0.0]), random_state=0,
        )  # fmt: skip


def test_what_the_methods_before_have_made_is_not_lost(fitted, images):
    # Of "svd" the first candidate is one too many.
    n_calls = []
    settings = {"max_score_drop": 1.0, "fine_tune_epochs": 0, "random_state": 0}
    compress(
        fitted, *images, method="low_rank", **settings,
        scoring=lambda *data: n_calls.append(1) or 1.0,
    )  # fmt: skip
    stopped = interrupted_at(len(n_calls), scores=[1.0] * 100)
    with pytest.warns(RuntimeWarning, match="interrupted during 'svd'"):
        small = compress(
            fitted, *images, method=["low_rank", "svd"], **settings, scoring=stopped
        )
    assert n_parameters(small) < n_parameters(fitted) / 2
    summary = small.compression_summary_
    assert summary["network"].tolist() == ["before", "after low_rank", "after svd"]
    assert summary["bytes"].nunique() == 2


def test_a_later_method_that_finds_nothing(images):
    X, y = images
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    convolutions = make(model=network, max_epochs=1).fit(X, y)
    with pytest.warns(RuntimeWarning, match="'tensor_train', finds nothing"):
        small = compress(
            convolutions, X, y, method=["svd", "tensor_train"], max_score_drop=1.0,
            fine_tune_epochs=0, random_state=0,
        )  # fmt: skip
    report = small.compression_report_.set_index("method")
    assert (report.loc["svd", "kind"] != "unchanged").any()
    assert (report.loc["tensor_train", "kind"] == "unchanged").all()


@pytest.mark.slow
def test_a_regressor(images):
    X, y = images
    targets = np.stack([y.astype(float) * 100, -y], 1)
    fitted = make(FineTuneRegressor).fit(X, targets)
    small = compress(
        fitted, X, targets, method="prune", criterion="obd", max_score_drop=0.2,
        fine_tune_epochs=1, random_state=0,
    )  # fmt: skip
    assert small.predict(X).shape == targets.shape
    assert n_parameters(small) < n_parameters(fitted)


@pytest.mark.parametrize("method", ["low_rank", "svd", "prune"])
def test_an_extractor(method, images, tmp_path):
    X, _ = images
    network = Net()
    extractor = PretrainedFeatureExtractor(
        network,
        preprocessing={"resize": SIZE, "crop": (SIZE, SIZE)},
        cache=tmp_path,
    ).fit(X)
    small = compress(
        extractor, X, method=method, max_relative_error=0.2, random_state=0
    )
    assert extractor.model is network and changes_of(network) == []
    wanted, found = extractor.transform(X), small.transform(X)
    errors = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert 1e-4 < errors.mean() < 0.3
    summary = small.compression_summary_.set_index("network")
    assert 0 < summary.loc[f"after {method}", "relative_error"] <= 0.2
    again = pickle.loads(pickle.dumps(small))
    assert_array_equal(again.transform(X), found)
    assert_allclose(clone(small).fit(X).transform(X), found)


@pytest.mark.slow
def test_a_layer_of_an_extractor(images):
    X, _ = images
    extractor = PretrainedFeatureExtractor(image_size=32, layer="blocks.2", cache=None)
    small = compress(extractor, X[:40], max_relative_error=0.3, random_state=0)
    assert small.transform(X).shape == extractor.transform(X).shape
    report = small.compression_report_
    # Only what runs is looked at.
    assert not report["layer"].str.startswith("blocks.3").any()


def linear_only():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))


@pytest.mark.parametrize(
    ("changes", "kind", "match"),
    [
        ({"y": None}, ValueError, "'y' parameter"),
        ({"method": "lowrank"}, ValueError, "'method'.*low_rank"),
        ({"method": []}, ValueError, "'method'"),
        ({"method": ["prune", 3]}, ValueError, "'method'"),
        ({"validation_fraction": 0.001}, ValueError, "'validation_fraction'"),
        ({"max_bytes": 0}, ValueError, "'max_bytes'"),
        (
            {"max_bytes": 10**5, "method": ["prune", "obd_weights"]},
            ValueError,
            "'max_bytes'.*Got 100000",
        ),
        ({"criterion": "taylr"}, ValueError, "'criterion'"),
        ({"estimator": "resnet18"}, TypeError, "'estimator'"),
        ({"scoring": "acuracy"}, ValueError, "scoring"),
        ({"scoring": 5}, ValueError, "'scoring'.*Got 5"),
        ({"scoring": lambda *_: np.nan}, ValueError, "'scoring'"),
        ({"scoring": ["accuracy"]}, ValueError, "'scoring'.*one number.*accuracy"),
    ],
)
def test_bad_input(changes, kind, match, fitted, images):
    arguments = {"estimator": fitted, "X": images[0], "y": images[1], **changes}
    with pytest.raises(kind, match=match):
        compress(**arguments)


def test_more_bad_input(images):
    X, y = images
    geometry = {"resize": SIZE, "crop": (SIZE, SIZE)}
    with pytest.raises(Exception, match="not fitted"):
        compress(make(), X, y)
    extractor = PretrainedFeatureExtractor(Net(), preprocessing=geometry, cache=None)
    with pytest.raises(ValueError, match="'fine_tune_epochs'"):
        compress(extractor, X, fine_tune_epochs=2)
    with pytest.raises(ValueError, match="'scoring'"):
        compress(extractor, X, scoring="accuracy")
    with torch.no_grad():
        extractor.model.stem.weight[0] = torch.nan
    with pytest.raises(NonFiniteOutputError, match="weights: 'stem.weight'") as error:
        compress(extractor, X, random_state=0)
    extractor.set_params(on_error="nan")
    with pytest.raises(NonFiniteOutputError) as shifted:
        compress(extractor, ["missing.jpg", *X], random_state=0)
    assert shifted.value.indices == tuple(i + 1 for i in error.value.indices)
    nothing = make(model=linear_only(), max_epochs=0).fit(X, y)
    for method in ("low_rank", "prune"):
        with pytest.raises(ValueError, match="nothing to make smaller"):
            compress(nothing, X, y, method=method)
    mixed = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"smaller in Sequential \(group_norm may mix"):
        compress(make(model=mixed, max_epochs=0).fit(X, y), X, y, method="prune")


def test_subnormal_weights_are_zeroed():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[0, :2] = torch.tensor([1e-40, -1e-42])
        layer.bias[0] = torch.finfo(torch.float32).tiny
    assert zero_subnormal(layer) == 2
    assert layer.weight[0, :2].tolist() == [0, 0]
    assert layer.bias[0] != 0
