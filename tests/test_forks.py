"""Everything public works in a forked child, whatever its parent was doing.

The children belong to a process of its own: the test process is never forked.
"""

import inspect
import os
import pathlib
import textwrap

import pytest
from sklearn.base import BaseEstimator

import skdeepfeat
from benchmarks._forks import run_python
from skdeepfeat import self_supervised, text

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

OTHERS = """
import skdeepfeat.compression, skdeepfeat.inspection, skdeepfeat.plotting
from skdeepfeat import (
    Autoencoder, ConvAutoencoder, SelfSupervisedExtractor, TorchFeatureExtractor,
)
from skdeepfeat.inspection import activation_maps, alignment, embedding, uniformity
from skdeepfeat.text import SentenceEncoder, Word2Vec

import matplotlib
matplotlib.use("Agg")
rows = rng.normal(size=(3000, 200))
pairs = np.arange(3000).reshape(-1, 2)
words = [f"word{i}" for i in range(50)]
texts = [" ".join(rng.choice(words, 40)) for _ in range(100)]
vectors = dict(zip(words, rng.normal(size=(50, 20))))


def stack(images):
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255


one_epoch = {"max_epochs": 1, "random_state": 0}
autoencoder = Autoencoder((300, 100), batch_size=1000, **one_epoch).fit(rows)
images = ConvAutoencoder(image_size=16, **one_epoch).fit(X)
word2vec = Word2Vec(min_count=1, vector_size=500, **one_epoch).fit(texts)
encoder = SentenceEncoder(vectors=vectors, **one_epoch).fit(texts)
pretrained = SelfSupervisedExtractor(**network, batch_size=8, **one_epoch).fit(X)
items = TorchFeatureExtractor(WideNet(), stack, cache=folder + "/cache").fit(list(X))
maps = skdeepfeat.plotting.ActivationMapDisplay(
    maps=np.ones((1, 7, 7)), images=np.zeros((1, 500, 500, 3), np.uint8)
)
alignment(rows, pairs), uniformity(rows), maps.plot()
embedding(rows[:200], random_state=0)  # scikit-learn's pool of OpenMP


def use_everything():
    clone(autoencoder).fit(rows).partial_fit(rows)
    codes = autoencoder.transform(rows)
    autoencoder.inverse_transform(codes), autoencoder.reconstruction_error(rows)
    clone(images).fit(new()), images.reconstruction_error(new())
    images.inverse_transform(images.transform(new())), images.resized(new())
    clone(word2vec).fit(texts), word2vec.transform(texts)
    clone(encoder).fit(texts), encoder.transform(texts)
    clone(pretrained).fit(new()), pretrained.transform(new())
    clone(items).fit_transform(list(new())), items.describe(list(new()))
    alignment(rows, pairs), uniformity(rows), maps.plot()
    embedding(rows[:200], random_state=0)
    activation_maps(classifier, new()[:2], method="occlusion")
    skdeepfeat.compression.widen(classifier, 1.5)

in_child(use_everything)
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
from skdeepfeat._utils._public_function import public_function

@public_function
def settings():
    return (
        sklearn.get_config()["transform_output"],
        type(joblib.parallel.get_active_backend()[0]).__name__,
        threading.current_thread() is threading.main_thread(),
    )

@public_function
def fail():
    raise KeyError("as it is")

@public_function
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
        pytest.param(OTHERS, id="other-estimators"),
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


def public_estimators():
    for package in (skdeepfeat, self_supervised, text):
        for name in package.__all__:
            one = getattr(package, name)
            if inspect.isclass(one) and issubclass(one, BaseEstimator):
                yield one


# What computes, of which some methods only use numpy or call methods of others.
COMPUTING = [
    "fit", "partial_fit", "fit_transform", "transform", "inverse_transform", "predict",
    "predict_proba", "predict_log_proba", "decision_function", "score", "describe",
    "reconstruction_error", "resized", "extract_to", "save", "load", "to_onnx",
    "to_openvino",
]  # fmt: skip
WITHOUT_TORCH = {
    "Word2Vec": {"transform", "save"},
    "WordVectorFeatures": {"fit", "fit_transform", "transform"},
    "TransferAdvisor": set(COMPUTING) - {"fit"},
}


@pytest.mark.parametrize("kind", dict.fromkeys(public_estimators()))
def test_every_method_that_computes_can_be_called_in_a_forked_child(kind):
    for name in set(COMPUTING) - WITHOUT_TORCH.get(kind.__name__, set()):
        method = inspect.getattr_static(kind, name, None)
        function = getattr(method, "__func__", getattr(method, "fn", method))
        if function is None or not function.__module__.startswith("skdeepfeat"):
            continue
        names = set()
        while function is not None:
            names.add(function.__code__.co_qualname)
            function = getattr(function, "__wrapped__", None)
        assert "public_function.<locals>.wrapper" in names, name
