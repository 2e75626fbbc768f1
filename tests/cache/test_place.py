"""Where the default cache is, and users without a home directory."""

import io
import logging
import os
import subprocess
import sys

import pytest
from child import in_child

from skdeepfeat import CacheWarning
from skdeepfeat.cache import FeatureCache
from tests.cache.pretend import Nets, finish, start

HOMELESS = """
import os, sys, warnings

def getpwuid(uid):
    raise KeyError("uid not found")

try:
    import pwd
    pwd.getpwuid = getpwuid
except ImportError:
    pass
warnings.simplefilter("ignore")
import numpy as np
import torch
from click.testing import CliRunner
from skdeepfeat import (
    FeatureCache, FeatureMapper, FineTuneClassifier, PretrainedFeatureExtractor
)
from skdeepfeat.cli import main

def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    print(*[w.category.__name__ for w in caught if w.category.__module__ != "builtins"])

X = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    torch.nn.Linear(4, 2),
)
extractor = PretrainedFeatureExtractor(net, image_size=16)
repr(FeatureCache()), FeatureCache().directory, hash(FeatureCache())
assert FeatureCache().info().n_rows == 0
warned(lambda: extractor.transform(X))
warned(lambda: FineTuneClassifier(net, image_size=16, max_epochs=1).fit(X, [0, 1] * 2))
warned(lambda: PretrainedFeatureExtractor(net, image_size=16, cache={}).transform(X))
for command in ["info", "check"]:
    print(CliRunner().invoke(main, ["cache", command]).exit_code)
print(os.listdir())
"""


@pytest.mark.slow
def test_no_home(tmp_path):
    dropped = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "SKDEEPFEAT_CACHE_DIR")
    environment = {key: os.environ[key] for key in os.environ if key not in dropped}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "CacheWarning",
        "CacheWarning",
        "",
        "1",
        "1",
        "[]",
    ]


ANNOUNCED = """
import logging, sys
from pretend import Nets
from skdeepfeat.cache import FeatureCache, MappingCache
if sys.argv[1] == "info":
    logging.basicConfig(level=logging.INFO)
Nets({"a": 3}).check_fetch(MappingCache({}), range(5))
for _ in range(2):
    cache = FeatureCache(sys.argv[2] or None, max_size="3 GB")
    Nets({"a": 3}).check_fetch(cache, range(5))
"""


def logged(level="warning", path=""):
    """Return what a new process logs when it uses a cache."""
    process = start(ANNOUNCED, level, path)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return errors.splitlines()


@pytest.mark.slow
def test_the_default_directory_is_logged_once(tmp_path, monkeypatch):
    monkeypatch.delenv("SKDEEPFEAT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path))
    [line] = logged()
    assert FeatureCache().directory in line and "3.0 GB" in line
    # It exists now, so a warning would say nothing new.
    assert logged() == []
    [again] = logged("info")
    assert line in again
    assert logged("info", tmp_path / "named") == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a\n\x1b[31m"))
    [line] = logged()
    assert r"a\n\x1b[31m" in line


def test_the_log_may_be_closed(tmp_path):
    def use():
        logging.getLogger().handlers.clear()  # those of pytest
        sys.stderr = io.StringIO()
        sys.stderr.close()
        for name in ("XDG_CACHE_HOME", "HOME"):
            os.environ[name] = str(tmp_path)
        os.environ.pop("SKDEEPFEAT_CACHE_DIR", None)
        Nets({"a": 3}).check_fetch(FeatureCache(), range(5))

    in_child(use)
    assert list(tmp_path.iterdir())


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "SKDEEPFEAT_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [None, "~/features", "~", "~nobody-of-that-name/c"])
def test_a_warning_and_no_cache(homeless, tmp_path, path):
    cache = FeatureCache(path)
    for _ in range(2):
        with pytest.warns(CacheWarning, match="home directory") as caught:
            Nets({"a": 3}).check_fetch(cache, range(5))
        assert len(caught) == 1
    assert cache.check().problems
    assert not list(tmp_path.iterdir())


def test_a_relative_folder_for_caches_is_not_used(homeless, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    with pytest.warns(CacheWarning):
        Nets({"a": 3}).check_fetch(FeatureCache(), range(5))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a directory in use stays elsewhere")
def test_no_working_directory(tmp_path):
    script = """
    import os, sys, warnings
    os.rmdir(os.getcwd())
    warnings.simplefilter("ignore")
    from pretend import Nets
    from skdeepfeat.cache import FeatureCache
    Nets({"a": 3}).check_fetch(FeatureCache("relative"), range(5))
    """
    (tmp_path / "gone").mkdir()
    finish(start(script, cwd=tmp_path / "gone"))
