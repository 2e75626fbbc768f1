"""Activation maps agree with captum, with scores, and with what is there."""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import OddNet, SmallNet
from numpy.testing import assert_allclose, assert_array_equal
from relu_networks import (
    PREPROCESSING,
    SIZE,
    FunctionalNet,
    ReluNet,
    make_extractor,
    normalized,
    tiny_transformer,
    up_to,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    FineTuneRegressor,
    NonFiniteOutputError,
    PretrainedFeatureExtractor,
    SelfSupervisedExtractor,
)
from skdeepfeat.inspection import activation_maps


def logistic():
    return LogisticRegression(max_iter=10_000)


LINEAR = [
    (logistic(),),
    (StandardScaler(), OneVsRestClassifier(logistic())),
    (StandardScaler(), LinearSVC()),
    (StandardScaler(), PCA(4), RidgeClassifier()),
    (MinMaxScaler(), SGDClassifier(random_state=0)),
    (StandardScaler(), Perceptron(random_state=0)),
    (LinearDiscriminantAnalysis(),),
    (OneVsRestClassifier(SVC(kernel="linear")),),
    (FunctionTransformer(), StandardScaler(), "passthrough", logistic()),
]


def as_columns(scores):
    return np.stack([-scores, scores], 1) if scores.ndim == 1 else scores


def fine_tuned(images, y, kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": ReluNet(),
        "preprocessing": PREPROCESSING,
        "max_epochs": 2,
        "learning_rate": 1e-3,
        "random_state": 0,
        "cache": None,
    }
    return kind(**{**defaults, **parameters}).fit(images, y)


# CAM: exact


@pytest.mark.parametrize("steps", LINEAR, ids=lambda s: type(s[-1]).__name__)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_mean_of_a_cam_and_the_intercept_are_the_score(
    planted, piped, steps, n_classes
):
    images, labels, quadrants = planted
    pipe = piped(images, labels if n_classes == 2 else quadrants, *steps)
    after = make_pipeline(*steps)
    after.steps = pipe.steps[1:]  # the fitted ones
    intercepts = as_columns(after.decision_function(np.zeros((1, 8))))
    scores = as_columns(pipe.decision_function(images))
    for column, target in enumerate(pipe.classes_):
        maps = activation_maps(pipe, images, target, "cam")
        assert maps.shape == (40, SIZE // 2, SIZE // 2)
        assert maps.dtype == np.float32
        sums = maps.mean((1, 2)) + intercepts[0, column]
        assert_allclose(sums, scores[:, column], atol=1e-4 * np.abs(scores).max())


def test_a_cam_is_the_map_weighted_by_the_coefficients(planted, piped):
    images, labels, _ = planted
    pipe = piped(images, labels, StandardScaler(), logistic())
    network = ReluNet(inplace=False)
    with torch.no_grad():
        values = up_to(network, "act3")(normalized(images)).numpy()
    weights = pipe[-1].coef_[0] / pipe[1].scale_
    expected = np.einsum("c,nchw->nhw", weights, values)
    found = activation_maps(pipe, images, "square", method="cam")
    assert_allclose(found, expected, atol=1e-5)
    rectified = activation_maps(pipe, images, "square", "cam", None, True)
    assert_array_equal(rectified, np.maximum(found, 0))


def test_what_is_predicted_and_one_target_for_each_image(planted, piped):
    images, labels, quadrants = planted
    pipe = piped(images, quadrants, logistic())
    predicted = pipe.predict(images)
    assert len(set(predicted)) > 1
    found = activation_maps(pipe, images, method="cam")
    assert_array_equal(found, activation_maps(pipe, images, predicted, "cam"))
    each = activation_maps(pipe, images, pd.Series(quadrants), "cam")
    for i in range(4):
        one = activation_maps(pipe, images[i : i + 1], int(quadrants[i]), "cam")
        assert_allclose(each[i], one[0], rtol=1e-5, atol=1e-5)
    binary = piped(images, labels, logistic())
    against = activation_maps(binary, images, "none", "cam")
    assert_allclose(against, -activation_maps(binary, images, "square", "cam"))


def test_outputs_of_regressors(planted, piped):
    images, _, quadrants = planted
    y = np.stack([quadrants, quadrants % 2 * 10.0, images.mean((1, 2, 3))], 1)
    pipe = piped(images, y, StandardScaler(), Ridge())
    predictions = pipe.predict(images)
    for output in range(3):
        maps = activation_maps(pipe, images, output, "cam")
        assert_allclose(
            np.ptp(predictions[:, output] - maps.mean((1, 2))), 0, atol=1e-3
        )
    with pytest.raises(ValueError, match="'target' parameter must be the index"):
        activation_maps(pipe, images, method="cam")
    single = piped(images, y[:, 2], Ridge())
    maps = activation_maps(single, images, method="cam")
    assert_allclose(np.ptp(single.predict(images) - maps.mean((1, 2))), 0, atol=1e-3)


def test_searches_frames_and_steps_before_the_network(planted, extractor, tmp_path):
    images, labels, _ = planted
    extractor.set_output(transform="pandas")
    pipe = make_pipeline(
        FunctionTransformer(lambda X: X[:, ::-1]),
        make_pipeline(extractor, StandardScaler()),
        logistic(),
    )
    search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1.0]}, cv=2)
    search.fit(images, labels)
    maps = activation_maps(search, images, "square", "cam")
    difference = search.decision_function(images) - maps.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-4)


