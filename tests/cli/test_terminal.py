"""Names from outside are shown with escapes, and are written as they are."""

import csv
import json
import os
import re

import numpy as np
import pytest

from skdeepfeat import FeatureCache
from tests.cache.pretend import Nets

HOSTILE = "x\x1b[31m\nError: \x07\x9b\u202e"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
SMALL = ["--weights", "random", "--image-size", "32", "--cache", "none"]


def is_fit_to_be_shown(result):
    text = result.stdout + result.stderr
    assert not CONTROL.search(text), ascii(text)
    # No line that a name has made looks like a message.
    assert len(re.findall("^Error: ", text, re.MULTILINE)) <= 1
    return text


@pytest.fixture
def broken(tmp_path, photos):
    """Return a folder of images, one of which cannot be read and has a hostile name."""
    path = os.path.join(photos, f"{HOSTILE}.jpg")
    with open(path, "wb") as file:
        file.write(b"no image")
    return photos


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not allow")
def test_extract(run, broken, tmp_path):
    output = tmp_path / "features.npy"
    text = is_fit_to_be_shown(run("extract", broken, "-o", output, *SMALL, "-q"))
    assert r"x\x1b[31m\nError: \x07\x9b\u202e.jpg" in text
    result = run("extract", broken, "-o", output, *SMALL, "--on-error", "nan")
    assert r"\x1b" in is_fit_to_be_shown(result)
    assert result.exit_code == 0
    with open(f"{output}.images.csv", encoding="utf-8", newline="") as file:
        names = [row[0] for row in csv.reader(file)]
    assert os.path.join(broken, f"{HOSTILE}.jpg") in names
    assert np.isnan(np.load(output)).any(axis=1).sum() == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        [f"--{HOSTILE}"],
        ["extract", HOSTILE, "-o", "f.npy"],
        ["extract", "-o", HOSTILE],
        ["extract", "-o", f"{HOSTILE}/f.npy", "a.jpg"],
        ["extract", "--from-file", HOSTILE, "-o", "f.npy"],
        ["extract", f"{HOSTILE}.csv", "-o", "f.npy"],
        ["extract", "a.jpg", "-o", "f.npy", "--root", HOSTILE],
        ["extract", "a.jpg", "-o", "f.npy", "--device", HOSTILE],
        ["extract", "a.jpg", "-o", "f.npy", "--batch-size", HOSTILE],
        ["extract", "a.jpg", "-o", "f.npy", "--storage-option", HOSTILE],
        ["extract", f"s3://{HOSTILE}", "-o", "f.npy"],
        ["models", HOSTILE],
        ["layers", HOSTILE],
        ["layers", "resnet18", "--weights", HOSTILE],
        ["cache", "info", "--cache", HOSTILE],
        ["cache", "clear", "--yes", "--namespace", HOSTILE],
    ],
    ids=lambda arguments: " ".join(arguments[:3]).replace(HOSTILE, "x"),
)
def test_arguments(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert is_fit_to_be_shown(result).strip()
    assert result.exit_code in (1, 2)


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not allow")
def test_a_cache(run, tmp_path):
    directory = tmp_path / HOSTILE
    cache = FeatureCache(directory)
    nets = Nets({HOSTILE: 3})
    nets.fetch(cache, range(3))
    for command in (["info"], ["check"], ["clear", "--yes"]):
        text = is_fit_to_be_shown(run("cache", *command, "--cache", directory))
        assert r"\x1b" in text
    nets.fetch(cache, range(3))
    found = json.loads(run("cache", "info", "--json", "--cache", directory).stdout)
    assert found["path"] == os.path.join(directory, os.path.basename(found["path"]))
    assert found["namespaces"][0]["label"].startswith(HOSTILE)


def test_secrets_of_the_command_line_are_not_repeated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = "https://user:HUSH@host/a.jpg?sig=HUSH"
    for arguments in (
        [address],
        ["a.jpg"],
        ["--cache", address, "a.jpg"],
        ["--storage-option", "HUSH", "a.jpg"],
        ["--storage-option", "=HUSH", "a.jpg"],
    ):
        output = "s3://user:HUSH@bucket/f.npy" if arguments == ["a.jpg"] else "f.npy"
        result = run("extract", *arguments, "-o", output)
        assert result.exit_code == 2
        assert "HUSH" not in result.stdout + result.stderr
