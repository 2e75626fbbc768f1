"""Small files next to a cache: read back exactly, or not there."""

import os
import pathlib

import pytest

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.cache import FeatureCache, open_cache
from skdeepfeat.cache._directory import find_directory
from skdeepfeat.cache._side_files import SideFiles

KEY, OTHER = digest_bytes(b"a").hex(), digest_bytes(b"b").hex()


@pytest.fixture
def files(tmp_path):
    directory = find_directory(tmp_path / "cache")
    return SideFiles(directory, "notes", max_bytes=1000, max_file_bytes=400)


def path_of(files):
    [path] = pathlib.Path(files.folder).iterdir()
    return path


def test_read_back_and_replaced(files):
    assert files.read(KEY) is None
    files.write(KEY, b"first")
    files.write(KEY, b"second")
    assert files.read(KEY) == b"second"
    assert files.read(OTHER) is None
    files.clear()
    assert files.read(KEY) is None


def test_no_damaged_byte_goes_unnoticed(files):
    files.write(KEY, b"content")
    path = path_of(files)
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert files.read(KEY) is None
        path.write_bytes(whole[:i])
        assert files.read(KEY) is None


def test_renamed_file_is_not_the_other_keys(files):
    files.write(KEY, b"content")
    path = path_of(files)
    path.rename(path.with_name(OTHER[:32]))
    assert files.read(OTHER) is None


def test_links_pipes_and_large_files(files, tmp_path):
    files.write(KEY, b"content")
    path = path_of(files)
    elsewhere = tmp_path / "elsewhere"
    os.rename(path, elsewhere)
    os.symlink(elsewhere, path)
    assert files.read(KEY) is None
    os.unlink(path)
    os.mkfifo(path)
    assert files.read(KEY) is None  # and does not wait
    os.unlink(path)
    with open(path, "wb") as file:
        file.truncate(10**9)
    assert files.read(KEY) is None
    files.write(KEY, bytes(500))  # more than one may have
    assert files.read(KEY) is None


def test_folder_that_is_a_link_is_not_followed(files, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", files.folder)
    files.write(KEY, b"content")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert files.read(KEY) is None


def test_those_written_longest_ago_are_removed(files):
    keys = [digest_bytes(bytes([i])).hex() for i in range(6)]
    for i, key in enumerate(keys):
        files.write(key, bytes(200))
        for name in os.listdir(files.folder):
            path = os.path.join(files.folder, name)
            if name == key[:32]:
                os.utime(path, (i, i))
    kept = [files.read(key) is not None for key in keys]
    assert kept == [False, False, False, True, True, True]


def test_a_folder_that_cannot_be_made_costs_nothing(tmp_path):
    (tmp_path / "cache").write_text("a file")
    files = SideFiles(find_directory(tmp_path / "cache"), "notes", 1000, 400)
    files.write(KEY, b"content")
    assert files.read(KEY) is None


def test_clearing_a_cache_forgets_its_notes(directory, cache):
    notes = cache.open().notes
    notes.write(KEY, b"content")
    assert cache.open().notes.read(KEY) == b"content"
    cache.clear("other*")
    assert notes.read(KEY) == b"content"
    cache.clear()
    assert notes.read(KEY) is None
    assert FeatureCache(directory).check().ok
    assert open_cache(None).open().notes is None
    assert open_cache({}).open().notes.folder == FeatureCache().open().notes.folder


def test_other_files_in_the_folder_stay(directory, cache):
    """The user may have named a directory that has a folder "notes" already."""
    own = directory / "notes" / "thesis.txt"
    own.parent.mkdir(parents=True)
    own.write_bytes(bytes(2000))
    os.utime(own, (0, 0))
    files = SideFiles(find_directory(directory), "notes", 1000, 400)
    files.write(KEY, b"content")
    assert files.read(KEY) == b"content"
    cache.clear()
    assert os.listdir(own.parent) == ["thesis.txt"]