@pytest.mark.parametrize("network", [SmallNet, FunctionalNet])
def test_averages_that_are_no_module_are_found(planted, piped, network):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic(), network=network())
    maps = activation_maps(pipe, images, "square", "cam")
    difference = pipe.decision_function(images) - maps.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-4)


@pytest.mark.parametrize("layer", ["conv2", "act1"])
def test_a_layer_that_is_averaged_for_the_extractor(planted, piped, layer):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic(), layer=layer, pooling="avg")
    maps = activation_maps(pipe, images, "square", "cam", layer)
    assert_array_equal(maps, activation_maps(pipe, images, "square", "cam"))
    difference = pipe.decision_function(images) - maps.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-4)


# Grad-CAM


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        *[(ReluNet, name) for name in ("conv1", "act1", "pool", "conv2", "act3")],
        *[(FunctionalNet, name) for name in ("conv1", "conv2", "conv3")],
    ],
)
def test_grad_cam_is_that_of_captum(planted, piped, layer, network):
    attr = pytest.importorskip("captum.attr")
    images, _, quadrants = planted
    pipe = piped(images, quadrants, logistic(), network=network())
    head = torch.nn.Linear(8, 4)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(pipe[-1].coef_))
        head.bias.copy_(torch.from_numpy(pipe[-1].intercept_))
    neck = ReluNet(inplace=False)
    model = torch.nn.Sequential(*up_to(neck, "flatten"), head)
    place = neck.get_submodule(layer)
    expected = attr.LayerGradCam(model, place).attribute(normalized(images), target=2)
    found = activation_maps(pipe, images, 2, layer=layer)
    assert_allclose(found, expected[:, 0].detach().numpy(), atol=1e-5)


