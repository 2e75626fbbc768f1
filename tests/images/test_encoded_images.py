"""Encoded images in base64, dicts and open files have the digests of their files."""

import base64
import io
import pickle
import tempfile
import textwrap
import threading
import tracemalloc
import urllib.parse
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import _encoded_images, make_image_source
from skdeepfeat.images._encoded_images import decode_data_uri
from skdeepfeat.images._image_limits import max_bytes
from skdeepfeat.images._thread_pool import Share


@pytest.fixture
def data(rgb, encode):
    return encode(rgb, "JPEG")


@pytest.fixture
def path(tmp_path, data):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    return str(path)


def text_of(data):
    return base64.b64encode(data).decode()


WRAPPINGS = {
    "base64": text_of,
    "base64 in lines": lambda data: base64.encodebytes(data).decode(),
    "base64 in long lines": lambda data: "\r\n  ".join(
        textwrap.wrap(text_of(data), 128)
    ),
    "base64 of a command line": lambda data: f" {text_of(data)}\n",
    "base64 for URLs": lambda data: base64.urlsafe_b64encode(data).decode(),
    "base64 as bytes": base64.b64encode,
    "base64 as bytes in lines": lambda data: bytearray(base64.encodebytes(data)),
    "data URI as bytes": lambda data: f"data:;base64,{text_of(data)}".encode(),
    "data URI with spaces": lambda data: " data:image/jpeg; charset=utf-8; base64, "
    + text_of(data),
    "data URI": lambda data: f"data:image/jpeg;base64,{text_of(data)}",
    "data URI without a type": lambda data: f"data:;base64,{text_of(data)}",
    "data URI without padding": lambda data: "dAtA:image/jpeg;BASE64,"
    + text_of(data).rstrip("="),
    "data URI in percents": lambda data: "data:image/jpeg,"
    + urllib.parse.quote_from_bytes(data),
    "quoted data URI": lambda data: "data:image/jpeg;base64,"
    + urllib.parse.quote(text_of(data), safe=""),
    "dict": lambda data: {"bytes": data, "path": None},
    "dict with a name": lambda data: {"bytes": data, "path": "elsewhere/a.jpg"},
    "dict of bytes alone": lambda data: {"bytes": data},
    "BytesIO": io.BytesIO,
}


def one(element, **options):
    """Return the source, digest and failure of one image among others."""
    good = np.zeros((2, 2), np.uint8)
    source = make_image_source([good, element, good], **options)
    digests, failures = source.digests()
    assert set(failures) <= {1}
    return source, digests[1], failures.get(1)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_images_share_the_row_of_the_file(wrapping, data, path):
    source, digest, failure = one(WRAPPINGS[wrapping](data))
    assert failure is None
    assert digest == digest_bytes(data)
    expected = make_image_source([path]).pixels(0)
    np.testing.assert_array_equal(source.pixels(1), expected)
    part = pickle.loads(pickle.dumps(source.part(np.array([1]))))
    np.testing.assert_array_equal(part.pixels(0), expected)


@pytest.mark.parametrize("element", [{"bytes": None, "path": "P"}, {"path": "P"}])
def test_the_path_in_a_dict(element, data, path):
    source, digest, _ = one({**element, "path": path})
    assert digest == digest_bytes(data)
    assert source.path(1) == source.describe(1) == path
    assert source.pixels(1).shape == (13, 17, 3)


def test_columns_of_hugging_face(data, path):
    cells = [{"bytes": data, "path": "a.jpg"}, {"bytes": None, "path": path}]
    for X in (
        cells,
        pd.Series(cells),
        pd.DataFrame({"image": cells}),
        pl.Series(cells),
        pl.DataFrame({"image": cells}),
        np.array(cells, dtype=object),
    ):
        digests, failures = make_image_source(X).digests()
        assert (digests, failures) == ([digest_bytes(data)] * 2, {})


# -- A text is a path, or an image


def test_a_file_goes_before_base64(tmp_path, data, encode, gray, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = text_of(encode(gray[:2, :2], "BMP"))[:40].replace("/", "A")
    (tmp_path / name).write_bytes(data)
    assert one(name)[1] == digest_bytes(data)


def test_a_data_uri_is_never_a_path(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data:,abc").write_bytes(data)
    source, digest, _ = one("data:,abc")
    assert digest == digest_bytes(b"abc")
    with pytest.raises(BadImageError, match="not an image"):
        source.pixels(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-3],  # no whole number of bytes
        lambda text: f"{text[:-8]}****{text[-4:]}",
        lambda text: text_of(b"no image at all, but a text of some length"),
        lambda text: text[:20],
    ],
)
def test_what_is_not_base64_is_a_missing_file(change, data):
    text = change(text_of(data))
    _, digest, failure = one(text)
    assert digest is None
    assert failure.cause == "there is no such file"
    assert failure.origin.strip("'").startswith(text[:20])
    assert len(str(failure)) < 300


