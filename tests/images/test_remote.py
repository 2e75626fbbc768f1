"""Addresses through fsspec: real file systems, a real web server, real errors."""

import functools
import http.server
import os
import pickle
import socket
import sys
import threading
import time
import types
import zipfile

import fsspec
import numpy as np
import pytest
from child import drop_privileges, in_child
from fsspec.implementations.memory import MemoryFileSystem
from object_store import s3_options, s3_server  # noqa: F401

from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import ThreadPool, _download_buffer, make_image_source

N = 12


class CountedFileSystem(MemoryFileSystem):
    """A memory of its own that counts what is asked of it, slowly on request."""

    protocol = "counted"
    store = {}
    pseudo_dirs = [""]
    reads = []
    looks = []
    tags = True
    seconds = 0.0
    n_together, are_together = 0, threading.Event()
    at_once = most_at_once = 0
    guard = threading.Lock()

    @classmethod
    def forget(cls):
        cls.reads.clear(), cls.looks.clear()
        cls.tags, cls.seconds, cls.most_at_once = True, 0.0, 0
        cls.n_together = 0

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("counted://"))

    def info(self, path, **kwargs):
        type(self).looks.append(self._strip_protocol(path))
        found = super().info(path, **kwargs)
        if self.tags and found["type"] == "file":
            found["ETag"] = digest_bytes(self.store[found["name"]].getvalue()).hex()
        return found

    def cat_file(self, path, start=None, end=None, **kwargs):
        cls = type(self)
        with self.guard:
            cls.reads.append(self._strip_protocol(path))
            cls.at_once += 1
            cls.most_at_once = max(cls.most_at_once, cls.at_once)
            if cls.at_once >= cls.n_together:
                cls.are_together.set()
        try:
            time.sleep(cls.seconds)
            assert cls.are_together.wait(240)
            return super().cat_file(path, start, end, **kwargs)
        finally:
            with self.guard:
                cls.at_once -= 1


@pytest.fixture
def counted():
    """Return the class of the file system behind ``counted://``, empty."""
    fsspec.register_implementation("counted", CountedFileSystem, clobber=True)
    CountedFileSystem.store.clear()
    CountedFileSystem.forget()
    return CountedFileSystem


