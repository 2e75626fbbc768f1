"""Ctrl-C while a decoder or a file is busy: it ends at once."""

import os
import signal
import subprocess
import sys

import pytest

# The decoder of the third image blocks for good, as far as the test is concerned.
SCRIPT = """
import signal, sys, threading, time
import numpy as np
from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat.images import _image_source, _list_source
signal.signal(signal.SIGINT, signal.default_int_handler)


def block(*args, **kwargs):
    print("blocked", flush=True)
    time.sleep(3600)

X = [np.full((40, 40, 3), i, np.uint8) for i in range(8)]
WHERE
try:
    WHAT
except KeyboardInterrupt:
    print("interrupted", flush=True)
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
    load_pixels(X, Preprocessing(32, (32, 32)), ExtractionSettings(), 2**30)"""


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
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(signal.SIGINT)
        # Without it, this would wait for the hour that the decoder takes.
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