@pytest.mark.parametrize("text", ["A" * 3_000_000, "/9j/" + "*" * 3_000_000])
def test_a_long_text_is_not_shown(text):
    source, _, failure = one(text)
    assert len(str(failure)) < 300
    assert "neither the path of a file nor an image in base64" in failure.cause
    assert source.path(1) is None
    with pytest.raises(BadImageError) as caught:
        source.pixels(1)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ("data:image/png", "no comma"),
        ("data:image/png;base64,!!!!", "base64 of the data URI is damaged"),
        ("data:image/png;base64,", "empty (0 bytes)"),
        ({"file": b"", 1: 2}, "Got the keys ['file', 1]"),
        ({"bytes": [1, 2]}, "Got list"),
        ({"bytes": None, "path": None}, "missing value"),
        ({"bytes": b""}, "empty (0 bytes)"),
        ({"bytes": None, "path": "no.jpg"}, "there is no such file"),
    ],
)
def test_what_is_wrong_with_a_wrapping(element, words):
    source, digest, failure = one(element)
    assert digest is None
    assert words in failure.cause
    with pytest.raises(BadImageError) as caught:
        source.pixels(1)
    assert words in caught.value.cause


class Failing:
    """Raises an error for every attribute, like a proxy whose connection is lost."""

    def __getattr__(self, name):
        raise RuntimeError("a" * 10**6)


class FailingArray:
    def __array__(self, *args, **kwargs):
        raise OSError("a" * 10**6)


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it a prototype
        return torch.nested.nested_tensor([torch.zeros(3, 4)])


def released():
    view = memoryview(bytearray(b"ab"))
    view.release()
    return view


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Failing, "Got a Failing"),
        (FailingArray, "it cannot be converted to an array (OSError: 'aaa"),
        (released, "its bytes cannot be read"),
        (lambda: torch.eye(3).to_sparse(), "it cannot be converted to an array"),
        (lambda: torch.zeros(3, 3, device="meta"), "cannot be converted to an array"),
        (lambda: np.zeros((2, 2), [(f"a{i}", "u1") for i in range(999)]), "dtype [("),
        (lambda: type("A" * 10**6, (), {})(), "Got an AAA"),
        (lambda: np.frombuffer(b"ab", np.uint8), "use image.tobytes()"),
        (lambda: np.array("a.jpg"), "use image.item()"),
        (nested, "cannot be converted to an array"),
    ],
)
def test_any_object_is_a_failure_of_its_own_row(make, words):
    source, digest, failure = one(make())
    assert digest is None
    assert words in failure.cause and len(str(failure)) < 400
    with pytest.raises(BadImageError) as caught:
        source.pixels(1)
    assert words in caught.value.cause and len(str(caught.value)) < 400


def test_large_texts_are_refused_before_they_are_decoded():
    text = "data:image/png;base64," + "A" * (4 * 2**25)
    _, _, failure = one(text, max_pixels=1)
    assert "max_pixels must be raised" in failure.cause


# -- Open files


def test_the_position_of_an_open_file_stays(path, data):
    with open(path, "rb") as file:
        buffer = io.BytesIO(data)
        file.seek(7), buffer.seek(0, io.SEEK_END)
        source = make_image_source([file, buffer, buffer])
        for _ in range(2):
            assert source.digests() == ([digest_bytes(data)] * 3, {})
            assert source.pixels(0).shape == source.pixels(1).shape == (13, 17, 3)
        assert (file.tell(), buffer.tell()) == (7, len(data))
        assert source.describe(0) == f"open file {path}"
        part = pickle.loads(pickle.dumps(source.part(np.array([0, 2]))))
    assert part.digests()[0] == [digest_bytes(data)] * 2


def test_one_open_file_in_many_rows_and_threads(data):
    source = make_image_source([io.BytesIO(data)] * 64)
    digests, _ = source.digests()
    assert set(digests) == {digest_bytes(data)}
    with ThreadPoolExecutor(8) as pool:
        shapes = set(pool.map(lambda i: source.pixels(i).shape, range(64)))
    assert shapes == {(13, 17, 3)}


