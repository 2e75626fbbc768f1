"""The layers that a search tries come from one pass; `transform` returns one."""

import numpy as np
import pytest
from networks import CountingStages, rows_counted
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor

N = 24
LAYERS = ["conv", "layer2", "layer3", "neck"]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def extractor(log, tmp_path):
    """Return a function that makes extractors of one network."""

    def make(**parameters):
        model = CountingStages(log)
        # By name: joblib's workers may be older than this test's environment.
        parameters = {"cache": tmp_path / "cache", **parameters}
        return PretrainedFeatureExtractor(
            model, image_size=32, batch_size=8, **parameters
        )

    return make


@pytest.mark.parametrize(
    ("n_jobs", "cache_layers", "n_passes"),
    [
        pytest.param(1, None, 4, marks=pytest.mark.slow),
        pytest.param(1, LAYERS, 1, marks=pytest.mark.slow),
        pytest.param(1, "stages", 1, marks=pytest.mark.slow),
        (1, LAYERS[2:], 2),
        pytest.param(2, None, 4, marks=pytest.mark.slow),
        pytest.param(2, LAYERS, 1, marks=pytest.mark.slow),
    ],
)
def test_a_search_over_layers_costs_one_pass(
    extractor, images, log, n_jobs, cache_layers, n_passes
):
    pipe = Pipeline(
        [
            ("feat", extractor(cache_layers=cache_layers)),
            ("clf", RidgeClassifier()),
        ]
    )
    grid = {"feat__layer": LAYERS, "clf__alpha": [0.1, 1.0]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=n_jobs, error_score="raise")
    search.fit(images, np.arange(N) % 2)
    assert len(search.cv_results_["params"]) == 8
    assert rows_counted(log) == n_passes * N
    search.fit(images, np.arange(N) % 2)
    assert rows_counted(log) == n_passes * N


def test_rows_are_those_of_a_layer_asked_for_alone(extractor, images, log):
    alone = {
        layer: extractor(layer=layer, cache=None).fit_transform(images)
        for layer in LAYERS
    }
    before = rows_counted(log)
    for layer in ["layer2", "layer3", "neck", "conv"]:
        together = extractor(layer=layer, cache_layers=LAYERS).fit_transform(images)
        assert together.shape == alone[layer].shape
        np.testing.assert_allclose(together, alone[layer], rtol=1e-5, atol=1e-6)
    assert rows_counted(log) == before + N


def test_a_list_of_layers_beside_others(extractor, images, log):
    pair = extractor(layer=["layer3", "conv"], cache_layers=["conv", "layer2"])
    rows = pair.fit_transform(images)
    names = pair.get_feature_names_out()
    assert rows.shape == (N, len(names)) == (N, 8 + 4)
    assert names[0].startswith("countingstages_layer3")
    np.testing.assert_array_equal(
        extractor(layer="conv").fit_transform(images), rows[:, 8:]
    )
    extractor(layer=1).fit_transform(images)  # layer2
    assert rows_counted(log) == N


def test_known_rows_are_no_reason_to_compute_others(extractor, images, log, tmp_path):
    extractor(layer="layer2").fit_transform(images[:16])
    wide = extractor(layer="layer2", cache_layers="stages")
    wide.fit_transform(images[:16])
    assert rows_counted(log) == 16
    wide.fit_transform(images)
    assert rows_counted(log) == N
    namespaces = FeatureCache(tmp_path / "cache").info().namespaces
    assert sorted(one.n_rows for one in namespaces) == [8, 8, 8, N]


def test_nothing_is_computed_besides_where_nothing_is_kept(images, log):
    class Deep(CountingStages):
        n_deep = 0

        def forward(self, x):
            # Hooks stop the network behind the wanted layer, so this is not reached.
            found = super().forward(x)
            Deep.n_deep += x.device.type != "meta" and type(x).__name__ == "Tensor"
            return found

    extractor = PretrainedFeatureExtractor(
        Deep(log), image_size=32, layer="conv", cache_layers=["output"], cache=None
    )
    extractor.fit(images)
    before = Deep.n_deep
    extractor.transform(images)
    assert Deep.n_deep == before
    assert rows_counted(log) == N


def test_bad_images_are_bad_in_every_layer(extractor, images, log):
    mixed = [images[0], b"no image", images[1]]
    rows = []
    for layer in LAYERS:
        one = extractor(layer=layer, cache_layers=LAYERS, on_error="nan")
        with pytest.warns(UserWarning, match="could not be read"):
            rows.append(one.fit_transform(mixed))
    assert all(
        np.isnan(each).any(axis=1).tolist() == [False, True, False] for each in rows
    )
    assert rows_counted(log) == 2


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (["layr2"], ValueError, "Got 'layr2' instead. Did you mean 'layer2'"),
        ([], ValueError, "must be None, 'stages' or a list of at least one layer"),
        (["conv", "conv"], ValueError, "a list without repetitions"),
        ([7], ValueError, "a stage's number from -3 to 2"),
        ([1.5], TypeError, "a stage's number or a list"),
        ("layer2", ValueError, "'stages'"),
        (2, ValueError, "'stages'"),
    ],
)
def test_what_is_wrong_is_said_in_fit(extractor, images, log, value, error, match):
    with pytest.raises(error, match=match) as caught:
        extractor(cache_layers=value).fit(images)
    assert str(caught.value).startswith("The 'cache_layers' parameter")
    assert rows_counted(log) == 0
