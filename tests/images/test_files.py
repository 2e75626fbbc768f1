"""Files: their digests, the index of digests, and real errors."""

import errno
import os
import pathlib
import socket
import time

import numpy as np
import pytest
from child import drop_privileges, in_child

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source

LONG_AGO = 1_500_000_000


def write(path, data, mtime=LONG_AGO):
    path.write_bytes(data)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return str(path)


@pytest.fixture
def photos(tmp_path, encode):
    """Return the paths of 40 different PNG files, not touched for years."""
    rng = np.random.default_rng(0)
    paths = [
        write(
            tmp_path / f"{i:02d}.png",
            encode(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)),
        )
        for i in range(40)
    ]
    time.sleep(0.03)  # longer than a tick of the clock that ctime is read from
    return paths


@pytest.fixture
def opened(monkeypatch):
    """Record which files are opened for reading."""
    paths = []
    original = os.open

    def spy(path, *args, **kwargs):
        paths.append(path)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    return paths


def content_digests(paths):
    return [digest_bytes(pathlib.Path(path).read_bytes()) for path in paths]


class TestDigests:
    @pytest.mark.parametrize("n_cores", [1, 3, 64])
    def test_they_are_those_of_the_content_in_order(self, photos, n_cores, monkeypatch):
        monkeypatch.setattr("joblib.cpu_count", lambda: n_cores)
        digests, failures = make_image_source(photos).digests()
        assert digests == content_digests(photos)
        assert failures == {}

    def test_a_path_and_its_bytes_share_a_row(self, photos):
        data = pathlib.Path(photos[0]).read_bytes()
        X = [photos[0], data, bytearray(data), memoryview(data)]
        digests, _ = make_image_source(X).digests()
        assert len(set(digests)) == 1

    def test_a_file_named_twice_is_read_once(self, photos, opened):
        X = [photos[3], photos[1], photos[3], photos[3]]
        digests, _ = make_image_source(X).digests()
        assert digests == content_digests(X)
        assert sorted(opened) == [photos[1], photos[3]]


class TestFileIndex:
    def test_known_files_are_not_opened_again(self, photos, file_index, opened):
        first, _ = make_image_source(photos).digests(file_index)
        assert sorted(opened) == photos
        assert sorted(file_index.remembered) == photos
        opened.clear()
        second, _ = make_image_source(photos[::-1]).digests(file_index)
        assert second == first[::-1]
        assert opened == []

    def test_files_are_looked_up_in_parts(self, photos, file_index, monkeypatch):
        from skdeepfeat.images import _files

        monkeypatch.setattr(_files, "_LOOKED_UP_AT_ONCE", 3)
        first, _ = make_image_source(photos).digests(file_index)
        asked, lookup = [], file_index.lookup

        def counted(stats):
            asked.append(len(stats))
            return lookup(stats)

        monkeypatch.setattr(file_index, "lookup", counted)
        X = [*photos[::-1], photos[0] + "-none", photos[1]]
        found, failures = make_image_source(X).digests(file_index)
        assert found == [*first[::-1], None, first[1]]
        assert list(failures) == [len(photos)]
        assert max(asked) <= 3
        assert sum(asked) == len(photos)

    def test_relative_paths_are_remembered_as_absolute(
        self, photos, file_index, opened, tmp_path, monkeypatch
    ):
        make_image_source(photos).digests(file_index)
        opened.clear()
        monkeypatch.chdir(tmp_path)
        X = [os.path.basename(path) for path in photos]
        digests, failures = make_image_source(X).digests(file_index)
        assert digests == content_digests(photos)
        assert failures == {}
        assert opened == []

    @pytest.mark.parametrize("change", ["size", "mtime", "inode", "ctime"])
    def test_a_changed_file_is_read_again(self, photos, file_index, opened, change):
        make_image_source(photos).digests(file_index)
        opened.clear()
        path, data = photos[7], pathlib.Path(photos[7]).read_bytes()
        if change == "size":
            write(pathlib.Path(path), data + b"more")
        elif change == "mtime":
            os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))
        elif change == "ctime":  # as `cp --preserve` leaves it: all else is the same
            write(pathlib.Path(path), data[::-1])
        else:
            other = f"{path}.new"
            write(pathlib.Path(other), data[::-1])
            os.replace(other, path)
        digests, _ = make_image_source(photos).digests(file_index)
        assert digests == content_digests(photos)
        assert opened == [path]

    @pytest.mark.parametrize("age", [0.0, 1.0, -3600.0])
    def test_a_file_of_this_moment_is_not_remembered(
        self, tmp_path, encode, file_index, age
    ):
        """It may change again within the same tick of the file system's clock."""
        data = encode(np.zeros((2, 2), dtype=np.uint8))
        path = write(tmp_path / "new.png", data, time.time() - age)
        digests, _ = make_image_source([path]).digests(file_index)
        assert digests == [digest_bytes(data)]
        assert file_index.remembered == []

    def test_a_racy_change_is_seen(self, tmp_path, encode, file_index):
        now = time.time()
        path = write(tmp_path / "a.bin", b"one", now)
        before, _ = make_image_source([path]).digests(file_index)
        with open(path, "r+b") as file:  # same inode, same size, same mtime
            file.write(b"two")
        os.utime(path, (now, now))
        after, _ = make_image_source([path]).digests(file_index)
        assert before == [digest_bytes(b"one")]
        assert after == [digest_bytes(b"two")]

    def test_bad_files_are_not_remembered(self, tmp_path, file_index):
        X = [write(tmp_path / "empty.jpg", b""), str(tmp_path / "none.jpg")]
        for _ in range(2):
            digests, failures = make_image_source(X).digests(file_index)
            assert digests == [None, None]
            assert sorted(failures) == [0, 1]
        assert file_index.remembered == []

    def test_an_interrupted_run_has_remembered_what_it_read(
        self, photos, file_index, monkeypatch
    ):
        from skdeepfeat.images import _files

        monkeypatch.setattr(_files, "_SECONDS", 0.0)
        remember = file_index.remember

        def interrupted(stats, digests):
            remember(stats, digests)
            if len(file_index.remembered) >= 20:
                raise KeyboardInterrupt

        file_index.remember = interrupted
        with pytest.raises(KeyboardInterrupt):
            make_image_source(photos).digests(file_index)
        assert sorted(file_index.remembered) == photos[:20]


