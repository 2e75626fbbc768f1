"""Converted networks next to a cache: only the user's own, undamaged, and bounded."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.cache import FeatureCache, _side_files, open_cache
from skdeepfeat.cache._directory import find_directory
from skdeepfeat.cache._side_files import PrivateFiles, find_secret

KEY, OTHER = digest_bytes(b"a").hex(), digest_bytes(b"b").hex()


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "skdeepfeat"


@pytest.fixture
def files(directory):
    directory.mkdir(mode=0o755)
    files = PrivateFiles(find_directory(directory), 10_000)
    files._max_file_bytes = 400
    return files


def path_of(files):
    [path] = pathlib.Path(files.folder).iterdir()
    return path


def test_read_back_by_the_user_alone(files, state):
    assert files.read(KEY) is None
    assert KEY not in files
    files.write(KEY, b"network")
    assert KEY in files
    assert files.read(KEY) == b"network"
    assert files.read(OTHER) is None
    modes = [stat.S_IMODE(os.stat(p).st_mode) for p in (path_of(files), files.folder)]
    assert modes == [0o600, 0o700]
    assert stat.S_IMODE((state / "secret").stat().st_mode) == 0o600
    files.clear()
    assert files.read(KEY) is None


def test_no_damaged_byte_goes_unnoticed(files):
    files.write(KEY, b"network")
    path = path_of(files)
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert files.read(KEY) is None
        path.write_bytes(whole[:i])
        assert files.read(KEY) is None
    files.write(KEY, b"network")
    assert files.read(KEY) == b"network"


def test_what_another_user_has_sealed_is_not_read(files, state):
    """Neither if it is copied, nor in a cache that somebody has packed and sent."""
    files.write(KEY, b"network")
    foreign = path_of(files).read_bytes()
    state.rename(state.with_name("theirs"))  # from here on, somebody else's secret
    assert files.read(KEY) is None
    files.write(KEY, b"own network")
    assert files.read(KEY) == b"own network"
    path_of(files).write_bytes(foreign)
    assert files.read(KEY) is None


def test_a_renamed_file_is_not_the_other_keys(files):
    files.write(KEY, b"network")
    path = path_of(files)
    path.rename(path.with_name(OTHER[:32]))
    assert files.read(OTHER) is None


def test_a_link_is_not_followed(files, tmp_path):
    files.write(KEY, b"network")
    path = path_of(files)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert files.read(KEY) is None
    path.unlink()
    folder = pathlib.Path(files.folder)
    folder.rename(tmp_path / "folder")
    folder.symlink_to(tmp_path / "folder")
    files.write(KEY, b"network")
    assert files.read(KEY) is None
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such modes")
@pytest.mark.parametrize("what", ["directory", "folder", "state"])
def test_nothing_where_others_may_write(files, directory, state, what):
    files.write(KEY, b"network")
    place = {"directory": directory, "folder": files.folder, "state": state}[what]
    os.chmod(place, 0o777)
    assert files.read(KEY) is None
    files.write(OTHER, b"network")
    assert len(os.listdir(files.folder)) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such modes")
def test_a_secret_that_others_may_have_read_is_replaced(files, state):
    files.write(KEY, b"network")
    secret = state / "secret"
    before = secret.read_bytes()
    secret.chmod(0o644)
    assert files.read(KEY) is None
    files.write(KEY, b"again")
    assert files.read(KEY) == b"again"
    assert secret.read_bytes() != before
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_secret_that_another_process_has_just_written_stays(state, monkeypatch):
    read, theirs = _side_files._read_secret, []

    def read_too_early(path):
        secret = read(path)
        if not theirs:
            theirs.append(None)  # the other process reads, too
            theirs.append(find_secret(create=True))
        return secret

    monkeypatch.setattr(_side_files, "_read_secret", read_too_early)
    assert find_secret(create=True) == theirs[1]
    assert os.listdir(state) == ["secret"]


def test_a_secret_that_is_a_link_or_too_short_is_not_used(files, state, tmp_path):
    state.mkdir(parents=True)
    (tmp_path / "known").write_bytes(bytes(32))
    (state / "secret").symlink_to(tmp_path / "known")
    files.write(KEY, b"network")
    assert files.read(KEY) is None
    assert (tmp_path / "known").read_bytes() == bytes(32)
    (state / "secret").unlink()
    (state / "secret").write_bytes(b"")
    (state / "secret").chmod(0o600)
    assert find_secret() is None
    assert len(find_secret(create=True)) == 32


def test_those_used_longest_ago_are_removed(files):
    keys = [digest_bytes(bytes([i])).hex() for i in range(4)]
    for i, key in enumerate(keys[:3]):
        files.write(key, bytes(200))
        os.utime(os.path.join(files.folder, key[:32]), (i, i))
    assert files.read(keys[0]) is not None  # now the last used
    files.write(keys[3], bytes(300))
    assert [files.read(key) is not None for key in keys] == [True, False, True, True]
    files.write(OTHER, bytes(500))  # more than one may have
    assert files.read(OTHER) is None


def test_at_most_a_tenth_of_the_cache(directory):
    place = find_directory(directory)
    directory.mkdir()
    files = PrivateFiles(place, 10_000)
    files.write(KEY, bytes(1001))
    assert files.read(KEY) is None
    files.write(KEY, bytes(900))
    assert files.read(KEY) is not None


def test_shown_and_cleared_with_the_cache(cache, directory):
    directory.mkdir()
    networks = cache.open().converted
    networks.write(KEY, bytes(2_000_000))
    size = networks.size()
    found = cache.info()
    assert found.converted_size == size > 2_000_000
    assert found.size >= size
    assert "converted networks and timings: 2.0 MB" in str(found)
    cache.clear("other*")
    assert networks.read(KEY) is not None
    cache.clear()
    assert networks.read(KEY) is None
    assert cache.info().converted_size == 0
    assert open_cache(None).open().converted is None
    of_mapping, default = open_cache({}).open(), FeatureCache().open()
    assert of_mapping.converted.folder == default.converted.folder


def test_without_a_directory_none_is_made(directory, state):
    files = PrivateFiles(find_directory(directory), 10_000)
    files.write(KEY, b"network")
    assert not directory.exists()
    assert not state.exists()
    assert files.read(KEY) is None


CHILD = """
import os, resource, signal, sys
from skdeepfeat.cache._directory import find_directory
from skdeepfeat.cache._side_files import PrivateFiles
directory, how, key = sys.argv[1:]
files = PrivateFiles(find_directory(directory), 10**8)
if how == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
if how == "killed":
    os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
files.write(key, bytes(10**6))
print(files.read(key) is not None)
"""


def run_child(directory, how, **environment):
    return subprocess.Popen(
        [sys.executable, "-B", "-W", "error", "-c", CHILD, str(directory), how, KEY],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of POSIX")
def test_full_disk_no_home_killed_and_two_at_once(directory, tmp_path):
    """Real processes: each works, or quietly keeps nothing."""
    directory.mkdir()
    homeless = {"XDG_STATE_HOME": "", "HOME": str(tmp_path / "file" / "none")}
    (tmp_path / "file").write_text("no folder can be made here")
    children = {
        "full": run_child(directory, "full"),
        "homeless": run_child(directory, "homeless", **homeless),
        "killed": run_child(directory, "killed"),
    }
    outputs = {how: one.communicate(timeout=200) for how, one in children.items()}
    assert outputs == {
        "full": ("False\n", ""), "homeless": ("False\n", ""), "killed": ("", "")
    }  # fmt: skip
    files = PrivateFiles(find_directory(directory), 10**8)
    assert files.read(KEY) is None
    several = [run_child(directory, "together") for _ in range(3)]
    assert [one.communicate(timeout=200) for one in several] == [("True\n", "")] * 3
    assert files.read(KEY) == bytes(10**6)
