"""Fine-tuning lives through real faults: broken files, kills, lost memory, bad numbers.

Nothing is pretended: files are cut, processes killed, losses overflow.
"""

import os
import pathlib
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from networks import CountingNet, SmallNet, rows_counted
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.model_selection import cross_val_score
from torch import nn

from benchmarks._forks import run_python
from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    FineTuneRegressor,
    OutOfMemoryError,
    TrainingDivergedError,
)
from skdeepfeat.training import FeatureData

N = 24
SIZE = 16
LABELS = np.array(["dark", "bright"])[np.arange(N) % 2]
PREPROCESSING = {"resize": (SIZE, SIZE), "crop": (SIZE, SIZE)}
HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def make_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    images[LABELS == "bright"] += 130
    return images.astype(np.uint8)


@pytest.fixture(scope="module")
def pixels():
    return make_pixels()


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return [str(folder / f"{i:02d}.png") for i in range(N)]


def small(kind=FineTuneClassifier, **parameters):
    """Return an estimator that is fitted in a fraction of a second."""
    defaults = {
        "model": SmallNet(),
        "preprocessing": PREPROCESSING,
        "max_epochs": 2,
        "batch_size": 8,
        "cache": None,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


def weights_of(estimator):
    modules = [estimator.head_, estimator.body_]
    return [t for m in modules if m is not None for t in m.state_dict().values()]


def equal_weights(a, b):
    pairs = zip(weights_of(a), weights_of(b), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# Broken images


@pytest.fixture
def broken(paths, tmp_path):
    """Paths with faults at rows 3 and 7."""
    cut = tmp_path / "cut.png"
    with open(paths[3], "rb") as file:
        cut.write_bytes(file.read()[:-300])
    X = list(paths)
    X[3], X[7] = str(cut), tmp_path / "missing.png"
    return X


GOOD = np.setdiff1d(np.arange(N), [3, 7])


def test_broken_images_raise_by_default(broken, paths):
    classifier = small()
    with pytest.raises(BadImageError, match=r"index [37], .*(cut|missing)\.png"):
        classifier.fit(broken, LABELS)
    assert not hasattr(classifier, "head_")
    classifier.fit(paths, LABELS)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        with pytest.raises(BadImageError, match=r"index [37]"):
            getattr(classifier, method)(broken)


def test_broken_images_are_left_out_of_the_fit(broken, paths):
    with pytest.warns(BadImageWarning, match=r"2 image\(s\).* left out") as caught:
        classifier = small(on_error="nan").fit(broken, LABELS)
    assert len(caught) == 1
    good = [paths[i] for i in GOOD]
    assert equal_weights(classifier, small().fit(good, LABELS[GOOD]))


@pytest.mark.parametrize("views", [None, "flip"])
def test_broken_images_have_rows_of_nan(broken, paths, views):
    classifier = small(on_error="nan", test_time_augmentation=views)
    classifier.fit(paths, LABELS)
    expected = classifier.predict_proba(paths)
    with pytest.warns(BadImageWarning, match="rows are NaN"):
        probabilities = classifier.predict_proba(broken)
    assert np.isnan(probabilities[[3, 7]]).all()
    np.testing.assert_allclose(probabilities[GOOD], expected[GOOD], rtol=1e-5)
    regressor = small(FineTuneRegressor, on_error="nan", test_time_augmentation=views)
    regressor.fit(paths, np.arange(N))
    with pytest.warns(BadImageWarning):
        values = regressor.predict(broken)
    assert np.flatnonzero(np.isnan(values)).tolist() == [3, 7]
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match="2 image.* no prediction .* index 3"),
    ):
        regressor.score(broken, np.arange(N))


def test_no_label_for_a_missing_image_and_nothing_computed_for_it(broken, tmp_path):
    log = tmp_path / "log"
    classifier = small(model=CountingNet(log), on_error="nan")
    with pytest.warns(BadImageWarning):
        classifier.fit(broken, LABELS)
    n_before = rows_counted(log)
    # Row 3 is damaged, which its digest does not tell.
    with pytest.raises(
        ValueError, match=r"1 image.*indices \[7\].*predict_proba.*\n.*7"
    ):
        classifier.predict(broken)
    assert rows_counted(log) == n_before


