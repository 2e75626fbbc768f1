"""Errors about images name the parameter that was given, not X."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from networks import SmallNet
from torch import nn

from skdeepfeat import (
    BadImageError,
    FineTuneClassifier,
    NonFiniteOutputError,
    SelfSupervisedExtractor,
)
from skdeepfeat.feature_extraction import errors_about, errors_at

N, SIZE = 12, 16
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = np.arange(N) % 2
ROWS = rng.normal(size=(N, 5)).astype(np.float32)


def classifier(model=None, **parameters):
    if model is None:
        preprocessing = {"resize": SIZE, "crop": (SIZE, SIZE)}
        parameters = {"preprocessing": preprocessing, **parameters}
    return FineTuneClassifier(
        model or SmallNet(), max_epochs=1, cache=None, device="cpu", **parameters
    )


@pytest.fixture(scope="module")
def teacher():
    return classifier().fit(PIXELS, LABELS)


def fit(name, images, teacher):
    if name == "X_calibration":
        return teacher.to_onnx("x.onnx", "int8", X_calibration=images)
    if name == "X_val":
        return classifier().fit(PIXELS, LABELS, X_val=images, y_val=LABELS[:2])
    taught_by = teacher if name == "X_unlabeled" else None
    return classifier(teacher=taught_by).fit(PIXELS, LABELS, **{name: images})


@pytest.mark.parametrize("name", ["X_val", "X_probe", "X_unlabeled", "X_calibration"])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: "a.png",
        lambda n: np.zeros((n, 3)),
        lambda n: np.full((n, 4, 4, 3), 300.0),
        lambda n: [1] * n,
        lambda n: [],
    ],
    ids=["path", "rows", "range", "numbers", "empty"],
)
def test_forms(name, make, teacher):
    images = make(2 if name == "X_val" else N)
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(name, images, teacher)
    told = str(caught.value).split(" Got")[0]
    assert name in told
    assert not re.search(r"\bX\b", told)


@pytest.mark.parametrize("name", ["X_val", "X_probe", "X_unlabeled", "X_calibration"])
def test_images_that_cannot_be_read(name, teacher):
    images = ["gone.png"] * (2 if name == "X_val" else N)
    with pytest.raises(BadImageError, match=f"^{name}, index 0, gone.png: ") as caught:
        fit(name, images, teacher)
    restored = pickle.loads(pickle.dumps(caught.value))
    assert restored.source == name
    assert str(restored) == str(caught.value)


def test_x_is_not_named():
    images = [*PIXELS[:-1], "gone.png"]
    with pytest.raises(BadImageError, match="^index 11, gone.png: ") as caught:
        classifier().fit(images, LABELS)
    assert caught.value.source == "X"


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:, :3],
        ROWS * np.nan,
        ROWS[0],
        [["a"] * 5] * N,
        pd.DataFrame(ROWS, columns=[*"abcdX"]),
    ],
    ids=["columns", "NaN", "1-D", "text", "names"],
)
@pytest.mark.parametrize("name", ["X_val", "X_probe"])
def test_rows(name, rows):
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    given = {name: rows}
    if name == "X_val":
        given["y_val"] = LABELS[: len(rows)]
    X = ROWS
    if isinstance(rows, pd.DataFrame):
        X = pd.DataFrame(ROWS, columns=[*"abcde"])
    with pytest.raises(ValueError) as caught:
        classifier(network).fit(X, LABELS, **given)
    assert name in str(caught.value).splitlines()[0]


def test_labels_of_the_validation_set():
    with pytest.raises(ValueError, match="^X_val and y_val: .*12, 5"):
        classifier().fit(PIXELS, LABELS, X_val=PIXELS, y_val=LABELS[:5])
    with pytest.raises(ValueError, match="^y_val has labels .*'z'"):
        classifier().fit(PIXELS, LABELS, X_val=PIXELS, y_val=["z"] * N)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("kind", [list, pd.Series])
def test_missing_labels(missing, kind):
    labels = ["a", "b"] * (N // 2)
    labels[3] = missing
    with pytest.raises(ValueError, match="^y must .* missing .* index 3"):
        classifier().fit(PIXELS, kind(labels))
    with pytest.raises(ValueError, match="^y_val must .* missing .* index 3"):
        classifier().fit(PIXELS, ["a", "b"] * 6, X_val=PIXELS, y_val=kind(labels))


def test_a_class_with_one_image():
    labels = ["balloon", *["a", "b"] * 5, "a"]
    with pytest.raises(ValueError, match="'early_stopping' .*'balloon' with one"):
        classifier(early_stopping=True).fit(PIXELS, labels)
    taught = classifier().fit(PIXELS, labels)
    assert taught.classes_.tolist() == ["a", "b", "balloon"]


def test_the_way_out_is_told():
    with pytest.raises(BadImageError) as caught:
        classifier().fit([*PIXELS[:-1], "gone.png"], LABELS)
    assert "on_error='nan'" in caught.value.__notes__[0]


@pytest.mark.parametrize("images", [["gone.png"] * N, "a.png", np.zeros((N, 3))])
def test_self_supervised(images):
    torch.manual_seed(0)
    extractor = SelfSupervisedExtractor(SmallNet(), max_epochs=1, image_size=SIZE)
    with pytest.raises((TypeError, ValueError), match="X_probe"):
        extractor.fit(PIXELS, X_probe=images, y_probe=LABELS)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("X must be X. Got X instead.", "A must be A. Got X instead."),
        ("use X[['X']] or /X/X.png", "use A[['X']] or /X/X.png"),
        ("The 'device' parameter must be", "The 'device' parameter must be"),
        ("Found array with 0 sample(s)", "A: Found array with 0 sample(s)"),
    ],
)
def test_words(text, expected):
    with pytest.raises(ValueError) as caught, errors_about("A"):
        raise ValueError(text)
    assert str(caught.value) == expected


def test_other_errors_do_not_blame_x():
    with pytest.raises(ValueError, match="^the disk is full$"), errors_about("X"):
        raise ValueError("the disk is full")


@pytest.mark.parametrize(
    "error",
    [BadImageError("gone", 1), NonFiniteOutputError("its weights", [1])],
    ids=["broken", "not finite"],
)
def test_the_name_is_kept_where_indices_are_translated(error):
    with pytest.raises(type(error)) as caught, errors_at(np.array([5, 7])):
        with errors_about("X_val"):
            raise error
    assert caught.value.source == "X_val"
    assert "7" in str(caught.value)


def test_errors_with_more_than_a_text_stay():
    with pytest.raises(UnicodeDecodeError), errors_about("A"):
        b"\xff".decode()