class TestPixels:
    def test_a_file_changed_between_digest_and_pixels(self, photos, encode):
        source = make_image_source(photos)
        source.digests()
        write(pathlib.Path(photos[5]), encode(np.zeros((9, 9), dtype=np.uint8)))
        with pytest.raises(BadImageError, match="changed while it was being read"):
            source.pixels(5)
        assert source.pixels(4).shape == (4, 5, 3)

    def test_a_wrong_index_does_not_give_wrong_features(self, photos, file_index):
        source = make_image_source(photos)
        source.digests(file_index)
        for stat in file_index.known:
            file_index.known[stat] = digest_bytes(b"something else")
        source = make_image_source(photos)
        source.digests(file_index)
        with pytest.raises(BadImageError, match="changed while it was being read"):
            source.pixels(0)

    def test_without_digests_the_file_is_just_read(self, photos):
        assert make_image_source(photos).pixels(3).shape == (4, 5, 3)


def assert_fails(element, words, origin=None):
    """Check the failure in `digests` and in `pixels`, in the middle of good rows."""
    good = np.zeros((2, 2), dtype=np.uint8)
    source = make_image_source([good, element, good])
    digests, failures = source.digests()
    assert list(failures) == [1]
    assert digests[0] == digests[2] is not None
    assert digests[1] is None
    with pytest.raises(BadImageError) as caught:
        source.pixels(1)
    for error in (failures[1], caught.value):
        assert words in error.cause
        assert error.index == 1
        assert error.origin == (str(element) if origin is None else origin)
        assert str(error).startswith("index 1, ")


