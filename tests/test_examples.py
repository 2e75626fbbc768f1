"""The examples run as they are, from any folder, and do what they say."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]


def run(name, folder):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_demo(tmp_path):
    pytest.importorskip("skimage")
    out = run("demo.py", tmp_path)
    with Image.open(tmp_path / "demo_output" / "demo.png") as picture:
        assert min(picture.size) > 500
    new = [int(n) for n in re.findall(r"(\d+) rows computed", out)]
    assert new == [300 * 4, 0, 200 * 4, 0]
    scores = [float(s) for s in re.findall(r"(?:pixels|features) +(0\.\d+|1\.0+)", out)]
    raw, deep = scores[0], scores[1]
    assert deep > raw


@pytest.mark.slow
def test_data_frame(tmp_path):
    pytest.importorskip("skimage")
    without, with_photograph = re.findall(
        r"accuracy (\S+)", run("data_frame.py", tmp_path)
    )
    assert float(with_photograph) > max(0.95, float(without))


@pytest.mark.slow
def test_own_network(tmp_path):
    accuracies = re.findall(r"accuracy (\S+)", run("own_network.py", tmp_path))
    assert len(accuracies) == 3
    assert float(max(accuracies)) > 0.9