def test_no_label_for_a_damaged_image_and_nothing_computed_twice(
    broken, paths, tmp_path
):
    log = tmp_path / "log"
    X = [*broken[:7], paths[7], *broken[8:], broken[3]]
    classifier = small(model=CountingNet(log), on_error="nan", cache=tmp_path / "rows")
    classifier.fit(paths, LABELS)
    n_before = rows_counted(log)
    with pytest.raises(
        ValueError, match=rf"2 image.*indices \[3, {N}\].*predict_proba"
    ):
        classifier.predict(X)
    assert rows_counted(log) == n_before + N - 1
    with pytest.warns(BadImageWarning, match="2 image"):
        probabilities = classifier.predict_proba(X)
    good = np.setdiff1d(np.arange(N), [3])
    labels = classifier.predict([X[i] for i in good])
    assert rows_counted(log) == n_before + N - 1
    assert_array_equal(labels, classifier.classes_[probabilities[good].argmax(1)])


def test_no_label_from_views_of_a_broken_image(broken, paths, tmp_path):
    log = tmp_path / "log"
    classifier = small(model=CountingNet(log), on_error="nan", max_epochs=0)
    classifier.fit(paths, LABELS).set_params(test_time_augmentation="flip")
    n_before = rows_counted(log)
    with pytest.raises(ValueError, match=r"indices \[3, 7\].*predict_proba"):
        classifier.predict(broken)
    assert rows_counted(log) == n_before


def test_a_broken_validation_set(broken, paths):
    fits = []
    for rows, X_val in [(np.arange(N), broken), (GOOD, [paths[i] for i in GOOD])]:
        classifier = small(on_error="nan", early_stopping=True, max_epochs=3)
        if X_val is broken:
            with pytest.warns(BadImageWarning):
                classifier.fit(paths, LABELS, X_val=X_val, y_val=LABELS[rows])
        else:
            classifier.fit(paths, LABELS, X_val=X_val, y_val=LABELS[rows])
        fits.append(classifier)
    assert equal_weights(*fits)
    columns = ["validation_loss", "validation_score"]
    histories = [one.history_[columns].to_numpy() for one in fits]
    np.testing.assert_allclose(*histories, rtol=1e-5)


def test_nothing_but_broken_images(tmp_path):
    missing = [tmp_path / f"{i}.png" for i in range(4)]
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match="There is nothing to fit"),
    ):
        small(on_error="nan").fit(missing, [0, 1, 0, 1])


# Bad numbers


