"""`skdeepfeat cache`."""

import contextlib
import json
import os
import sqlite3

import numpy as np
import pytest

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor


@pytest.fixture
def cache(tmp_path):
    """Return a cache with three rows of the neck and two of stage 1."""
    cache = FeatureCache(tmp_path / "features")
    X = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for layer, n_images in ((None, 3), (1, 2)):
        PretrainedFeatureExtractor(
            image_size=32, layer=layer, cache=cache
        ).fit_transform(X[:n_images])
    return cache


def damage(cache):
    """Change a number in one stored row, as a failing disk does."""
    with contextlib.closing(sqlite3.connect(cache.info().path)) as connection:
        [(number, data)] = connection.execute("SELECT id, data FROM rows LIMIT 1")
        data = bytes([data[0] ^ 1]) + data[1:]
        connection.execute("UPDATE rows SET data = ? WHERE id = ?", (data, number))
        connection.commit()


def test_info(run, cache):
    result = run("cache", "info", "--cache", cache.path)
    assert result.exit_code == 0
    assert result.stdout == f"{cache.info()}\n"
    assert "3 rows x 1280 features" in result.stdout


def test_info_of_the_default_cache(run, private_cache):
    result = run("cache", "info")
    assert result.exit_code == 0
    assert result.stdout.startswith(str(private_cache))
    assert os.listdir(private_cache) == []


def test_info_for_scripts(run, cache):
    result = run("cache", "info", "--cache", cache.path, "--json")
    found, known = json.loads(result.stdout), cache.info()
    assert (found["path"], found["n_rows"]) == (known.path, 5)
    for shown, each in zip(found["namespaces"], known.namespaces, strict=True):
        assert shown["label"] == each.label
        assert shown["last_used"] == each.last_used.isoformat()
        assert shown["n_rows"] == each.n_rows


def test_info_of_some(run, cache):
    arguments = ("cache", "info", "--cache", cache.path, "--namespace")
    found = json.loads(run(*arguments, "*blocks*", "--json").stdout)
    assert [each["n_rows"] for each in found["namespaces"]] == [2]
    assert run(*arguments, "resnet*").exit_code == 1


def test_check(run, cache):
    arguments = ("cache", "check", "--cache", cache.path)
    assert run(*arguments).exit_code == 0
    damage(cache)
    for _ in range(2):
        looked = run(*arguments, "--no-repair")
        assert looked.exit_code == 1
        assert "damaged; 1 of 5 rows" in looked.stdout
    repaired = run(*arguments)
    assert repaired.exit_code == 1
    assert "repaired; 1 of 5 rows" in repaired.stdout
    again = run(*arguments)
    assert again.exit_code == 0
    assert "valid; 0 of 4 rows" in again.stdout


def test_clear(run, cache):
    arguments = ("cache", "clear", "--cache", cache.path)
    result = run(*arguments, "--namespace", "*blocks*", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("2 rows removed")
    assert cache.info().n_rows == 3
    assert run(*arguments, "--yes").stderr.startswith("3 rows removed")
    assert cache.info().n_rows == 0
    assert run(*arguments).stderr.startswith("0 rows removed")


def test_clear_asks(run, cache):
    arguments = ("cache", "clear", "--cache", cache.path)
    for answer in ("n\n", "\n", ""):
        result = run(*arguments, input=answer)
        assert result.exit_code == 1
        assert "Remove 5 rows from" in result.stderr
        assert "efficientnet_lite0" in result.stderr
        assert cache.info().n_rows == 5
    assert run(*arguments, input="y\n").exit_code == 0
    assert cache.info().n_rows == 0


def test_clear_of_nothing_that_matches(run, cache):
    arguments = ("cache", "clear", "--cache", cache.path, "--yes", "--namespace")
    result = run(*arguments, "resnet*")
    assert result.exit_code == 1
    assert "matches 'resnet*'" in result.stderr
    assert cache.info().n_rows == 5


@pytest.mark.parametrize("command", ["clear --yes", "clear --yes --namespace *blocks*"])
def test_clear_of_a_locked_cache(run, cache, monkeypatch, command):
    monkeypatch.setattr(FeatureCache, "_timeout", 0.1)
    arguments = ("cache", *command.split(), "--cache", cache.path)
    with contextlib.closing(sqlite3.connect(cache.info().path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: The cache in ")
    assert "another program keeps it locked" in result.stderr
    assert "rows removed" not in result.stderr
    assert cache.info().n_rows == 5


@pytest.mark.parametrize("command", ["info", "info --json", "clear --yes"])
def test_a_cache_that_cannot_be_opened(run, tmp_path, command):
    os.mkdir(FeatureCache(tmp_path).info().path)
    (tmp_path / "locks").write_bytes(b"")  # so it cannot be quarantined
    result = run("cache", *command.split(), "--cache", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Error: The cache in {tmp_path} cannot be used: " in result.stderr


@pytest.mark.parametrize("command", ["info", "check", "clear"])
def test_a_cache_that_is_not_there(run, tmp_path, command):
    result = run("cache", command, "--cache", tmp_path / "no_such")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert not (tmp_path / "no_such").exists()
