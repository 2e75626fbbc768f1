"""Ctrl-C while a decoder or a file is busy: it ends at once."""

import os

import pytest

from benchmarks._forks import run_python

# The decoder of the third image blocks for good, as far as the test is concerned.
SCRIPT = """
import os, signal, time
import numpy as np
from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat.images import _image_source, _list_source

def block(*args, **kwargs):
    print("blocked")
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(3600)

X = [np.full((40, 40, 3), i, np.uint8) for i in range(8)]
WHERE
try:
    WHAT
except KeyboardInterrupt:
    print("interrupted")
"""

DECODING = """
original, n = _image_source.fit_to_network, []
def fit(*args):
    n.append(1)
    return block() if len(n) == 3 else original(*args)
_image_source.fit_to_network = fit
"""
HASHING = """
original, n = _list_source.digest_pixels, []
def digest(pixels):
    n.append(1)
    return block() if len(n) == 3 else original(pixels)
_list_source.digest_pixels = digest
X = X * 20
"""
EXTRACT = "PretrainedFeatureExtractor(image_size=32, cache=None).fit_transform(X)"
LOAD = """from skdeepfeat.feature_extraction import ExtractionSettings, load_pixels
    from skdeepfeat import Preprocessing
    load_pixels(X, Preprocessing(32, (32, 32)), ExtractionSettings())"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX systems")
@pytest.mark.parametrize(
    ("where", "what"),
    [
        (DECODING, EXTRACT),
        pytest.param(HASHING, EXTRACT, marks=pytest.mark.slow),
        pytest.param(DECODING, LOAD, marks=pytest.mark.slow),
    ],
)
def test_it_ends_at_once(where, what):
    script = SCRIPT.replace("WHERE", where).replace("WHAT", what)
    # It must not wait for the hour that the decoder takes.
    done = run_python(["-c", script], timeout=200)
    assert (done.returncode, done.stdout) == (0, "blocked\ninterrupted\n")