@pytest.mark.parametrize(
    "make", [tempfile.TemporaryFile, tempfile.SpooledTemporaryFile]
)
def test_temporary_files(make, data):
    with make() as file:
        file.write(data)
        assert one(file)[1] == digest_bytes(data)


def test_a_file_in_an_archive(tmp_path, data):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", data)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.jpg") as file:
        assert one(file)[1] == digest_bytes(data)


class Stream(io.RawIOBase):
    def readable(self):
        return True


def test_objects_that_open_a_file(tmp_path, data):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.jpg", data)
    inside = f"zip://a.jpg::{tmp_path / 'all.zip'}"
    for element in (fsspec.open(inside), zipfile.Path(tmp_path / "all.zip", "a.jpg")):
        source, digest, _ = one(element)
        assert digest == digest_bytes(data)
        assert source.pixels(1).shape == (13, 17, 3)
        assert "a.jpg" in source.describe(1)
        part = pickle.loads(pickle.dumps(source.part([1])))
        assert part.pixels(0).shape == (13, 17, 3)
    missing = one(fsspec.open(tmp_path / "no.jpg"))[2]
    assert "cannot be read (FileNotFoundError" in missing.cause
    assert "mode 'rb'" in one(fsspec.open(inside, "r"))[2].cause


def test_files_that_cannot_be_read(path):
    with open(path, "rb") as closed:
        pass
    assert "it is closed" in one(closed)[2].cause or "closed" in one(closed)[2].cause
    with open(path, encoding="latin-1") as file:
        assert "mode 'rb'" in one(file)[2].cause
    assert "pass the bytes that its read() returns" in one(Stream())[2].cause
    source, _, _ = one(closed)
    part = pickle.loads(pickle.dumps(source.part(np.array([1]))))
    with pytest.raises(BadImageError, match="closed"):
        part.pixels(0)


def test_a_file_that_changes_meanwhile(data):
    buffer = io.BytesIO(data)
    source, _, _ = one(buffer)
    buffer.getbuffer()[-30:] = bytes(30)
    with pytest.raises(BadImageError, match="changed while it was being read"):
        source.pixels(1)


def test_a_single_open_file_is_not_a_collection(data):
    with pytest.raises(TypeError, match=r"single open file: use \[X\]"):
        make_image_source(io.BytesIO(data))
    with pytest.raises(TypeError, match=r"\[X\] if it is one image"):
        make_image_source({"bytes": data, "path": None})


def test_the_extractor_takes_them_all(data, path):
    X = [path, *(wrap(data) for wrap in WRAPPINGS.values())]
    rows = PretrainedFeatureExtractor(image_size=32).fit_transform(X)
    assert rows.shape[0] == len(X)
    assert (rows == rows[0]).all()
    assert threading.active_count() < 100


class Sparse(io.RawIOBase):
    """An open file of zeros."""

    def __init__(self, n_bytes):
        self._n_bytes, self._position = n_bytes, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, position, whence=0):
        assert whence == 0
        self._position = position
        return position

    def read(self, n_bytes=-1):
        n_bytes = min(n_bytes, self._n_bytes - self._position)
        self._position += n_bytes
        return bytes(n_bytes)


def test_large_open_files_share_the_memory(monkeypatch):
    taken = []
    monkeypatch.setattr(Share, "take", lambda share, n: taken.append(n))
    monkeypatch.setattr(_encoded_images, "LARGE", 2**20)
    limit = max_bytes(10)
    source = make_image_source([Sparse(2**20), Sparse(2**21)], max_pixels=10)
    digests, _ = source.digests()
    assert digests == [digest_bytes(bytes(n)) for n in (2**20, 2**21)]
    assert taken == [limit]
    _, failures = make_image_source([Sparse(limit + 1)], max_pixels=10).digests()
    assert f"more than {limit} bytes" in failures[0].cause


def test_a_data_uri_of_percent_signs_takes_little_memory():
    text = "data:," + "%41" * 2**20
    tracemalloc.start()
    try:
        data = decode_data_uri(text, None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data == b"A" * 2**20
    assert most < 3 * len(text)
    odd = "%4" * 3 + "%" + "%zz%41%e2%82%ac" * 30_000 + "a" * 70_000 + "é%"
    assert decode_data_uri(f"data:,{odd}", None) == urllib.parse.unquote_to_bytes(odd)