class TestFaults:
    def test_missing_file(self, tmp_path):
        assert_fails(str(tmp_path / "no.jpg"), "no such file")
        assert_fails(tmp_path / "no.jpg", "no such file")
        assert_fails("no/such/relative.jpg", "no such file")

    def test_a_file_taken_for_a_folder(self, photos):
        assert_fails(f"{photos[0]}/a.jpg", "no such file")

    def test_folder(self, tmp_path):
        assert_fails(str(tmp_path), "it is a folder (load_image_folder")

    @pytest.mark.timeout(20)
    def test_a_pipe_is_refused_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert_fails(str(tmp_path / "pipe.jpg"), "it is a named pipe")

    @pytest.mark.timeout(20)
    def test_a_file_that_turns_into_a_pipe_as_it_is_opened(self, photos, monkeypatch):
        original = os.open

        def swap_and_open(path, *args, **kwargs):
            os.unlink(path)
            os.mkfifo(path)
            return original(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", swap_and_open)
        with pytest.raises(BadImageError, match="named pipe"):
            make_image_source(photos).pixels(0)

    @pytest.mark.timeout(20)
    def test_devices(self):
        assert_fails("/dev/zero", "it is a device")

    def test_socket(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # a socket's name must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.jpg")
            assert_fails("socket.jpg", "it is a socket")

    def test_no_permission(self, tmp_path, encode, rgb):
        content = encode(rgb)

        def read():
            paths = [write(tmp_path / f"{name}.png", content) for name in "ab"]
            os.chmod(paths[0], 0)
            drop_privileges()
            assert_fails(paths[0], "no permission")
            assert make_image_source([paths[1]]).pixels(0).shape == rgb.shape

        in_child(read)

    def test_link_to_itself(self, tmp_path):
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        assert_fails(str(tmp_path / "loop.jpg"), os.strerror(errno.ELOOP))

    def test_empty_file_and_empty_path(self, tmp_path):
        assert_fails(write(tmp_path / "a.jpg", b""), "empty (0 bytes)")
        assert_fails("", "the path is empty", "an empty path")
        assert_fails(b"", "empty (0 bytes)", "encoded bytes")

    @pytest.mark.parametrize("path", ["a\0b.jpg", "x" * 5000, "\udcff.jpg"])
    def test_impossible_paths(self, path):
        digests, failures = make_image_source([path]).digests()
        assert digests == [None]
        assert failures[0].index == 0

    @pytest.mark.parametrize(
        "path", ["http://a.org/b.jpg", "https://a.org/b.jpg", "s3://bucket/b.jpg"]
    )
    def test_urls(self, path):
        assert_fails(path, "remote paths are read only on request")

    def test_file_urls(self, photos):
        assert_fails(f"file://{photos[0]}", "without 'file://'")

    def test_home_is_not_expanded_but_mentioned(self, photos, monkeypatch):
        monkeypatch.setenv("HOME", os.path.dirname(photos[0]))
        assert_fails("~/00.png", "'~' is not expanded: use os.path.expanduser")
        with pytest.raises(AssertionError):
            assert_fails("~/none.png", "expanduser")
        assert_fails("~/none.png", "no such file")

    def test_a_file_with_a_tilde_in_its_name_is_an_ordinary_file(
        self, tmp_path, encode, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        data = encode(np.zeros((2, 2), dtype=np.uint8))
        for name in ("~", "a~", "~a.png"):
            write(tmp_path / name, data)
        source = make_image_source(["~", "a~", "~a.png"])
        assert source.digests() == ([digest_bytes(data)] * 3, {})

    def test_damaged_content_fails_in_pixels_with_its_row(self, tmp_path, encode):
        data = encode(np.zeros((50, 50, 3), dtype=np.uint8), "JPEG")
        path = write(tmp_path / "cut.jpg", data[: len(data) // 2])
        source = make_image_source([np.zeros((2, 2), dtype=bool), path])
        digests, failures = source.digests()
        assert failures == {}
        assert digests[1] == digest_bytes(data[: len(data) // 2])
        with pytest.raises(BadImageError, match="truncated") as caught:
            source.pixels(1)
        assert (caught.value.index, caught.value.origin) == (1, path)
        assert caught.value.__cause__ is not None

    def test_a_deleted_working_folder(self, photos, tmp_path):
        folder = tmp_path / "gone"

        def read():
            folder.mkdir()
            os.chdir(folder)
            folder.rmdir()
            source = make_image_source(["a.jpg", photos[0]])
            digests, failures = source.digests()
            assert list(failures) == [0]
            assert digests[1] is not None
            assert source.pixels(1).shape == (4, 5, 3)

        in_child(read)


class Unlucky(os.PathLike):
    """A path that a user's class cannot give."""

    def __init__(self, error):
        self.error = error

    def __fspath__(self):
        raise self.error


@pytest.mark.parametrize("error", [OSError("not mounted"), KeyError("bucket")])
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in a dict"])
def test_a_path_object_that_fails_is_one_bad_image(photos, error, wrapped):
    path = Unlucky(error)
    source = make_image_source([photos[0], {"path": path} if wrapped else path])
    digests, failures = source.digests()
    assert digests == [*content_digests(photos[:1]), None]
    assert source.path(1) is None
    for found in (failures[1], pytest.raises(BadImageError, source.pixels, 1).value):
        assert (found.index, found.origin) == (1, source.describe(1))
        assert str(error.args[0]) in str(found)
        assert type(error).__name__ in str(found)
