"""scikit-learn's callbacks in fits without labels."""

import numpy as np
import pandas as pd
import pytest
from callbacks import Recorder
from networks import StemNet
from numpy.testing import assert_array_equal

from skdeepfeat import Autoencoder, ConvAutoencoder, SelfSupervisedExtractor

callback = pytest.importorskip(
    "sklearn.callback", reason="scikit-learn 1.8 and older have no callbacks"
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The embeddings have begun to collapse"),
]

N, SIZE, N_EPOCHS = 20, 16, 2
SETTINGS = {"max_epochs": N_EPOCHS, "batch_size": 8, "device": "cpu", "random_state": 0}


ESTIMATORS = {
    "autoencoder": lambda: Autoencoder((8, 3), **SETTINGS),
    "layers": lambda: Autoencoder((8, 3), layerwise=True, **SETTINGS),
    "images": lambda: ConvAutoencoder(4, image_size=SIZE, **SETTINGS),
    "pairs": lambda: SelfSupervisedExtractor(
        StemNet(), image_size=SIZE, projection=(8,), cache=None, **SETTINGS
    ),
}
PHASES = {
    "autoencoder": ["network"],
    "layers": ["layer 1", "layer 2", "network"],
    "images": ["network"],
    "pairs": ["pairs"],
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)


def data_for(kind, images):
    return images if kind in ("images", "pairs") else images[:, :2, :2].reshape(N, 12)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_tasks_are_phases_and_epochs(kind, images):
    X, recorder = data_for(kind, images), Recorder()
    without = ESTIMATORS[kind]().fit(X)
    fitted = ESTIMATORS[kind]().set_callbacks(recorder).fit(X)
    calls = ["setup", "fit begins"]
    for phase in PHASES[kind]:
        epochs = ["epoch begins", "epoch ends"] * N_EPOCHS
        calls += [f"{phase} begins", *epochs, f"{phase} ends"]
    assert recorder.calls == [*calls, "fit ends", "teardown"]
    assert recorder.rows == [(N, None, {})] * N_EPOCHS * len(PHASES[kind])
    # The last epoch's estimator is the one that the fit results in, and callbacks
    # change nothing.
    first, last = recorder.fitted[0], recorder.fitted[-1]
    assert_array_equal(last.transform(X), fitted.transform(X))
    assert_array_equal(without.transform(X), fitted.transform(X))
    assert last.history_.equals(fitted.history_)
    assert len(first.history_) == 1
    assert not np.array_equal(first.transform(X), last.transform(X))


@pytest.mark.parametrize("kind", ["autoencoder", "images"])
def test_only_what_is_trained_on(kind, images):
    X, recorder = data_for(kind, images), Recorder()
    estimator = ESTIMATORS[kind]().set_params(early_stopping=True)
    estimator.set_callbacks(recorder).fit(X, np.arange(N))
    assert recorder.rows[0] == (N - 2, N - 2, {})


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_callback_ends_a_phase(kind, images):
    recorder = Recorder(n_epochs=1)
    estimator = ESTIMATORS[kind]().set_callbacks(recorder).fit(data_for(kind, images))
    assert len(estimator.history_) == len(PHASES[kind])


def test_scoring_monitor(images):
    frame = pd.DataFrame(data_for("autoencoder", images)).rename(columns="x{}".format)

    def restored(estimator, X, y):
        return -estimator.reconstruction_error(X).mean()

    monitor = callback.ScoringMonitor(scoring={"restored": restored})
    # The monitor scores only if there is a y, which the fit ignores.
    fitted = ESTIMATORS["autoencoder"]().set_callbacks(monitor).fit(frame, np.arange(N))
    log = monitor.get_logs().data_as_pandas
    assert len(log) == N_EPOCHS
    expected = restored(fitted, frame, None)
    assert log["restored"].iloc[-1] == pytest.approx(expected)


def test_partial_fit_calls_none(images):
    recorder = Recorder()
    estimator = ESTIMATORS["autoencoder"]().set_callbacks(recorder)
    estimator.partial_fit(data_for("autoencoder", images))
    assert recorder.calls == []