def test_cam_is_grad_cam_times_the_number_of_positions(planted, piped):
    images, _, quadrants = planted
    pipe = piped(images, quadrants, StandardScaler(), logistic())
    cam = activation_maps(pipe, images, method="cam")
    assert_allclose(64 * activation_maps(pipe, images), cam, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unfreeze", [None, "all"])
def test_fine_tuned_classifiers(planted, unfreeze):
    images, labels, quadrants = planted
    for y in (labels, quadrants):
        clf = fine_tuned(images, y, unfreeze=unfreeze)
        scores = as_columns(clf.decision_function(images))
        cam = activation_maps(clf, images, clf.classes_[0], "cam")
        assert_allclose(np.ptp(scores[:, 0] - cam.mean((1, 2))), 0, atol=1e-4)
        grad_cam = activation_maps(clf, images, clf.classes_[0])
        assert_allclose(64 * grad_cam, cam, rtol=1e-3, atol=1e-4)
        assert activation_maps(clf, images[:3], layer="conv1").shape == (3, 16, 16)


def test_fine_tuned_regressors_and_hidden_layers(planted):
    images, _, quadrants = planted
    y = np.stack([1e3 + 100 * quadrants, quadrants], 1)
    reg = fine_tuned(images, y, FineTuneRegressor, max_epochs=1)
    cam = activation_maps(reg, images, 0, "cam")
    difference = reg.predict(images)[:, 0] - cam.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-2)
    deep = fine_tuned(images, quadrants, hidden_layer_sizes=(5,), head_epochs=2)
    assert activation_maps(deep, images[:2]).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="'estimator' parameter.*hidden layers"):
        activation_maps(deep, images[:2], method="cam")


def test_several_labels_for_each_image(planted):
    images, _, quadrants = planted
    y = np.stack([quadrants > 1, quadrants % 2 == 1], 1).astype(int)
    clf = fine_tuned(images, y, max_epochs=1)
    cam = activation_maps(clf, images, 1, "cam")
    difference = clf.decision_function(images)[:, 1] - cam.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-4)


# Tokens


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}])
def test_tokens_lie_in_the_grid_of_the_patches(planted, piped, options):
    images, _, quadrants = planted
    network = tiny_transformer(**options)
    pipe = piped(images, quadrants, logistic(), network=network)
    found = activation_maps(pipe, images, 1)
    assert found.shape == (40, 4, 4)
    # By hand, from the first normalization of the last block on.
    n_prefix = network.num_prefix_tokens
    kept = {}

    def keep(module, args, output):
        kept["tokens"] = output.detach().requires_grad_()
        return kept["tokens"]

    last = network.blocks[-1].norm1 if n_prefix == 3 else network.norm
    handle = last.register_forward_hook(keep)
    features = network.forward_head(
        network.forward_features(normalized(images)), pre_logits=True
    )
    handle.remove()
    weights = torch.from_numpy(pipe[-1].coef_[1]).float()
    [slopes] = torch.autograd.grad((features @ weights).sum(), kept["tokens"])
    patches = kept["tokens"].detach()[:, n_prefix:]
    weights = slopes[:, n_prefix:].mean(1, keepdim=True)
    expected = (weights * patches).sum(2).reshape(-1, 4, 4)
    assert np.abs(found).max() > 0
    assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_cams_of_averaged_tokens(planted, piped):
    images, _, quadrants = planted
    pipe = piped(
        images, quadrants, logistic(), network=tiny_transformer(),
        layer="blocks.0", pooling="mean",
    )  # fmt: skip
    maps = activation_maps(pipe, images, 3, "cam")
    assert maps.shape == (40, 4, 4)
    difference = pipe.decision_function(images)[:, 3] - maps.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-3)


def test_patch_tokens_behind_the_last_attention_are_not_read(planted, piped):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic(), network=tiny_transformer())
    with pytest.raises(ValueError, match="'layer' parameter must be None, or a layer"):
        activation_maps(pipe, images[:2], layer="norm")
    with pytest.raises(ValueError, match="'method' parameter must not be 'cam'"):
        activation_maps(pipe, images[:2], method="cam")


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_a_single_position_asks_for_larger_images(planted, method):
    images, labels, _ = planted
    extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
    pipe = make_pipeline(extractor, logistic()).fit(images, labels)
    with pytest.raises(ValueError, match="32 x 32 pixels, and a larger 'image_size'"):
        activation_maps(pipe, images[:2], method=method)


# What is there is found


