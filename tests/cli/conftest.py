"""The command line as its users see it: arguments in, exit code and streams out."""

import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from skdeepfeat.cli import main


@pytest.fixture
def run():
    """Run a command in this process; return click's result."""

    def run(*arguments, **options):
        return CliRunner().invoke(main, [str(each) for each in arguments], **options)

    return run


@pytest.fixture
def run_process():
    """Run a command as the shell does."""

    def run_process(*arguments, **options):
        command = [sys.executable, "-m", "skdeepfeat", *map(str, arguments)]
        options = {"capture_output": True, "text": True, "timeout": 240, **options}
        return subprocess.run(command, **options)

    return run_process


@pytest.fixture
def photos(tmp_path):
    """Return a folder with five images in a tree, and what else lies in folders."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "sub/c.jpg", "sub/deeper/d.PNG", "sub/e.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"not seen")
    return folder


@pytest.fixture
def names(photos):
    """Return the paths of the five images in the order of their rows."""
    wanted = ("a.png", "b.png", "sub/c.jpg", "sub/deeper/d.PNG", "sub/e.png")
    return [os.path.join(photos, *name.split("/")) for name in wanted]
