"""scikit-learn's callbacks in fits on texts."""

import numpy as np
import pytest
from callbacks import Recorder
from numpy.testing import assert_array_equal
from sklearn.base import clone

from skdeepfeat.text import SentenceEncoder, Word2Vec

callback = pytest.importorskip(
    "sklearn.callback", reason="scikit-learn 1.8 and older have no callbacks"
)

N_EPOCHS = 2
SETTINGS = {"max_epochs": N_EPOCHS, "min_count": 1, "vector_size": 4, "random_state": 0}
LEARNED = {"vectors": "learned", "encoder": "mean", "n_components": 3, "batch_size": 4}
VECTORS = dict(zip("abcdef", np.eye(6), strict=True))
TEXTS = [f"{first} {second}" for first in "abc" for second in "def"]
ESTIMATORS = {
    "word2vec": Word2Vec(**SETTINGS),
    "learned": SentenceEncoder(**SETTINGS, **LEARNED),
    "decoded": SentenceEncoder(**SETTINGS, **LEARNED, decode=True),
    "given": SentenceEncoder(**SETTINGS, **LEARNED).set_params(vectors=VECTORS),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_task_is_one_phase_of_epochs(kind):
    recorder = Recorder()
    without = clone(ESTIMATORS[kind]).fit(TEXTS)
    fitted = clone(ESTIMATORS[kind]).set_callbacks(recorder).fit(TEXTS)
    phase = "word2vec" if kind == "word2vec" else "sentences"
    epochs = ["epoch begins", "epoch ends"] * N_EPOCHS
    tasks = [f"{phase} begins", *epochs, f"{phase} ends"]
    assert recorder.calls == ["setup", "fit begins", *tasks, "fit ends", "teardown"]
    assert recorder.rows == [(len(TEXTS), None, {})] * N_EPOCHS
    # The last epoch's estimator is the one that the fit results in, and callbacks
    # change nothing.
    first, last = recorder.fitted[0], recorder.fitted[-1]
    assert_array_equal(last.transform(TEXTS), fitted.transform(TEXTS))
    assert_array_equal(without.transform(TEXTS), fitted.transform(TEXTS))
    assert len(first.history_) == 1
    assert last.history_.equals(fitted.history_)
    assert not np.array_equal(first.transform(TEXTS), last.transform(TEXTS))


@pytest.mark.parametrize("kind", ["word2vec", "learned"])
def test_a_callback_ends_the_fit(kind):
    fitted = clone(ESTIMATORS[kind]).set_callbacks(Recorder(n_epochs=1)).fit(TEXTS)
    assert len(fitted.history_) == 1


@pytest.mark.parametrize("kind", ["word2vec", "learned"])
def test_scoring_monitor(kind):
    def spread(estimator, X, y):
        return estimator.transform(X).std()

    monitor = callback.ScoringMonitor(scoring={"spread": spread})
    # The monitor scores only if there is a y, which the fit ignores.
    fitted = clone(ESTIMATORS[kind]).set_callbacks(monitor).fit(TEXTS, range(9))
    log = monitor.get_logs().data_as_pandas["spread"]
    assert len(log) == N_EPOCHS
    assert log.iloc[-1] == pytest.approx(spread(fitted, TEXTS, None))


@pytest.mark.parametrize("kind", ["word2vec", "learned"])
def test_progress_bar(kind, capsys):
    pytest.importorskip("rich")
    clone(ESTIMATORS[kind]).set_callbacks(callback.ProgressBar()).fit(TEXTS)
    assert type(ESTIMATORS[kind]).__name__ in capsys.readouterr().out
