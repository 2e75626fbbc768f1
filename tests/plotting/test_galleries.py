"""The displays of photographs: top losses, confusions, maps of features, similarity."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from networks import CountingStages
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import BadImageWarning, FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat.inspection import similarity, top_losses
from skdeepfeat.plotting import (
    ConfusionGalleryDisplay,
    EmbeddingDisplay,
    SimilarityDisplay,
    TopLossesDisplay,
)

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

N = 24
NAMES = np.array(["dark", "light", "red"])
LABELS = NAMES[np.arange(N) % 3]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, 32, 32, 3))
    images[LABELS == "light"] += 100
    images[LABELS == "red", ..., 0] += 100
    return images.astype(np.uint8)


@pytest.fixture
def extractor(tmp_path):
    return PretrainedFeatureExtractor(
        CountingStages(tmp_path / "log"), image_size=32, cache=tmp_path / "cache"
    )


@pytest.fixture
def pipe(extractor):
    return make_pipeline(extractor, StandardScaler(), LogisticRegression())


def probabilities():
    drawn = np.random.default_rng(1).gamma(0.5, size=(N, 3))
    return drawn / drawn.sum(axis=1, keepdims=True)


def shown_in(artist):
    return np.asarray(artist.get_array())


def texts_of(display):
    display.figure_.canvas.draw()
    return [text.get_text() for text in display.ax_.texts]


# Top losses


def test_top_losses_of_predictions(images, tmp_path):
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    paths[7].write_bytes(b"no image")
    display = TopLossesDisplay.from_predictions(LABELS, probabilities(), paths, k=N)
    wanted = top_losses(LABELS, probabilities())
    assert display.losses["index"].tolist() == wanted["index"].tolist()
    for drawn, i in zip(display.images_, wanted["index"], strict=True):
        if i == 7:
            assert drawn is None
        else:
            assert_array_equal(shown_in(drawn), images[i])
    assert texts_of(display).count("cannot be read") == 1
    first = wanted.iloc[0]
    lines = display.captions_[0].get_text().split("\n")
    assert lines[0] == f"true: {first['true']}"
    assert lines[1] == f"said: {first['predicted']} ({first['probability']:.0%})"
    assert lines[2].endswith(f"/{first['index']}.png")


def test_top_losses_out_of_fold(pipe, images):
    display = TopLossesDisplay.from_estimator(pipe, images, LABELS, cv=3, k=5)
    P = cross_val_predict(pipe, images, LABELS, cv=3, method="predict_proba")
    wanted = top_losses(LABELS, P, k=5)
    assert_allclose(display.losses["loss"], wanted["loss"])
    assert len(display.images_) == 5
    assert display.captions_[0].get_text().endswith(f"image {wanted['index'][0]}")
    assert not hasattr(pipe[-1], "classes_")


def test_top_losses_of_a_fitted_regressor(extractor, images):
    flat = images.reshape(N, -1)
    extractor.set_params(flat_image_shape=(32, 32, 3))
    target = images.mean((1, 2, 3)) + 0.5
    pipe = make_pipeline(extractor, Ridge()).fit(flat, target)
    _, ax = plt.subplots()
    display = TopLossesDisplay.from_estimator(pipe, flat, target, k=3, ax=ax)
    assert display.ax_ is ax
    errors = np.abs(pipe.predict(flat) - target)
    assert_array_equal(display.losses["index"], np.argsort(-errors)[:3])
    assert_array_equal(shown_in(display.images_[0]), images[errors.argmax()])
    assert display.plot(n_columns=1) is display


def test_images_apart_from_X(images):
    model = DummyRegressor().fit(np.zeros((N, 2)), np.linspace(0, 1, N))
    display = TopLossesDisplay.from_estimator(
        model, np.zeros((N, 2)), np.linspace(0, 1, N), images=list(images), k=2
    )
    assert_array_equal(shown_in(display.images_[0]), images[0])


@pytest.mark.parametrize(("n", "n_columns"), [(12, 4), (9, 3), (10, 5), (1, 1), (3, 3)])
def test_the_gallery_has_few_empty_cells(images, n, n_columns):
    display = TopLossesDisplay.from_predictions(LABELS, probabilities(), images, k=n)
    assert display.ax_.get_xlim() == (0, n_columns)


@pytest.mark.parametrize("name", ["k", "n_columns"])
def test_numbers_of_images_that_cannot_be(images, name):
    unfitted = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(ValueError, match=f"^The '{name}' parameter .* Got 0 instead"):
        TopLossesDisplay.from_estimator(unfitted, images, LABELS, **{name: 0})


# Confusions


def test_confusions_of_predictions(images):
    P = probabilities()
    display = ConfusionGalleryDisplay.from_predictions(LABELS, P, images)
    predicted = NAMES[P.argmax(axis=1)]
    matrix = confusion_matrix(LABELS, predicted)
    assert_array_equal(display.matrix_, matrix)
    for (i, j), count in np.ndenumerate(matrix):
        if count == 0:
            assert display.images_[i, j] is display.counts_[i, j] is None
            continue
        cell = np.flatnonzero((LABELS == NAMES[i]) & (predicted == NAMES[j]))
        example = cell[P[cell].max(axis=1).argmax()]
        assert_array_equal(shown_in(display.images_[i, j]), images[example])
        left, right, *_ = display.images_[i, j].get_extent()
        assert left < j < right
        assert display.counts_[i, j].get_text() == str(count)
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert ticks == NAMES.tolist()
    display.figure_.canvas.draw()


def test_confusions_of_an_estimator(pipe, images):
    _, ax = plt.subplots()
    fitted = pipe.fit(images, LABELS)
    display = ConfusionGalleryDisplay.from_estimator(fitted, images, LABELS, ax=ax)
    assert display.ax_ is ax
    wanted = confusion_matrix(LABELS, pipe.predict(images))
    assert_array_equal(display.matrix_, wanted)
    again = display.plot()
    assert again is display
    assert display.ax_ is not ax


def test_a_label_that_is_never_predicted_has_a_column(images):
    display = ConfusionGalleryDisplay.from_predictions(
        LABELS, np.full(N, "red"), images
    )
    assert display.matrix_.sum(axis=0).tolist() == [0, 0, N]


def test_a_label_that_is_not_among_the_classes_has_a_row(images):
    display = ConfusionGalleryDisplay.from_predictions(
        LABELS, np.full(N, "red"), images, classes=["red", "dark"]
    )
    assert_array_equal(display.matrix_[:, 0], [8, 8, 8])
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert ticks == ["red", "dark", "light"]


def test_an_example_that_cannot_be_read_has_its_count():
    display = ConfusionGalleryDisplay.from_predictions(
        ["a", "b"], ["a", "a"], [b"no image", np.zeros((4, 4), np.uint8)]
    )
    assert display.images_[0, 0] is None
    assert display.counts_[0, 0].get_text() == "1"
    assert shown_in(display.images_[1, 0]).shape == (4, 4, 3)


def test_long_labels_leave_space_for_the_pictures(images):
    names = np.char.multiply(LABELS, 15)
    display = ConfusionGalleryDisplay.from_predictions(names, names, images)
    display.figure_.canvas.draw()
    assert display.ax_.get_window_extent().width > 0.4 * display.figure_.bbox.width


def test_captions_do_not_overlap_in_small_axes(images):
    names = np.char.multiply(LABELS, 9)
    display = TopLossesDisplay.from_predictions(
        names, names, images, k=6, n_columns=3, ax=plt.subplots(figsize=(4, 3))[1]
    )
    display.figure_.canvas.draw()
    boxes = [caption.get_window_extent().padded(-1) for caption in display.captions_]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


# Maps of features


def test_a_map_of_classes(pipe, images):
    pipe.fit(images, LABELS)
    display = EmbeddingDisplay.from_estimator(pipe, images, LABELS, method="pca")
    assert len(display.scatter_) == 3
    for drawn, name in zip(display.scatter_, NAMES, strict=True):
        assert_allclose(drawn.get_offsets(), display.points[LABELS == name])
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == NAMES.tolist()
    assert display.thumbnails_
    for i, box in display.thumbnails_.items():
        assert_allclose(box.xy, display.points[i])
        assert_array_equal(box.offsetbox.get_data(), images[i])
    display.figure_.canvas.draw()


@pytest.mark.parametrize("where", ["own", "small", "beside long names"])
def test_thumbnails_do_not_overlap(images, where):
    features = np.random.default_rng(0).normal(size=(N, 2))
    ax = plt.subplots(figsize=(4, 3))[1] if where == "small" else None
    y = np.char.add("a very long name of ", LABELS) if "names" in where else None
    display = EmbeddingDisplay.from_features(features, images, y, method="pca", ax=ax)
    display.figure_.canvas.draw()
    renderer = display.figure_.canvas.get_renderer()
    boxes = [
        box.get_window_extent(renderer).padded(-2)
        for box in display.thumbnails_.values()
    ]
    assert len(boxes) > 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_map_of_errors(pipe, images):
    pipe.fit(images, LABELS)
    wrong = LABELS.copy()
    wrong[:4] = NAMES[(np.arange(4) + 1) % 3]
    display = EmbeddingDisplay.from_estimator(
        pipe, images, wrong, color_by="error", method="pca", show_images=False
    )
    is_right = pipe.predict(images) == wrong
    assert display.values.tolist() == np.where(is_right, "correct", "wrong").tolist()
    assert display.thumbnails_ == {}
    colors = {
        drawn.get_label(): tuple(drawn.get_facecolor()[0]) for drawn in display.scatter_
    }
    assert colors["correct"] == matplotlib.colors.to_rgba("tab:blue")


def test_a_map_of_numbers_has_a_color_bar(extractor, images):
    target = images.mean((1, 2, 3))
    pipe = make_pipeline(extractor, Ridge()).fit(images, target)
    _, ax = plt.subplots()
    display = EmbeddingDisplay.from_estimator(
        pipe, images, target, color_by="error", method="pca", ax=ax
    )
    assert display.ax_ is ax
    assert_allclose(
        display.scatter_[0].get_array(), np.abs(pipe.predict(images) - target)
    )
    assert display.colorbar_.ax.get_ylabel() == "absolute error"
    display.figure_.canvas.draw()


def test_features_alone():
    features = np.random.default_rng(0).normal(size=(60, 3))
    display = EmbeddingDisplay.from_features(features, method="pca")
    assert display.thumbnails_ == {}
    many = EmbeddingDisplay.from_features(features, y=np.arange(60) // 2, method="pca")
    assert many.ax_.get_legend() is None  # 30 classes
    assert len(many.scatter_) == 30


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"color_by": "error"}, ValueError, "'color_by' .*without 'y'"),
        ({"color_by": "loss", "y": LABELS}, ValueError, "'color_by' .* Got 'loss'"),
        ({"color_by": "loss", "X": None}, ValueError, "'color_by'"),
        ({"method": "umap"}, ValueError, "'method'"),
        ({"y": LABELS[1:]}, ValueError, "inconsistent"),
        ({"estimator": Ridge()}, TypeError, "'estimator' .* Got Ridge"),
    ],
)
def test_bad_input_of_a_map(extractor, images, arguments, error, match):
    with pytest.raises(error, match=match):
        EmbeddingDisplay.from_estimator(
            **{"estimator": extractor, "X": images, **arguments}
        )


def test_a_map_without_the_images_that_cannot_be_read(extractor, images):
    extractor.set_params(on_error="nan")
    with pytest.warns(BadImageWarning):
        display = EmbeddingDisplay.from_estimator(
            extractor, [b"no image", *images], ["red", *LABELS], method="pca"
        )
    assert display.values.tolist() == LABELS.tolist()
    for i, box in display.thumbnails_.items():
        assert_allclose(box.xy, display.points[i])
        assert_array_equal(box.offsetbox.get_data(), images[i])


def test_labels_that_are_no_formulas(images):
    labels = np.array(["$\\foo$", "_cat", "b$"])[np.arange(N) % 3]
    features = np.random.default_rng(0).normal(size=(N, 3))
    for display in (
        TopLossesDisplay.from_predictions(labels, probabilities(), images),
        ConfusionGalleryDisplay.from_predictions(labels, probabilities(), images),
        EmbeddingDisplay.from_features(features, y=labels, method="pca"),
    ):
        display.figure_.canvas.draw()
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == sorted(set(labels))


@pytest.mark.parametrize("display", [TopLossesDisplay, ConfusionGalleryDisplay])
def test_labels_of_another_type_than_the_predictions(images, display):
    with pytest.raises(ValueError, match="'y_pred'.*'y_true', such as 0. Got '0'"):
        display.from_predictions(np.zeros(N, int), np.full(N, "0"), images)


@pytest.mark.parametrize("display", [TopLossesDisplay, ConfusionGalleryDisplay])
def test_several_labels_for_each_image(images, display):
    labels = np.eye(2, dtype=int)[np.arange(N) % 2]
    with pytest.raises(ValueError, match=r"'y_true'.*one label.*\(24, 2\)"):
        display.from_predictions(labels, labels, images)


def test_one_image_for_each_prediction(images):
    for show in (TopLossesDisplay, ConfusionGalleryDisplay):
        with pytest.raises(ValueError, match="24 predictions .* 5 images"):
            show.from_predictions(LABELS, probabilities(), images[:5])


# Similarity


def test_a_heat_map_of_similarity(extractor, images):
    _, ax = plt.subplots()
    display = SimilarityDisplay.from_estimator(extractor, images, ax=ax, cmap="magma")
    wanted = similarity(extractor, images)
    assert_allclose(shown_in(display.image_), wanted)
    assert display.image_.get_cmap().name == "magma"
    assert display.texts_[0, 1].get_text() == f"{wanted.iloc[0, 1]:.2f}"
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == wanted.columns.tolist()
    display.figure_.canvas.draw()


def test_names_of_networks_are_no_formulas(extractor, images):
    table = similarity({"$\\foo$": extractor, "5$ or 6$": extractor}, images)
    display = SimilarityDisplay.from_result(table)
    display.figure_.canvas.draw()  # the first would be a formula that cannot be drawn
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert any("$\\foo$" in tick for tick in ticks)


def test_many_layers_have_no_numbers():
    names = [f"layer{i}" for i in range(20)]
    table = pd.DataFrame(np.eye(20), names, names)
    table.iloc[0, 0] = np.nan
    display = SimilarityDisplay.from_result(table)
    assert display.texts_ is None
    part = SimilarityDisplay.from_result(table.iloc[:3, :8])
    assert part.texts_.shape == (3, 8)
    assert part.texts_[0, 0].get_text() == ""
    part.figure_.canvas.draw()


def test_without_matplotlib_the_extra_is_named(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    features = np.random.default_rng(0).normal(size=(N, 3))
    for draw in (
        lambda: TopLossesDisplay.from_predictions(LABELS, LABELS, images),
        lambda: ConfusionGalleryDisplay.from_predictions(LABELS, LABELS, images),
        lambda: EmbeddingDisplay.from_features(features, method="pca"),
        lambda: SimilarityDisplay.from_result(pd.DataFrame(np.eye(2))),
    ):
        with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[plot\]'"):
            draw()


@pytest.mark.slow
def test_a_map_of_a_fine_tuned_network(images, tmp_path):
    clf = FineTuneClassifier(
        CountingStages(tmp_path / "log"), image_size=32, max_epochs=1, random_state=0
    ).fit(images, LABELS)
    display = EmbeddingDisplay.from_estimator(
        clf, images, LABELS, color_by="error", method="pca"
    )
    assert len(display.points) == N
    TopLossesDisplay.from_estimator(clf, images, LABELS, k=2)
