"""Weights files that are damaged or hostile: one error, and no code is run."""

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from skdeepfeat.exceptions import BadFileError, WeightsNotFoundError
from skdeepfeat.networks.sources._inert_pickle import read_pickle
from skdeepfeat.networks.sources._weights_file import read_weights_file

STATE = {
    "conv.weight": torch.randn(4, 3, 3, 3),
    "norm.running_mean": torch.zeros(4, dtype=torch.float64),
    "norm.num_batches_tracked": torch.tensor(3),
    "fc.weight": torch.randn(2, 4).bfloat16(),
}


def write(kind, path, content=STATE):
    if kind == "safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


def read(path):
    file = read_weights_file(os.fspath(path))
    return file.take({name: name for name in file.tensors})


KINDS = ["zip", "legacy", "safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_read(kind, tmp_path):
    write(kind, tmp_path / "w")
    found = read(tmp_path / "w")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[k], v) for k, v in STATE.items())
    assert all(found[k].dtype == v.dtype for k, v in STATE.items())


def damages(content, n, seed):
    """Yield `n` damaged forms: flipped bits, cuts, insertions, zeros, other bytes."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        place = int(rng.integers(len(content)))
        if number % 2:  # where the structure is, more often than in the numbers
            place = (
                place % 400 if number % 4 == 1 else max(len(content) - place % 900, 0)
            )
        damaged = bytearray(content)
        kind = number % 5
        if kind == 0:
            damaged[place : place + 1] = [
                damaged[min(place, len(content) - 1)] ^ 1 << place % 8
            ]
        elif kind == 1:
            del damaged[place:]
        elif kind == 2:
            damaged[place:place] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            damaged[place : place + 8] = bytes(8)
        else:
            damaged[place : place + 4] = rng.bytes(4)
        yield bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_one_error_or_nothing(kind, tmp_path):
    n = int(os.environ.get("SKDEEPFEAT_N_DAMAGES", 300))
    path = tmp_path / "weights"
    write(kind, path)
    content, n_errors = path.read_bytes(), 0
    for damaged in damages(content, n, seed=0):
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = read(path)
            except BadFileError as error:
                assert str(error).startswith(f"The weights file {path} ")
                n_errors += 1
                continue
        # No checksum covers the numbers in the other kinds.
        for name in found.keys() & STATE.keys() if kind == "zip" else ():
            assert torch.equal(found[name], STATE[name])
    assert n_errors > n // 4


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "web page.*Delete it"),
        (b'{"weight_map": {}}', "JSON"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (pickle.dumps({"a": 1}), "pickle that torch.save did not write"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar archive"),
        (b"(" * 300, "damaged"),
        (b"\x80\x02" + b"]" * 5000, "damaged"),
        (struct.pack("<Q", 60) + b'{"a": [' + b" " * 53, "damaged"),
        (struct.pack("<Q", 2**60) + b'{"a"', "damaged"),
        (struct.pack("<Q", 99_000) + b"{" + b'"a":[' * 19_800, "damaged"),
        # More names than any network has, which would be followed for minutes.
        (struct.pack("<Q", 2**24 + 1) + b"{" + b" " * 2**24, "16,777,216 bytes"),
    ],
)
def test_other_files_say_what_they_are(content, pattern, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=f"The weights file {path} .*{pattern}"):
        read(path)


@pytest.mark.parametrize(
    ("content", "pattern"),
    [(None, "a NoneType"), ("text", "a str"), (torch.ones(2), "one tensor"), ({}, "")],
)
def test_what_is_whole_is_not_called_damaged(content, pattern, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(BadFileError, match=f"must hold a state dict.*holds {pattern}"):
        read(path)


def test_arrays_of_numpy_are_named(tmp_path):
    torch.save({"model": {"a": np.ones(3)}, "b": np.float32(1)}, tmp_path / "w")
    with pytest.raises(BadFileError, match="and NumPy arrays"):
        read(tmp_path / "w")


def test_tensors_of_plain_pickle_are_named(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(STATE))
    with pytest.raises(BadFileError, match="pickle that torch.save did not write"):
        read(path)


def test_zip_archives_of_something_else(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(3))
    with pytest.raises(BadFileError, match="no data.pkl"):
        read(path)
    write("zip", tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    with pytest.raises(BadFileError, match="compressed member"):
        read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_folders_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(BadFileError, match="folder, pipe or device"):
            read(path)
    with pytest.raises(WeightsNotFoundError, match="cannot be read"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("other", ["sparse", "quantized"])
def test_tensors_of_other_kinds_are_named(other, tmp_path):
    tensor = torch.eye(3).to_sparse()
    if other == "quantized":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
            torch.save({"a": tensor}, tmp_path / "w")
    else:
        torch.save({"a": tensor}, tmp_path / "w")
    with pytest.raises(BadFileError, match=f"and {other} tensors"):
        read(tmp_path / "w")


# -- Files that are made to do harm


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.made = function, args

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("function", [os.mkdir, subprocess.call, exec, open])
def test_code_is_refused_and_not_run(function, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(kind, "w", {**STATE, "hook": Call(function, "sprung")})
    with pytest.raises(BadFileError, match="w has Python objects.*no code was run"):
        read("w")
    assert os.listdir(tmp_path) == ["w"]


def test_nothing_that_a_file_names_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text(
        "import pathlib\npathlib.Path('sprung').touch()\nclass A: pass\n"
    )
    import trap

    torch.save({"a": torch.ones(2), "b": trap.A(), "c": trap.A}, tmp_path / "w")
    del sys.modules["trap"]
    (tmp_path / "sprung").unlink()
    assert read("w").keys() == {"a"}
    assert "trap" not in sys.modules and not (tmp_path / "sprung").exists()


def pickled_zip(path, pickled, members=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, content in dict(members).items():
            archive.writestr(name, content)


def tensor_pickle(numel, size, stride, offset=0):
    """Return a state dict with one view of a storage, as torch.save writes it."""
    numbers = b"".join(b"J" + struct.pack("<i", n) for n in size)
    steps = b"".join(b"J" + struct.pack("<i", n) for n in stride)
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuJ" + struct.pack("<i", numel) + b"tQJ"
        + struct.pack("<i", offset) + b"(" + numbers + b"t(" + steps + b"t\x89N"
        b"tRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("numel", "size", "stride", "offset"),
    [
        (1, (2**30, 2**30), (0, 0), 0),
        (4, (4,), (1,), 1),
        (4, (4,), (-1,), 3),
        (4, (-4,), (1,), 0),
        (2**30, (2**30,), (1,), 0),
        (4, (2, 2), (1,), 0),
    ],
)
def test_views_outside_of_their_storage(numel, size, stride, offset, tmp_path):
    path = tmp_path / "w"
    members = {"a/data/0": bytes(16)}
    pickled_zip(path, tensor_pickle(4, (2, 2), (2, 1)), members)
    assert read(path)["a"].shape == (2, 2)
    pickled_zip(path, tensor_pickle(numel, size, stride, offset), members)
    with pytest.raises(BadFileError, match="damaged"):
        read(path)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def tensor(shape=b"(J\1\0\0\0t"):
    storage = text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
    start = b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"K\4tQK\0"
    return start + shape + shape + b"\x89NtR"


def sharing(make, start=b")"):
    """Return opcodes of a value that refers twice to a value, and so on 60 times."""
    return start + b"q\0" + b"0" + (make + b"q\0" + b"0") * 60


PAIRS = sharing(b"h\0h\0\x86")
OBJECTS = sharing(b"ca\nb\nh\0h\0\x86R", b"ca\nb\n)R")
STATE_OF_MODULE = (
    b"}(" + text(b"_parameters") + b"}" + text(b"_modules") + b"}" + text(b"_buffers")
    + b"}(" + b"".join(text(b"%d" % i) + b"N" for i in range(10**5)) + b"u"
    + text(b"_non_persistent_buffers_set") + b"]("
    + b"".join(text(b"a%d" % i) for i in range(10**5)) + b"eu"
)  # fmt: skip


def same_hash(n):
    """Return different integers with the same hash, which make a dict slow."""
    return [(2**61 - 1) * i for i in range(1, n)]


@pytest.mark.parametrize(
    "pickled",
    {
        "function": b"\x80\x02" + PAIRS + b"h\0)R.",
        "method": b"\x80\x02" + PAIRS + b"cbuiltins\ngetattr\nh\0h\0\x86R)R.",
        "class": b"\x80\x04" + PAIRS + b"h\0h\0\x93.",
        "object": b"\x80\x02" + OBJECTS + b"h\0)R)R.",
        "object in a dict": b"\x80\x02" + OBJECTS + b"}" + text(b"a") + b"h\0)Rs.",
        "storage": b"\x80\x02" + PAIRS + b"h\0N\x86Q.",
        "key of a storage": b"\x80\x02" + PAIRS + b"(" + text(b"storage")
        + b"ctorch\nFloatStorage\nh\0NK\1tQ.",
        "copies of a list": b"\x80\x02](" + b"N" * 10**6 + b"eq\0(ctorch\nSize\nq\1"
        + b"h\1h\0\x85R" * 20_000 + b"t.",
        "copies of a text": b"\x80\x02" + text(b"a" * 10**7) + b"q\0(ctorch\nSize\nq\1"
        + b"h\1h\0\x85R" * 1000 + b"t.",
        "shape": b"\x80\x02" + tensor(b"(" + b"J\xff\xff\xff\x7f" * 400_000 + b"t")
        + b".",
        "names": b"\x80\x02}" + text(b"a" * 10**7) + b"}("
        + b"".join(text(b"%d" % i) + tensor() for i in range(2000)) + b"us.",
        "items": b"\x80\x02}("
        + b"".join(text(b"%d" % i) + b"N" for i in range(20_000)) + b"uq\0}("
        + b"".join(text(b"%d" % i) + b"ca\nb\n)Rh\0b" for i in range(20_000)) + b"u.",
        "buffers": b"\x80\x02ca\nb\n)R" + STATE_OF_MODULE + b"b.",
        "equal hashes": b"\x80\x02}("
        + b"".join(pickle.dumps(i, 2)[2:-1] + b"N" for i in same_hash(10**5)) + b"u.",
        "equal hashes in the memo": b"N"
        + b"".join(b"p%d\n" % i for i in same_hash(10**5)) + b".",
        # A memo of 4 billion entries, which the unpickler of C fills with zeros.
        "memo": b"\x80\x02]r\xff\xff\xff\xf0.",
        "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
        "string": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a.",
        # 2 ** 60 references, of which each is followed once.
        "references": b"\x80\x02]q\x00" + b"0]q\x00(h\x00h\x00e" * 60 + b".",
        "keys": b"\x80\x02}" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"h\x00Ns.",
        "depth": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "cycle": b"\x80\x02]q\x00h\x00a.",
        "unknown": b"\x80\x02\x97.",
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_pickles_that_would_fill_the_memory_or_never_end(pickled, tmp_path):
    pickled_zip(tmp_path / "w", pickled[1])
    with pytest.raises(BadFileError) as caught:
        read(tmp_path / "w")
    assert len(str(caught.value)) < 1000


def test_names_of_nothing_but_dots_are_left_out(tmp_path):
    state = {"a." * 10**6: torch.zeros(1), **STATE}
    safetensors.torch.save_file(state, tmp_path / "w")
    assert read(tmp_path / "w").keys() == STATE.keys()


def test_overlapping_members_are_counted(tmp_path):
    """A small archive whose members share bytes does not become a large network."""
    path = tmp_path / "w"
    content = {str(i): torch.zeros(1000) for i in range(8)}
    torch.save(content, path)
    damaged = bytearray(path.read_bytes())
    [first] = [i for i in zipfile.ZipFile(path).infolist() if i.filename == "w/data/0"]
    place = 0
    while (place := damaged.find(b"PK\x01\x02", place)) >= 0:
        length = int.from_bytes(damaged[place + 28 : place + 30], "little")
        name = bytes(damaged[place + 46 : place + 46 + length])
        if name.startswith(b"w/data/"):
            offset = struct.pack("<I", first.header_offset)
            damaged[place + 42 : place + 46] = offset
        place += 4
    path.write_bytes(damaged)
    with pytest.raises(BadFileError, match="damaged"):
        read(path)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_followed(protocol, tmp_path):
    value = {"a": [1, 2.5, None, True, "b", 2**70], "c": (1, (2,), ()), 3: {"d": -1}}
    assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == value
