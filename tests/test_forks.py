"""Everything public works in a forked child, whatever its parent was doing.

The children belong to a process of its own: the test process is never forked.
"""

import os
import pathlib
import textwrap

import pytest

from benchmarks._forks import run_python

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes are forked on POSIX"
)

ROOT = pathlib.Path(__file__).parents[1]

SETUP = """
import contextlib, faulthandler, os, pickle, sys, tempfile, threading, warnings
import joblib, multiprocessing
import numpy as np
import torch
from networks import WideNet
from sklearn.base import clone
from skdeepfeat import (
    FeatureCache, FeatureMapper, FineTuneClassifier, FineTuneRegressor,
    PretrainedFeatureExtractor, check_can_learn, learning_rate_range_test, list_layers,
)

torch.set_num_threads(4)
N = 16
rng = np.random.default_rng(0)
X = rng.integers(0, 120, (N, 16, 16, 3)).astype(np.uint8)
X[1::2] += 100
y = np.arange(N) % 2
folder = tempfile.mkdtemp()
network = {
    "model": WideNet(), "preprocessing": {"resize": (16, 16), "crop": (16, 16)},
    "cache": folder + "/cache",
}
cache = FeatureCache(folder + "/cache")
tuning = {**network, "max_epochs": 1, "batch_size": 8, "random_state": 0}
classifier = FineTuneClassifier(**tuning).fit(X, y)
regressor = FineTuneRegressor(**tuning).fit(X, y)
extractor = PretrainedFeatureExtractor(**network)
# Torch itself does not survive: what is not ours is made before the fork.
spare = WideNet()
mapper = FeatureMapper(extractor)
expected = classifier.predict_proba(X)
extractor.transform(X), mapper({"image": X}), classifier.save(folder + "/saved")
torch.relu(torch.randn(2000, 2000)).sum()  # this thread has a pool of OpenMP now


def new():
    return np.random.default_rng().integers(0, 255, X.shape).astype(np.uint8)


def in_child(work):
    # Its own thread would not be in the child.
    faulthandler.cancel_dump_traceback_later()
    child = os.fork()
    if not child:
        # A safety net: whatever hangs says where.
        faulthandler.dump_traceback_later(300, exit=True)
        status = 1
        with contextlib.suppress(BaseException):
            try:
                work()
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status


def predicts(one=classifier):
    np.testing.assert_allclose(one.predict_proba(X), expected, rtol=1e-4)

"""

AFTER_USE = """
def use_everything():
    predicts()
    classifier.predict(new()), classifier.decision_function(new())
    classifier.predict_log_proba(new()), classifier.transform(new())
    assert classifier.score(X, y) >= 0
    regressor.predict(new()), regressor.fit(new(), y), regressor.partial_fit(X, y)
    predicts(pickle.loads(pickle.dumps(classifier)))
    predicts(FineTuneClassifier.load(folder + "/saved", model=spare))
    classifier.save(f"{folder}/{os.getpid()}")
    clone(classifier).fit(new(), y).partial_fit(X, y)
    extractor.fit_transform(new()), extractor.get_feature_names_out()
    extractor.describe(new()), classifier.describe(measure=False)
    extractor.extract_to(new(), f"{folder}/{os.getpid()}.npy")
    mapper({"image": new()})
    learning_rate_range_test(clone(classifier), X, y, n_steps=10)
    check_can_learn(clone(classifier), X, y, n_samples=4, max_epochs=2)
    list_layers(spare, image_size=16)
    cache.info(), cache.check(), cache.clear("none*")

in_child(use_everything)
in_child(lambda: in_child(use_everything))  # and in a child's child
"""

POOLS = """
chunks = np.array_split(X, 4)
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    rows = np.concatenate(pool.map(classifier.predict_proba, chunks))
np.testing.assert_allclose(rows, expected, rtol=1e-4)
with joblib.parallel_config(backend="multiprocessing"):
    rows = joblib.Parallel(2)(
        joblib.delayed(classifier.predict_proba)(chunk) for chunk in chunks
    )
np.testing.assert_allclose(np.concatenate(rows), expected, rtol=1e-4)
"""

AT_WORK = """
import skdeepfeat
# A connection that gets into a child damages the file, which only a warning says.
warnings.simplefilter("error", skdeepfeat.CacheWarning)
stopped = threading.Event()
n_rounds = [0, 0, 0]

def fit():
    FineTuneClassifier(**tuning).fit(new(), y)

def extract():
    extractor.transform(new())

def ask():
    cache.info()

def repeat(number, work):
    while not stopped.is_set():
        work()
        n_rounds[number] += 1

threads = [
    threading.Thread(target=repeat, args=[number, work])
    for number, work in enumerate([fit, extract, ask])
]
for thread in threads:
    thread.start()
try:
    for _ in range(3):
        before = list(n_rounds)
        while min(now - then for now, then in zip(n_rounds, before)) < 1:
            assert all(thread.is_alive() for thread in threads)
            stopped.wait(0.01)
        in_child(lambda: (predicts(), extract(), fit(), ask()))
finally:
    stopped.set()
    for thread in threads:
        thread.join()
"""

SETTINGS = """
import sklearn
from skdeepfeat._utils._forks import survives_fork

@survives_fork
def settings():
    return (
        sklearn.get_config()["transform_output"],
        type(joblib.parallel.get_active_backend()[0]).__name__,
        threading.current_thread() is threading.main_thread(),
    )

@survives_fork
def fail():
    raise KeyError("as it is")

@survives_fork
def interrupted():
    os.kill(os.getpid(), 2)
    while True:
        pass

def check():
    with sklearn.config_context(transform_output="pandas"):
        with joblib.parallel_config(backend="threading"):
            assert settings() == ("pandas", "ThreadingBackend", False)
    for function, kind in [(fail, KeyError), (interrupted, KeyboardInterrupt)]:
        try:
            function()
        except kind:
            continue
        raise AssertionError(function)
    assert type(extractor.set_output(transform="pandas").transform(X)).__name__ == (
        "DataFrame"
    )

assert settings()[2]  # nothing is different in a process that was not forked
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
in_child(check)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(AFTER_USE, id="after-use"),
        pytest.param(POOLS, id="pools"),
        pytest.param(AT_WORK, id="threads-at-work"),
        pytest.param(SETTINGS, id="settings"),
    ],
)
def test_forked_children(script):
    folders = [ROOT, ROOT / "tests" / "support"]
    run = run_python(
        ["-c", SETUP + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        timeout=400,
    )
    assert run.returncode == 0, run.stderr[-5000:]