@pytest.mark.parametrize("ema_decay", [0.0, 0.99])
def test_a_loss_that_is_no_number_leaves_the_last_good_weights(pixels, ema_decay):
    classifier = small(
        optimizer="sgd", learning_rate=1e8, schedule="constant", max_grad_norm=None,
        max_epochs=50, ema_decay=ema_decay,
    )  # fmt: skip
    with pytest.raises(TrainingDivergedError, match="'learning_rate' .*1e"):
        classifier.fit(pixels, LABELS)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(classifier))
    assert set(classifier.predict(pixels)) <= {"dark", "bright"}
    assert np.isfinite(classifier.predict_proba(pixels)).all()
    assert classifier.n_epochs_ == (classifier.history_["phase"] == "body").sum() < 50


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        (LABELS[:-1], "inconsistent numbers of samples"),
        (np.full(N, "dark"), "at least 2 classes in y, but it has one class: 'dark'"),
        (np.r_[np.nan, np.arange(N - 1) % 2], "y must not have missing"),
        (np.linspace(0, 1, N), "Unknown label type"),
        ([None, *LABELS[1:]], "y must not have missing"),
        (np.zeros((N, 2, 2)), "dim 3|3 dim"),
        ([["a"], ["a", "b"]] * (N // 2), r"MultiLabelBinarizer.*Got \['a'\]"),
        (pd.Series([["a"], ["b", "c"]] * (N // 2)), "MultiLabelBinarizer"),
        ([{"a"}, {"b"}] * (N // 2), "MultiLabelBinarizer"),
        # scikit-learn takes any two integers for an indicator matrix.
        (np.tile([[1, -1], [-1, 1]], (N // 2, 1)), r"only 0 and 1 .* \[-1, 1\]"),
        (np.tile([[1, 2], [2, 1]], (N // 2, 1)), r"only 0 and 1 .* \[1, 2\]"),
    ],
)
def test_wrong_labels(pixels, y, message):
    with pytest.raises(ValueError, match=message):
        small().fit(pixels, y)


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (dict(enumerate(LABELS)), "mapping.* Got dict"),
        (set(LABELS), "no order.* Got set"),
        (iter(LABELS), "only once"),
    ],
)
def test_labels_without_an_order(pixels, kind, y, message):
    with pytest.raises(TypeError, match=f"y must be .*{message}"):
        small(kind).fit(pixels, y)


class Silent(nn.Linear):
    """Returns nothing that features could be taken from."""

    def forward(self, x):
        return None


class Sealed(nn.Linear):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise NotImplementedError("it holds a handle")


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
@pytest.mark.parametrize(
    ("name", "value", "rest"),
    [
        ("model", "resnet5", {}),
        ("model", Silent(2, 2), {}),
        ("model", Sealed(2, 2), {}),
        ("weights", "/no/where.pth", {}),
        ("weights", "IMAGENET1K_V9", {}),
        ("weights", None, {"model": SmallNet()}),
        ("image_size", (1, 2, 3), {}),
        ("preprocessing", {}, {}),
    ],
)
def test_errors_about_the_network_name_no_other_estimator(
    pixels, kind, name, value, rest
):
    estimator = kind("resnet18", cache=None).set_params(**{name: value}, **rest)
    with pytest.raises((OSError, TypeError, ValueError)) as caught:
        estimator.fit(pixels, np.arange(N) % 2)
    assert str(caught.value).startswith(f"The {name!r} parameter must ")
    assert "PretrainedFeatureExtractor" not in str(caught.value)


# Batch normalization of few values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_body_below_float32_is_not_tuned(pixels, dtype):
    tuned = small(model=SmallNet().to(dtype))
    with pytest.raises(ValueError, match=r"^The 'model' .* model\.float\(\)"):
        tuned.fit(pixels, LABELS)
    assert hasattr(tuned.set_params(unfreeze=None).fit(pixels, LABELS), "head_")


class OnePixelNorm(SmallNet):
    """A batch normalization of maps of one pixel, for images of 4 x 4."""

    def __init__(self, limit=1000):
        super().__init__(limit)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        # What is tried out before, on two black images, is not on the device.
        if len(x) > self.limit and self.norm.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        maps = self.norm(self.last(self.stem(x).relu()))
        return self.head(maps.relu().mean((2, 3)))


def fit_one_pixel(n, net=None, y=None, **parameters):
    images = np.random.default_rng(0).integers(0, 255, (n, 4, 4, 3), np.uint8)
    classifier = small(
        model=net or OnePixelNorm(), max_epochs=1, freeze_batch_norm=False,
        preprocessing={"resize": 4, "crop": 4}, **parameters,
    )  # fmt: skip
    return classifier.fit(images, np.arange(n) % 2 if y is None else y)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_no_batch_of_one_image(n, batch_size):
    classifier = fit_one_pixel(n, batch_size=batch_size)
    assert classifier.n_epochs_ == 1


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"n": 4, "batch_size": 1}, r"Got batch_size=1 and a batch of 1 image\(s\)\. "),
        ({"n": 4, "net": OnePixelNorm(1)}, "a batch of 4 .* only 1 of which fit"),
    ],
)
def test_batches_without_variance_are_named(parameters, cause):
    with pytest.raises(ValueError, match=f"'batch_size' .*freeze_batch_norm.*{cause}"):
        fit_one_pixel(**parameters)


def test_one_image_at_a_time_is_enough_with_frozen_statistics():
    images = np.random.default_rng(0).integers(0, 255, (4, 4, 4, 3), np.uint8)
    one_by_one = small(
        model=OnePixelNorm(), batch_size=1, preprocessing={"resize": 4, "crop": 4}
    ).fit(images, [0, 1, 0, 1])
    assert np.isfinite(one_by_one.history_["train_loss"]).all()


@pytest.mark.parametrize("weights", [{0: -1, 1: 1}, {0: np.nan, 1: 1}])
def test_weights_of_classes_that_make_no_sense(pixels, weights):
    with pytest.raises(ValueError, match="'class_weight' parameter"):
        small(class_weight=weights).fit(pixels, np.arange(N) % 2)


def test_weights_of_classes_that_are_all_zero(pixels):
    with pytest.raises(ValueError, match="a weight of 0"):
        small(class_weight={0: 0, 1: 0}).fit(pixels, np.arange(N) % 2)


def test_weights_whose_sum_overflows(pixels):
    heavy = small().fit(pixels, LABELS, sample_weight=np.full(N, 1e308))
    assert equal_weights(heavy, small().fit(pixels, LABELS))


def test_targets_whose_variance_overflows(pixels):
    y = np.where(np.arange(N) % 2, 1e200, 0.0)
    with pytest.raises(ValueError, match="y must hold targets whose variance"):
        small(FineTuneRegressor).fit(pixels, y)


# Interruptions


def test_an_interruption_leaves_a_usable_estimator(pixels):
    calls = []

    def press_control_c(images):
        calls.append(len(images))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return images

    classifier = small(augment=press_control_c, max_epochs=9)
    with pytest.warns(RuntimeWarning, match="interrupted after 2 of 9"):
        classifier.fit(pixels, LABELS)
    assert classifier.n_epochs_ == 2
    assert classifier.score(pixels, LABELS) > 0.9
    assert classifier.history_["phase"].tolist() == ["head", "body", "body"]


def test_an_interruption_of_the_head_ends_the_fit(pixels, monkeypatch):
    batch, calls = FeatureData.batch, []

    def press_control_c(*args):
        calls.append(1)
        if len(calls) == 150:
            raise KeyboardInterrupt
        return batch(*args)

    monkeypatch.setattr(FeatureData, "batch", press_control_c)
    classifier = small(head_init="random", head_epochs=1000)
    with pytest.warns(RuntimeWarning, match="interrupted"):
        classifier.fit(pixels, LABELS)
    assert classifier.body_ is None
    assert set(classifier.history_["phase"]) == {"head"}
    assert classifier.score(pixels, LABELS) > 0.9


# Checkpoints

FIT = """
import os, signal, sys
from networks import CountingNet, rows_counted
from test_faults import LABELS, make_pixels, small

log, checkpoint = sys.argv[1:]
forward = CountingNet.forward

def deadly(self, x):
    if os.path.exists(checkpoint) and rows_counted(log) >= 96:
        os.kill(os.getpid(), signal.SIGKILL)  # nothing can be tidied up
    return forward(self, x)

CountingNet.forward = deadly
small(model=CountingNet(log), max_epochs=6, checkpoint=checkpoint).fit(
    make_pixels(), LABELS
)
"""


@pytest.mark.slow
def test_a_killed_fit_goes_on_where_it_was(pixels, tmp_path):
    log, checkpoint = tmp_path / "log", tmp_path / "run" / "checkpoint"
    folders = [ROOT, ROOT / "tests" / "support", HERE]
    # With one thread, as here, or the weights would not be the same to the bit.
    process = run_python(
        ["-c", FIT, log, checkpoint],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
    )
    assert process.returncode == -signal.SIGKILL
    counting = {"model": CountingNet(log), "max_epochs": 6}
    before = rows_counted(log)
    resumed = small(checkpoint=checkpoint, **counting).fit(pixels, LABELS)
    # Frozen features once more, then the epochs that were missing.
    assert N < rows_counted(log) - before < 6 * N
    assert resumed.n_epochs_ == 6
    whole = small(**counting).fit(pixels, LABELS)
    assert equal_weights(resumed, whole)
    losses = [one.history_["train_loss"].to_numpy() for one in (resumed, whole)]
    assert_array_equal(*losses)


def test_a_finished_fit_is_not_repeated(pixels, tmp_path):
    log = tmp_path / "log"

    def fit(**parameters):
        classifier = small(model=CountingNet(log), checkpoint=tmp_path / "c")
        before = rows_counted(log)
        classifier.set_params(**parameters).fit(pixels, LABELS)
        return classifier, rows_counted(log) - before

    # Without a random_state, the seed is that of the fit that is continued.
    first, n_first = fit(random_state=None)
    again, n_again = fit(random_state=None)
    assert n_again == n_first - 2 * N
    assert equal_weights(first, again)
    assert again.n_epochs_ == 2


def plain_function(images):
    return images


def nameless_function():
    return lambda images: images


def test_functions_and_numpy_numbers_are_the_same_in_every_process(pixels, tmp_path):
    one, other = nameless_function(), nameless_function()
    assert one is not other
    first = small(augment=one, max_epochs=np.int64(2), checkpoint=tmp_path / "c")
    again = small(augment=other, max_epochs=2, checkpoint=tmp_path / "c")
    assert equal_weights(first.fit(pixels, LABELS), again.fit(pixels, LABELS))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 0.5}, "'learning_rate'"),
        ({"max_epochs": 3, "mixup": 0.1}, "'max_epochs', 'mixup'"),
        ({"random_state": 1}, "'random_state'"),
        ({"augment": plain_function}, "'augment'"),
        ("network", "the network's weights"),
        ("pixels", "the images, targets or weights"),
        ("labels", "the images, targets or weights"),
        ("weights", "the images, targets or weights"),
    ],
)
def test_the_checkpoint_of_another_fit(pixels, tmp_path, change, named):
    classifier = small(checkpoint=tmp_path / "c").fit(pixels, LABELS)
    X, y, weight = pixels, LABELS, None
    if isinstance(change, dict):
        classifier.set_params(**change)
    elif change == "network":
        net = SmallNet()
        net.last.bias.data[0] += 1
        classifier.set_params(model=net)
    elif change == "pixels":
        X = pixels.copy()
        X[0, 0, 0, 0] += 1
    elif change == "labels":
        y = LABELS[::-1]
    else:
        weight = np.arange(N) + 1.0
    before = [tensor.clone() for tensor in weights_of(classifier)]
    with pytest.raises(ValueError, match=f"'checkpoint' file .*{named}.*Delete it"):
        classifier.fit(X, y, sample_weight=weight)
    after = weights_of(classifier)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 1000, None])