@pytest.fixture
def contents(encode):
    """Return {name: bytes} of different images."""
    rng = np.random.default_rng(0)
    return {
        f"folder/{i:02}.png": encode(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        for i in range(N)
    }


@pytest.fixture
def addresses(counted, contents):
    """Return the addresses of these images on ``counted://``."""
    for name, data in contents.items():
        counted().pipe_file(f"/{name}", data)
    return [f"counted://{name}" for name in contents]


def set_clock(monkeypatch, seconds):
    """Have the module that judges times of change look at a clock that is fast."""
    clock = types.SimpleNamespace(time=lambda: time.time() + seconds)
    monkeypatch.setattr("skdeepfeat.images._remote_version.time", clock)


def source_of(X, **options):
    return make_image_source(X, storage_options=options)


# -- Every way to reach a file


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; some names have a status of their own."""

    def log_message(self, *args):
        pass

    def end_headers(self):
        # fsspec hands on Last-Modified in its later versions only.
        self.send_header("ETag", f'"{digest_bytes(self.path.encode()).hex()}"')
        super().end_headers()

    def send_head(self):
        name = os.path.basename(self.path)
        if name.startswith("status-"):
            self.send_error(int(name.split("-")[1]))
            return None
        return super().send_head()


@pytest.fixture
def web_server(tmp_path):
    """Return (address, folder) of a web server."""
    pytest.importorskip("aiohttp", reason="http:// needs aiohttp")
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def at_memory(request, contents):
    fs = fsspec.filesystem("memory")
    for name, data in contents.items():
        fs.pipe_file(f"/remote-test/{name}", data)
    request.addfinalizer(lambda: fs.rm("/remote-test", recursive=True))
    return "memory://remote-test/{}", {}


def at_file(request, contents):
    folder = request.getfixturevalue("tmp_path")
    write_files(folder, contents)
    return f"file://{folder}/{{}}", {}


def at_zip(request, contents):
    path = request.getfixturevalue("tmp_path") / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return f"zip://{{}}::{path}", {}


def at_zip_in_memory(request, contents):
    address, _ = at_zip(request, contents)
    fs = fsspec.filesystem("memory")
    with open(address.partition("::")[2], "rb") as file:
        fs.pipe_file("/remote-test.zip", file.read())
    request.addfinalizer(lambda: fs.rm("/remote-test.zip"))
    return "zip://{}::memory://remote-test.zip", {}


def at_cache(request, contents):
    address, options = at_memory(request, contents)
    return f"simplecache::{address}", options


def at_web(request, contents):
    server, folder = request.getfixturevalue("web_server")
    write_files(folder, contents)
    return f"{server}/{{}}", {}


def at_s3(request, contents):
    options = request.getfixturevalue("s3_options")
    fs = fsspec.filesystem("s3", skip_instance_cache=True, **options)
    fs.pipe({f"bucket/{name}": data for name, data in contents.items()})
    return "s3://bucket/{}", options


def at_s3_by_protocol(request, contents):
    address, options = at_s3(request, contents)
    return address, {"s3": options}


def write_files(folder, contents):
    for name, data in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


PLACES = [
    at_memory,
    at_file,
    at_zip,
    at_zip_in_memory,
    at_cache,
    at_web,
    pytest.param(at_s3, marks=pytest.mark.slow),
    pytest.param(at_s3_by_protocol, marks=pytest.mark.slow),
]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__[3:])
def place(request, contents):
    """Return (format of addresses, storage_options) of a place with the images."""
    return request.param(request, contents)


def test_rows_are_those_of_the_bytes(place, contents):
    address, options = place
    X = [address.format(name) for name in contents]
    source = source_of(X, **options)
    digests, failures = source.digests()
    assert failures == {}
    assert digests == [digest_bytes(data) for data in contents.values()]
    in_memory = make_image_source(list(contents.values()))
    for i in range(N):
        np.testing.assert_array_equal(source.pixels(i), in_memory.pixels(i))
    assert source.describe(3) == X[3]


def test_a_missing_file_is_one_bad_image(place, contents):
    address, options = place
    names = list(contents)
    X = [address.format(name) for name in (names[0], "folder/none.png", names[1])]
    source = source_of(X, **options)
    digests, failures = source.digests()
    assert [digest is None for digest in digests] == [False, True, False]
    assert list(failures) == [1]
    assert "there is no such file at this address" in failures[1].cause
    assert (failures[1].index, failures[1].origin) == (1, X[1])
    with pytest.raises(BadImageError, match="no such file") as caught:
        source.pixels(1)
    assert caught.value.index == 1
    assert source.pixels(2).shape == (4, 5, 3)


@pytest.mark.parametrize("start", ["zip://", "simplecache::zip://", "file://"])
def test_relative_addresses_are_read_from_another_folder(
    contents, tmp_path, monkeypatch, start
):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    X = [f"{start}{name}::../all.zip" for name in contents]
    if start == "file://":
        X = [f"file://../{name}" for name in contents]
    source = source_of([*X, X[0].replace("00.png", "no.png")])
    digests, failures = source.digests()
    assert digests == [*map(digest_bytes, contents.values()), None]
    assert failures[N].origin == source.path(N) == X[0].replace("00.png", "no.png")
    part = source.part(np.arange(N))
    for each in (part, pickle.loads(pickle.dumps(part))):
        monkeypatch.chdir(tmp_path / "here")
        expected = [source.pixels(i) for i in range(N)]
        monkeypatch.chdir(tmp_path / "elsewhere")
        for i in range(N):
            np.testing.assert_array_equal(each.pixels(i), expected[i])
        assert [each.path(i) for i in range(N)] == X


def test_a_folder_is_not_an_image(place, contents):
    address, options = place
    if address.startswith("http"):
        return  # the web has no folders; what it shows of one is a page
    _, failures = source_of([address.format("folder")], **options).digests()
    assert list(failures) == [0]


def test_files_known_to_the_index_are_not_read(
    place, contents, file_index, monkeypatch
):
    address, options = place
    # Times of change count only when they are a minute old.
    set_clock(monkeypatch, 3600)
    X = [address.format(name) for name in contents]
    first, _ = source_of(X, **options).digests(file_index)
    is_trusted = not address.startswith("simplecache")
    assert len(file_index.remembered) == is_trusted * N
    assert not any(
        word in str(file_index.known) for word in ("folder", "testing-secret")
    )
    if not is_trusted:
        return
    monkeypatch.setattr("skdeepfeat.images._remote._read", None)
    again, failures = source_of(X[::-1], **options).digests(file_index)
    assert (again, failures) == (first[::-1], {})


# -- How little is read


def test_a_warm_run_of_a_thousand_files_downloads_nothing(counted, file_index):
    X = [f"counted://many/{i}" for i in range(1000)]
    for i, address in enumerate(X):
        counted().pipe_file(address, b"content %d" % i)
    expected = [digest_bytes(b"content %d" % i) for i in range(1000)]
    assert source_of(X).digests(file_index) == (expected, {})
    assert len(counted.reads) == len(set(counted.reads)) == 1000
    counted.forget()
    assert source_of(X).digests(file_index) == (expected, {})
    assert counted.reads == []
    assert len(counted.looks) == 1000


def test_a_cold_image_is_downloaded_once(addresses, counted):
    source = source_of(addresses + addresses[:3])
    source.digests()
    for i in range(len(source)):
        source.pixels(i)
    assert sorted(counted.reads) == [
        f"/{a.removeprefix('counted://')}" for a in addresses
    ]


def test_what_does_not_fit_the_buffer_is_downloaded_twice(
    addresses, counted, contents, monkeypatch
):
    sizes = [len(data) for data in contents.values()]
    monkeypatch.setattr(_download_buffer, "MAX_BYTES", sum(sizes) // 2)
    source = source_of(addresses)
    source.digests()
    for i in range(N):
        assert source.pixels(i).shape == (4, 5, 3)
    assert N < len(counted.reads) < 2 * N


def test_a_temporary_directory_that_cannot_be_written(addresses, counted, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", _full_disk)
    source = source_of(addresses)
    assert source.digests()[1] == {}
    assert source.pixels(0).shape == (4, 5, 3)


def _full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_downloads_run_side_by_side_and_not_all_at_once(counted):
    X = [f"counted://many/{i}" for i in range(200)]
    for address in X:
        counted().pipe_file(address, b"content")
    # None is over before there are six, which one after the other never are.
    counted.n_together = 6
    counted.are_together.clear()
    source_of(X).digests()
    assert 6 <= counted.most_at_once <= 32


def test_file_systems_that_promise_nothing_are_used_by_one_thread(
    addresses, counted, monkeypatch
):
    """fsspec gives each thread an instance of its own; ours is one for all."""
    monkeypatch.setattr(
        "fsspec.implementations.memory.MemoryFileSystem", MemoryElsewhere
    )
    counted.seconds = 0.002
    assert source_of(addresses).digests()[1] == {}
    assert counted.most_at_once == 1


class MemoryElsewhere:
    """Not the class that is known to be safe."""


@pytest.mark.parametrize("change", ["content", "options"])
def test_another_version_is_read_again(addresses, counted, file_index, change):
    source_of(addresses).digests(file_index)
    counted.forget()
    options = {}
    if change == "content":
        counted().pipe_file(addresses[5], b"changed")
    else:
        options = {"endpoint": "another server"}
    digests, _ = source_of(addresses, **options).digests(file_index)
    assert len(counted.reads) == (1 if change == "content" else N)
    if change == "content":
        assert digests[5] == digest_bytes(b"changed")


@pytest.mark.slow
def test_new_credentials_lead_to_the_same_files(file_index, s3_options, contents):  # noqa: F811
    fs = fsspec.filesystem("s3", skip_instance_cache=True, **s3_options)
    fs.pipe({f"bucket/{name}": data for name, data in contents.items()})
    X = [f"s3://bucket/{name}" for name in contents]
    source_of(X, **s3_options).digests(file_index)
    assert len(file_index.remembered) == N
    others = {**s3_options, "key": "another", "secret": "of today", "token": "x"}
    source_of(X, **others).digests(file_index)
    assert len(file_index.remembered) == N


@pytest.mark.slow
def test_an_object_replaced_in_the_same_process_is_read(s3_options, encode, file_index):  # noqa: F811
    """fsspec remembers listings, with ETags that are those of yesterday."""
    fs = fsspec.filesystem("s3", **s3_options)
    other = fsspec.filesystem("s3", skip_instance_cache=True, **s3_options)
    other.pipe_file("bucket/a.png", b"one")
    fs.ls("bucket", detail=True)
    for content in (b"one", b"two"):
        other.pipe_file("bucket/a.png", content)
        digests, _ = source_of(["s3://bucket/a.png"], **s3_options).digests(file_index)
        assert digests == [digest_bytes(content)]


def test_an_archive_replaced_in_the_same_process_is_read(tmp_path, file_index):
    path = tmp_path / "a.zip"
    for content in (b"one", b"two"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", content)
        os.utime(path, (1_500_000_000 + content[0],) * 2)
        digests, _ = source_of([f"zip://a::{path}"]).digests(file_index)
        assert digests == [digest_bytes(content)]
    assert len(file_index.remembered) == 2


@pytest.mark.parametrize("age, expected", [(3600, N), (30, 0), (-3600, 0)])
def test_times_of_change_count_once_they_are_a_minute_old(
    addresses, counted, file_index, monkeypatch, age, expected
):
    counted.tags = False
    set_clock(monkeypatch, age)
    source_of(addresses).digests(file_index)
    assert len(file_index.remembered) == expected


def test_what_cannot_be_trusted_is_not_remembered(
    addresses, counted, file_index, monkeypatch
):
    class Session:
        pass

    source_of(addresses, session=Session()).digests(file_index)
    assert file_index.remembered == []
    monkeypatch.setattr(counted, "tags", False)
    monkeypatch.setattr(counted, "modified", lambda self, path: None)
    source_of(addresses).digests(file_index)
    assert file_index.remembered == []


def test_weak_tags_are_not_enough(addresses, counted, file_index, monkeypatch):
    original = counted.info

    def weak(self, path, **kwargs):
        return {**original(self, path, **kwargs), "ETag": 'W/"1"'}

    monkeypatch.setattr(counted, "info", weak)
    source_of(addresses).digests(file_index)
    assert file_index.remembered == []


def test_a_file_changed_between_digest_and_pixels(
    addresses, counted, file_index, encode
):
    source_of(addresses).digests(file_index)
    source = source_of(addresses)
    source.digests(file_index)
    counted().pipe_file(addresses[2], encode(np.zeros((9, 9), dtype=np.uint8)))
    with pytest.raises(BadImageError, match="changed while it was being read"):
        source.pixels(2)


@pytest.mark.parametrize("known", [False, True])
def test_every_row_is_reported_once(
    addresses, counted, file_index, known, tmp_path, encode
):
    path = tmp_path / "local.png"
    path.write_bytes(encode(np.zeros((3, 3), np.uint8)))
    X = [*addresses, addresses[0], path, path, "nosuch://a.png", "counted://no.png"]
    if known:
        source_of(X).digests(file_index)
    told = []
    source_of(X).digests(file_index, on_done=told.append)
    assert sum(told) == len(X)


def test_an_interrupted_run_has_remembered_what_it_downloaded(
    addresses, file_index, counted
):
    told = []

    def interrupt(n):
        told.append(n)
        if sum(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source_of(addresses).digests(file_index, on_done=interrupt)
    assert len(file_index.remembered) == 5
    counted.forget()
    source_of(addresses).digests(file_index)
    assert len(counted.reads) == N - 5


def test_a_slow_file_keeps_none_from_being_remembered(
    addresses, counted, file_index, monkeypatch
):
    monkeypatch.setattr("skdeepfeat.images._files._SECONDS", 0.0)
    released, original = threading.Event(), counted.cat_file

    def cat_file(self, path, *args, **kwargs):
        if path.endswith("00.png"):
            assert released.wait(240)
        return original(self, path, *args, **kwargs)

    def release(n):
        if len(file_index.remembered) == N - 1:
            released.set()

    monkeypatch.setattr(counted, "cat_file", cat_file)
    source_of(addresses).digests(file_index, on_done=release)
    assert released.is_set() and len(file_index.remembered) == N


def test_an_interruption_does_not_wait_for_all_downloads(
    counted, file_index, monkeypatch
):
    X = [f"counted://many/{i}" for i in range(400)]
    for address in X:
        counted().pipe_file(address, b"content")
    cancelled, original = threading.Event(), counted.cat_file

    class Pool(ThreadPool):
        def abandon(self):
            super().abandon()
            cancelled.set()

    def interrupted(self, path, *args, **kwargs):
        number = int(path.rpartition("/")[2])
        if number == 40:
            raise KeyboardInterrupt
        assert number < 40 or cancelled.wait(240)
        return original(self, path, *args, **kwargs)

    monkeypatch.setattr("skdeepfeat.images._remote.ThreadPool", Pool)
    monkeypatch.setattr(counted, "cat_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source_of(X).digests(file_index)
    # Those before it, and those that were on their way.
    assert len(counted.reads) <= 40 + 32


# -- Never without being asked


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/a.jpg",
        "https://a.org/b.jpg",
        "counted://a.jpg",
        "zip://a.jpg::/tmp/x.zip",
        "simplecache::s3://bucket/a.jpg",
    ],
)
def test_without_storage_options_nothing_is_opened(address, counted, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("fsspec was asked")

    monkeypatch.setattr("skdeepfeat.images._remote.open_place", refuse)
    source = make_image_source([address])
    _, failures = source.digests()
    assert "pass storage_options={} to have fsspec read it" in failures[0].cause
    with pytest.raises(BadImageError, match="only on request"):
        source.pixels(0)


def test_paths_stay_paths(tmp_path, contents, addresses):
    write_files(tmp_path, contents)
    X = [tmp_path / name for name in contents] + addresses + list(contents.values())
    digests, failures = source_of(X).digests()
    assert failures == {}
    assert digests[:N] == digests[N : 2 * N] == digests[2 * N :]


@pytest.mark.parametrize("wrong", [True, "anon", [], {1: 2}, ("secret",)])
def test_storage_options_are_checked_and_not_shown(wrong):
    with pytest.raises(ValueError, match="'storage_options' parameter") as caught:
        make_image_source(["a.jpg"], storage_options=wrong)
    assert "secret" not in str(caught.value)


def test_the_users_dict_is_left_as_it_is(s3_options, contents):  # noqa: F811
    fs = fsspec.filesystem("s3", skip_instance_cache=True, **s3_options)
    fs.pipe_file("bucket/a.zip", b"no archive")
    options = {"s3": {**s3_options}, "file": {"auto_mkdir": False}}
    before = repr(options)
    source_of(["s3://bucket/a.zip", "zip://a::s3://bucket/a.zip"], **options).digests()
    assert repr(options) == before


# -- Faults


def failure_of(address, **options):
    _, failures = source_of([address], **options).digests()
    return failures[0].cause


def test_unknown_protocols_are_explained_once(contents):
    X = ["memoy://a.jpg", *[f"memoy://{i}.jpg" for i in range(3)], b"", "x5://a"]
    _, failures = source_of(X).digests()
    assert list(failures) == list(range(6))
    cause = "fsspec knows no protocol 'memoy'. Did you mean 'memory'"
    assert cause in failures[0].cause
    for row in (1, 2, 3):
        assert failures[row].cause == (
            "its file system cannot be used, for the reason given for memoy://a.jpg"
        )
    assert "no protocol 'x5'" in failures[5].cause
    with pytest.raises(BadImageError, match="Did you mean 'memory'"):
        source_of(X).pixels(3)


def test_a_protocol_whose_package_is_missing():
    fsspec.register_implementation(
        "absent", "no_such_package.FileSystem", errtxt="Install absentfs for absent://"
    )
    cause = failure_of("absent://a.jpg")
    assert "needs a package that is not installed: Install absentfs" in cause


def test_extra_for_web_addresses(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    for name in ("http", "https"):
        monkeypatch.delitem(
            sys.modules["fsspec.registry"]._registry, name, raising=False
        )
    cause = failure_of("https://127.0.0.1:9/a.jpg")
    assert "pip install 'skdeepfeat[remote]'" in cause


def test_options_that_do_not_fit():
    class Strict(MemoryFileSystem):
        protocol = "strict"

        def __init__(self, only=None):
            super().__init__()

    fsspec.register_implementation("strict", Strict, clobber=True)
    cause = failure_of("strict://a.jpg", wrong=1, secret="HUSH")
    assert "storage_options do not fit the protocol 'strict'" in cause
    assert "HUSH" not in cause


@pytest.mark.parametrize(
    "status, words",
    [(403, "no permission"), (401, "no permission"), (404, "no such"), (500, "500")],
)
def test_what_a_web_server_says(web_server, status, words):
    assert words in failure_of(f"{web_server[0]}/status-{status}")


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cause = failure_of(f"http://127.0.0.1:{port}/a.jpg")
    assert cause.startswith("the connection failed")


@pytest.mark.slow
def test_no_permission_in_a_bucket(s3_options, monkeypatch):  # noqa: F811
    import s3fs

    async def refuse(self, *args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", refuse)
    cause = failure_of("s3://bucket/a.jpg", **s3_options)
    assert "no permission to read it (Access Denied)" in cause
    assert "storage_options={'anon': True}" in cause


def test_no_credentials(s3_server, monkeypatch):  # noqa: F811
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    cause = failure_of("s3://bucket/a.jpg", client_kwargs={"endpoint_url": s3_server})
    assert "credentials" in cause and "storage_options={'anon': True}" in cause


@pytest.mark.slow
def test_a_file_without_permission(tmp_path):
    def read():
        (tmp_path / "a.png").write_bytes(b"content")
        (tmp_path / "a.png").chmod(0)
        drop_privileges()
        assert "no permission" in failure_of(f"file://{tmp_path}/a.png")

    in_child(read)


def test_hugging_face_without_a_connection():
    cause = failure_of("hf://datasets/nobody/nothing/a.jpg")
    assert cause.startswith("the connection failed")


def test_an_archive_that_is_none(tmp_path):
    (tmp_path / "a.zip").write_text("no archive")
    assert "BadZipFile" in failure_of(f"zip://a::{tmp_path}/a.zip")
    assert "no such file" in failure_of(f"zip://a::{tmp_path}/none.zip")


def test_an_empty_file(counted):
    counted().pipe_file("/empty.jpg", b"")
    assert failure_of("counted://empty.jpg") == "it is empty (0 bytes)"


def test_damaged_content_fails_in_pixels_with_its_row(counted):
    counted().pipe_file("/text.jpg", b"no image at all")
    source = source_of(["counted://text.jpg"])
    assert source.digests()[1] == {}
    with pytest.raises(BadImageError, match="not an image") as caught:
        source.pixels(0)
    assert (caught.value.index, caught.value.origin) == (0, "counted://text.jpg")


def test_without_fsspec(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"skdeepfeat\[remote\]"):
        source_of(["s3://bucket/a.jpg"]).digests()
    assert source_of([b"bytes need none"]).digests()[1] == {}


# -- Elsewhere


def test_a_pickled_part_opens_its_own_connections(addresses, contents, counted):
    source = source_of(addresses)
    digests, _ = source.digests()
    part = pickle.loads(pickle.dumps(source.part([7, 2])))
    assert part.digests()[0] == [digests[7], digests[2]]
    np.testing.assert_array_equal(part.pixels(1), source.pixels(2))


def test_a_member_of_an_archive_that_becomes_large(tmp_path):
    """70 kB become 70 MB, whatever the archive says."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(70 * 10**6))
    source = make_image_source(
        [f"zip://a.png::{path}"], max_pixels=1, storage_options={}
    )
    _, failures = source.digests()
    assert f"more than {2**26 + 8} bytes" in failures[0].cause