def bright_network():
    """Return a network whose features grow with the brightness."""
    network = ReluNet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    return network


def quadrant_of(maps):
    half = maps.shape[1] // 2
    parts = [maps[:, :half, :half], maps[:, :half, -half:]]
    parts += [maps[:, -half:, :half], maps[:, -half:, -half:]]
    return np.argmax([part.mean((1, 2)) for part in parts], axis=0)


@pytest.mark.parametrize("method", ["cam", "gradcam", "occlusion"])
def test_the_square_is_found(planted, piped, method):
    images, labels, quadrants = planted
    pipe = piped(images, labels, StandardScaler(), logistic(), network=bright_network())
    assert pipe.score(images, labels) == 1
    shown = labels == "square"
    maps = activation_maps(pipe, images[shown], "square", method, grid=4)
    assert_array_equal(quadrant_of(maps), quadrants[shown])


def test_occlusion_of_a_forest_behind_an_extractor(planted, piped):
    images, labels, quadrants = planted
    forest = RandomForestClassifier(50, random_state=0)
    pipe = piped(images, labels, forest, network=bright_network())
    shown = labels == "square"
    maps = activation_maps(pipe, images[shown], method="occlusion", grid=4)
    assert_array_equal(quadrant_of(maps), quadrants[shown])


class Rule(ClassifierMixin, BaseEstimator):
    """Sees a square if any pixel is bright, in images of any form."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        limit = 200 if np.max(X[0]) > 1 else 200 / 255
        bright = [np.max(one) > limit for one in X]
        return np.where(bright, "square", "none")


@pytest.mark.parametrize("form", ["list", "array", "floats", "flat", "gray"])
def test_occlusion_of_any_estimator(planted, form):
    images, labels, quadrants = planted
    shown = labels == "square"
    options = {}
    if form == "list":
        images = list(images)
    elif form == "floats":
        images = images / 255
    elif form == "gray":
        images = images[..., 0]
    elif form == "flat":
        images, options = images.reshape(40, -1), {"flat_image_shape": (SIZE, SIZE, 3)}
    rule = Rule().fit(images, labels)
    chosen = [images[i] for i in np.flatnonzero(shown)]
    chosen = chosen if form == "list" else np.array(chosen)
    maps = activation_maps(rule, chosen, method="occlusion", grid=2, **options)
    assert_array_equal(quadrant_of(maps), quadrants[shown])
    # A square that is twice as large as a cell covers all of one quadrant only.
    assert set(np.unique(maps)) == {0, 1}


def test_occlusion_of_a_forest_on_pixels(planted):
    images, labels, quadrants = planted
    here = (labels == "none") | (quadrants == 2)
    flat = images[here].reshape(-1, SIZE * SIZE * 3)
    forest = RandomForestClassifier(50, random_state=0).fit(flat, labels[here])
    maps = activation_maps(
        forest, flat[labels[here] == "square"], method="occlusion", grid=4,
        flat_image_shape=(SIZE, SIZE, 3),
    )  # fmt: skip
    assert set(quadrant_of(maps)) == {2}


def test_occlusion_of_named_columns_of_pixels(planted):
    images, labels, _ = planted
    frame = pd.DataFrame(images[..., 0].reshape(40, -1)).add_prefix("pixel")
    forest = RandomForestClassifier(10, random_state=0).fit(frame, labels)
    shape = {"flat_image_shape": (SIZE, SIZE)}
    found = activation_maps(forest, frame[:2], method="occlusion", **shape)
    values = RandomForestClassifier(10, random_state=0).fit(frame.to_numpy(), labels)
    expected = activation_maps(
        values, frame[:2].to_numpy(), method="occlusion", **shape
    )
    assert_array_equal(found, expected)


def test_occlusion_of_extractors_inside_other_transformers(planted):
    images, labels, quadrants = planted
    shown = labels == "square"
    union = FeatureUnion([("deep", make_extractor(bright_network()))])
    pipe = make_pipeline(union, StandardScaler(), logistic()).fit(images, labels)
    maps = activation_maps(pipe, images[shown], method="occlusion", grid=4)
    assert_array_equal(quadrant_of(maps), quadrants[shown])


def test_occlusion_explains_the_probability(planted, piped):
    images, labels, _ = planted
    clf = fine_tuned(images, labels)
    pipe = piped(images, labels, logistic())
    regressor = piped(images, labels == "square", SVR())
    for estimator in (clf, pipe, regressor):
        found = activation_maps(estimator, images[:1], method="occlusion", grid=1)
        gray = images[:1].copy()
        gray[:] = images[0].mean((0, 1)).astype(np.uint8)
        if estimator is regressor:
            before, after = estimator.predict(images[:1]), estimator.predict(gray)
        else:
            column = list(estimator.classes_).index(estimator.predict(images[:1])[0])
            before = estimator.predict_proba(images[:1])[:, column]
            after = estimator.predict_proba(gray)[:, column]
        assert_allclose(found[0, 0, 0], before[0] - after[0], atol=1e-5)


# The user's network, broken images


def test_the_network_of_the_user_stays_as_it_is(planted, piped):
    images, labels, _ = planted
    network = ReluNet().train()
    network.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pipe = piped(images, labels, logistic(), network=network)
    for method in ("cam", "gradcam", "occlusion"):
        activation_maps(pipe, images[:2], method=method, grid=2)
    for name, value in network.state_dict().items():
        assert_array_equal(value, before[name])
    assert network.act1.inplace
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    needs = [parameter.requires_grad for parameter in network.parameters()]
    assert needs == [False, *[True] * (len(needs) - 1)]


@pytest.mark.parametrize("method", ["cam", "gradcam", "occlusion"])
def test_broken_images(planted, piped, tmp_path, method):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic())
    mixed = [images[0], str(tmp_path / "missing.jpg"), images[2]]
    with pytest.raises(BadImageError, match="index 1"):
        activation_maps(pipe, mixed, method=method)
    pipe[0].set_params(on_error="nan")
    with pytest.warns(BadImageWarning) as caught:
        found = activation_maps(pipe, mixed, method=method)
    assert [failure.index for failure in caught[0].message.failures] == [1]
    assert np.isnan(found[1]).all()
    expected = activation_maps(pipe, [images[0], images[2]], method=method)
    assert_allclose(found[[0, 2]], expected, rtol=1e-5, atol=1e-6)
    with pytest.warns(BadImageWarning):
        nothing = activation_maps(pipe, mixed[1:2], method=method)
    assert nothing.dtype == np.float32
    assert np.isnan(nothing).all()
    # Estimators without an extractor have no `on_error`.
    rule = Rule().fit(images, labels)
    with pytest.raises(BadImageError, match="index 1"):
        activation_maps(rule, mixed, method="occlusion")


def test_a_network_that_returns_no_numbers(planted, piped):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic(), network=OddNet())
    white = np.concatenate([images[:2], np.full_like(images[:1], 255)])
    for method in ("cam", "gradcam"):
        with pytest.raises(NonFiniteOutputError) as caught:
            activation_maps(pipe, white, method=method)
        assert caught.value.indices == (2,)


# One clear error


@pytest.mark.parametrize(
    "steps",
    [
        (RandomForestClassifier(5, random_state=0),),
        (SVC(),),
        (FunctionTransformer(np.sqrt), logistic()),
    ],
    ids=["forest", "kernel", "square root"],
)
@pytest.mark.parametrize("method", ["cam", "gradcam"])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_ends_that_are_not_linear(planted, piped, steps, method):
    images, labels, _ = planted
    pipe = piped(images, labels, *steps)
    with pytest.raises(ValueError, match="'estimator' parameter.*method='occlusion'"):
        activation_maps(pipe, images[:1], method=method)
    if method == "cam":
        forest = piped(images, labels == "square", RandomForestRegressor(5))
        with pytest.raises(ValueError, match="'estimator' parameter"):
            activation_maps(forest, images[:1], method=method)


def test_estimators_that_have_no_scores(planted, extractor):
    images, labels, _ = planted
    with pytest.raises(ValueError, match="'estimator' parameter must end in a class"):
        activation_maps(extractor, images)
    with pytest.raises(TypeError, match=r"PretrainedFeatureExtractor\(network\)"):
        activation_maps(ReluNet(), images)
    rule = Rule().fit(images, labels)
    with pytest.raises(ValueError, match="'estimator' parameter.*'occlusion'"):
        activation_maps(rule, images)
    with pytest.raises(NotFittedError):
        activation_maps(make_pipeline(extractor, logistic()), images)
    with pytest.raises(NotFittedError):
        activation_maps(FineTuneClassifier(ReluNet()), images)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"target": "cube"}, "target"),
        ({"target": ["square"] * 3}, "target"),
        ({"target": {"square"}}, "target"),
        ({"method": "grad-cam"}, "method"),
        ({"method": ["cam"]}, "method"),
        ({"layer": "flatten"}, "layer"),
        ({"layer": "mean"}, "layer"),
        ({"layer": "head"}, "layer"),
        ({"layer": "conv4"}, "layer"),
        ({"layer": 7}, "layer"),
        ({"layer": "neck"}, "layer"),
        ({"method": "cam", "layer": "conv1"}, "layer"),
        ({"method": "occlusion", "grid": 0}, "grid"),
        ({"method": "occlusion", "grid": 2.5}, "grid"),
    ],
)
def test_what_cannot_be(planted, piped, options, parameter):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic())
    with pytest.raises((TypeError, ValueError), match=f"^The '{parameter}' parameter"):
        activation_maps(pipe, images[:2], **options)


def test_layers_behind_the_features(planted, piped):
    images, labels, _ = planted
    pipe = piped(images, labels, logistic(), layer="conv2")
    assert activation_maps(pipe, images[:1], layer="conv1").shape == (1, 16, 16)
    with pytest.raises(ValueError, match="^The 'layer' parameter"):
        activation_maps(pipe, images[:1], layer="conv3")
    several = piped(images, labels, logistic(), layer=["conv1", "conv3"])
    assert activation_maps(several, images[:1]).shape == (1, 8, 8)
    assert activation_maps(several, images[:1], layer="conv1").shape == (1, 16, 16)
    with pytest.raises(ValueError, match="^The 'method' parameter"):
        activation_maps(several, images[:1], method="cam")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # few epochs of few images
def test_networks_trained_without_labels(planted):
    images, labels, _ = planted
    extractor = SelfSupervisedExtractor(
        ReluNet(), preprocessing=PREPROCESSING, cache=None, max_epochs=1, random_state=0
    )
    with pytest.raises(ValueError, match="'estimator' parameter must end in a class"):
        activation_maps(extractor.fit(images), images)
    pipe = make_pipeline(extractor, StandardScaler(), logistic()).fit(images, labels)
    maps = activation_maps(pipe, images, "square", "cam")
    difference = pipe.decision_function(images) - maps.mean((1, 2))
    assert_allclose(np.ptp(difference), 0, atol=1e-3)


def test_the_embedded_network(planted):
    images, labels, _ = planted
    extractor = PretrainedFeatureExtractor(image_size=64, cache=None)
    pipe = make_pipeline(extractor, StandardScaler(), logistic())
    pipe.fit(images[:8], labels[:8])
    cam = activation_maps(pipe, images[:3], "square", "cam")
    assert cam.shape == (3, 2, 2)
    grad_cam = activation_maps(pipe, images[:3], "square")
    assert_allclose(4 * grad_cam, cam, rtol=1e-3, atol=1e-4)