def test_a_damaged_checkpoint(pixels, tmp_path, content):
    path = tmp_path / "c"
    if content is None:
        small(checkpoint=path).fit(pixels, LABELS)
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.raises(ValueError, match="'checkpoint' file.*damaged"):
        small(checkpoint=path).fit(pixels, LABELS)
    assert path.read_bytes() == content


def test_a_checkpoint_in_a_cross_validation(pixels, tmp_path):
    classifier = small(checkpoint=tmp_path / "run.safetensors", max_epochs=1)
    with pytest.raises(ValueError, match="another fit.* In a cross-validation .*=None"):
        cross_val_score(classifier, pixels, LABELS, cv=2, error_score="raise")


def test_a_folder_as_checkpoint(pixels, tmp_path):
    with pytest.raises((ValueError, OSError), match="'checkpoint'"):
        small(checkpoint=tmp_path).fit(pixels, LABELS)


# Memory


@pytest.mark.parametrize("validate", [False, True])
def test_out_of_memory_halves_the_parts_and_keeps_the_steps(pixels, caplog, validate):
    plenty, little = [
        small(model=SmallNet(limit), early_stopping=validate, validation_fraction=0.3)
        for limit in (1000, 3)
    ]
    plenty.fit(pixels, LABELS)
    assert "memory" not in caplog.text
    little.fit(pixels, LABELS)
    assert "memory" in caplog.text
    for one, other in zip(weights_of(plenty), weights_of(little), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert_array_equal(plenty.predict(pixels), little.predict(pixels))


def test_no_memory_at_all(pixels):
    with pytest.raises(OutOfMemoryError, match="'image_size'"):
        small(model=SmallNet(0)).fit(pixels, LABELS)


def test_the_features_of_another_network_do_not_reach_the_head(pixels, tmp_path):
    # Both have 512 features, so that the head would take either.
    parameters = {"weights": "random", "image_size": 32, "cache": None}
    fitted = FineTuneClassifier("resnet18", unfreeze=None, **parameters)
    fitted.fit(pixels, LABELS).save(tmp_path / "c.safetensors")
    for one in (fitted, FineTuneClassifier.load(tmp_path / "c.safetensors")):
        expected = one.predict(pixels).tolist()
        one.set_params(model="resnet34")
        with pytest.raises(ValueError, match="'model' .* 'resnet18', .*Got 'resnet34'"):
            one.predict(pixels)
        assert one.set_params(model="resnet18").predict(pixels).tolist() == expected
