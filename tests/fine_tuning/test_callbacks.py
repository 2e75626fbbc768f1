"""scikit-learn's callbacks in a fit, and what a fit does without them."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
from callbacks import Recorder
from networks import StemNet
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdeepfeat import BadImageWarning, FineTuneClassifier, FineTuneRegressor

callback = pytest.importorskip(
    "sklearn.callback", reason="scikit-learn 1.8 and older have no callbacks"
)

N, SIZE, N_EPOCHS = 16, 16, 3


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": StemNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": N_EPOCHS,
        "batch_size": 8,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return kind(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    pixels[np.arange(N), :, :, np.arange(N) % 2] += 100
    return pixels.astype(np.uint8), np.array(["green", "red"])[np.arange(N) % 2]


def test_tasks_are_phases_and_epochs(images):
    recorder = Recorder()
    fitted = small().set_callbacks(recorder).fit(*images, X_probe=images[0][:3])
    epoch = ["epoch begins", "epoch ends"]
    assert recorder.calls == [
        *("setup", "fit begins"),
        *("head begins", *epoch, "head ends"),
        *("body begins", *epoch * N_EPOCHS, "body ends"),
        *("fit ends", "teardown"),
    ]
    assert recorder.rows == [(N, N, {})] * (1 + N_EPOCHS)
    # The last epoch's estimator is the one that the fit results in.
    last = recorder.fitted[-1]
    assert_array_equal(
        last.decision_function(images[0]), fitted.decision_function(images[0])
    )
    assert last.history_.equals(fitted.history_)
    assert_array_equal(last.probe_predictions_, fitted.probe_predictions_)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"hidden_layer_sizes": (4,), "head_epochs": 2},
        {"ema_decay": 0.0, "early_stopping": True, "validation_fraction": 0.25},
        {"unfreeze": None},
    ],
)
def test_results_are_those_without_callbacks(images, parameters):
    without = small(**parameters).fit(*images)
    recorder = Recorder()
    with_callback = small(**parameters).set_callbacks(recorder).fit(*images)
    assert_array_equal(
        without.decision_function(images[0]), with_callback.decision_function(images[0])
    )
    scores = [one.score(*images) for one in recorder.fitted]
    assert len(scores) == len(without.history_)


def test_only_what_is_trained_on(images):
    X, y = [*images[0][:-1], "no_such_image.png"], images[1]
    weight = np.ones(N)
    weight[0] = 0
    recorder = Recorder()
    estimator = small(on_error="nan").set_callbacks(recorder)
    with pytest.warns(BadImageWarning):
        estimator.fit(X, y, sample_weight=weight)
    for n_images, n_labels, metadata in recorder.rows:
        assert n_images == n_labels == len(metadata["sample_weight"]) == N - 2


def test_a_callback_ends_a_phase(images):
    recorder = Recorder(n_epochs=2)
    fitted = small(max_epochs=9).set_callbacks(recorder).fit(*images)
    assert fitted.n_epochs_ == 2
    assert recorder.fitted[-1].history_.equals(fitted.history_)


def test_warm_start_has_no_phase_one(images):
    estimator = small(warm_start=True).fit(*images)
    recorder = Recorder()
    estimator.set_callbacks(recorder).fit(*images)
    assert "head begins" not in recorder.calls
    assert recorder.fitted[-1].n_epochs_ == estimator.n_epochs_ == 2 * N_EPOCHS


def test_an_error_in_a_fit_tears_down(images):
    recorder = Recorder()
    estimator = small().set_callbacks(recorder)
    before = {name for name in vars(estimator) if "callback" in name}
    with pytest.raises(ValueError, match="y_val"):
        estimator.fit(*images, X_val=images[0])
    assert recorder.calls in ([], ["setup", "teardown"])
    assert {name for name in vars(estimator) if "callback" in name} == before


@pytest.mark.parametrize(
    "kind, scoring", [(FineTuneClassifier, "accuracy"), (FineTuneRegressor, "r2")]
)
def test_scoring_monitor(images, kind, scoring):
    X, y = images
    y = y if kind is FineTuneClassifier else (y == "red").astype(float)
    monitor = callback.ScoringMonitor(scoring=scoring)
    fitted = small(kind).set_callbacks(monitor).fit(X, y)
    log = monitor.get_logs().data_as_pandas
    assert log["task_name"].tolist() == ["epoch"] * (1 + N_EPOCHS)
    assert log[scoring].iloc[-1] == pytest.approx(fitted.score(X, y))


def test_progress_bar(images, capsys):
    pytest.importorskip("rich", reason="the bar of scikit-learn needs rich")
    small().set_callbacks(callback.ProgressBar()).fit(*images)
    shown = capsys.readouterr().out
    for task in ("fit", "head #0", "body #1"):
        assert f"FineTuneClassifier - {task}" in shown


def test_clones_and_pickles_keep_callbacks(images):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    estimator = small().set_callbacks(monitor)
    clone(estimator).fit(*images)
    assert len(monitor.get_logs().data) == 1 + N_EPOCHS
    restored = pickle.loads(pickle.dumps(estimator.fit(*images)))
    assert_array_equal(restored.predict(images[0]), estimator.predict(images[0]))
    restored.set_callbacks().fit(*images)


def test_search_and_pipeline(images):
    X, y = images
    monitor = callback.ScoringMonitor(scoring="accuracy")
    search = GridSearchCV(
        small(max_epochs=2).set_callbacks(monitor), {"ema_decay": [0, 0.9]}, cv=2
    )
    search.fit(X, y)
    logs = monitor.get_logs(select="all")
    n_fits = 2 * 2 + 1
    assert sum(len(log.data) for log in logs) == n_fits * 3
    table = nn.Sequential(nn.Linear(48, 4), nn.ReLU(), nn.Linear(4, 2))
    pipeline = make_pipeline(
        StandardScaler(), small(model=table, preprocessing=None, max_epochs=1)
    )
    recorder = Recorder()
    pipeline[-1].set_callbacks(recorder)
    pipeline.fit(X[:, :4, :4].reshape(N, -1), y)
    assert recorder.calls.count("epoch ends") == 2


def test_scikit_learn_without_callbacks(monkeypatch, images):
    """As before version 1.9: nothing is added, and nobody is told anything."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.find_spec("skdeepfeat._utils._callbacks")
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert older.with_callbacks(len) is len
    assert not hasattr(older.CallbackSupportMixin, "set_callbacks")
    callbacks = older.FitCallbacks(older.CallbackSupportMixin(), 1, *images)
    with callbacks.phase("head", 1, None, None) as epochs:
        epochs.begin()
        assert not epochs.end()
    callbacks.close()
