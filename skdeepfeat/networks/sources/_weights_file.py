"""Weights files of all formats, read as data.

The content decides the format, not the extension. The structure is checked before a
tensor is read, and tensors are read only when they are used: the state of an optimizer,
which training scripts save with the weights, is never read.
"""

import json
import math
import os
import stat
import zipfile
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import safetensors
import torch

from ..._utils._shown import shown
from ...exceptions import BadFileError, WeightsNotFoundError
from ._inert_pickle import Object, PickledDict, TensorRecord, read_pickle

__all__ = ["WeightsFile", "read_weights_file"]

_MAX_PICKLE_BYTES = 256 * 2**20
_MAX_HEADER_BYTES = 100 * 2**20  # safetensors' own limit
_MAX_DEPTH = 64  # of modules in modules; each adds two
_CONTAINERS = (dict, list, tuple, Object)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# What people have instead of a weights file, by how it begins.
_OTHER_KINDS = {
    b"version https://git-lfs": "is a pointer of Git LFS; run `git lfs pull`",
    b"<": "is a web page or XML, not weights; download the file itself",
    b"{": "is JSON, not weights; give one of the files that it may list",
    b"\x1f\x8b": "is compressed with gzip; unpack it",
    b"BZh": "is compressed with bzip2; unpack it",
    b"\xfd7zXZ": "is compressed with xz; unpack it",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"\x89HDF": "is an HDF5 file, which Keras writes; convert it to safetensors",
    b"GGUF": "is a GGUF file; convert it to safetensors",
    b"\x93NUMPY": "is a NumPy array; write a state dict with torch.save",
}

_SAFETENSORS_TYPES = {
    "BF16": torch.bfloat16, "BOOL": torch.bool, "C64": torch.complex64,
    "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16, "I32": torch.int32, "I64": torch.int64, "I8": torch.int8,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "U8": torch.uint8,
}  # fmt: skip


@dataclass
class WeightsFile:
    """The tensors of a file by their names; none of them is in memory.

    Attributes
    ----------
    path : str
    tensors : dict of str to TensorRecord
        A name is the path to the tensor: ``"state_dict.model.conv1.weight"`` for a
        tensor ``"model.conv1.weight"`` under the key ``"state_dict"``.
    versions : dict of str to dict
        By the path to a state dict, what torch keeps of the modules' formats.
    sizes : dict of str to int
        How many tensors each dict has, by the path to it.
    others : dict of str to str
        Tensors that cannot be taken (sparse, quantized ...), by name: their kind.
    """

    path: str
    tensors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    sizes: Counter = field(default_factory=Counter)
    others: dict[str, str] = field(default_factory=dict)

    def take(self, names):
        """Read tensors.

        Parameters
        ----------
        names : dict of str to str
            New name to the name in the file.

        Returns
        -------
        OrderedDict of str to Tensor

        Raises
        ------
        BadFileError
        """
        with _reading(self.path):
            kind = _kind_of(self.path)
            found = _READERS[kind][1](
                self.path, [self.tensors[name] for name in names.values()]
            )
            return OrderedDict(zip(names, found, strict=True))


def read_weights_file(path):
    """Return what a weights file holds, without running any code in it.

    Parameters
    ----------
    path : str
        A safetensors file, or what ``torch.save`` wrote in any version since 0.2, a
        whole module or a TorchScript archive among it.

    Returns
    -------
    WeightsFile

    Raises
    ------
    WeightsNotFoundError
        If the file is not there or may not be read.
    BadFileError
        If it is damaged, something else or made to do harm.
    """
    with _reading(path):
        content = _READERS[_kind_of(path)][0](path)
        file = WeightsFile(path)
        if isinstance(content, _CONTAINERS):
            _flatten(content, file)
    if not file.tensors:
        raise BadFileError(
            f"The weights file {path} must hold a state dict (names and tensors). It "
            f"holds {_shown(content)}{_shown_others(file)}."
        )
    return file


def _shown(content):
    if isinstance(content, dict):
        return f"a dict with {shown(sorted(map(str, content))[:5])}"
    if isinstance(content, Object):
        return f"a {content.kind}"
    if isinstance(content, TensorRecord):
        return "one tensor without a name"
    return f"a {type(content).__name__}"


def _shown_others(file):
    return "".join(f" and {k} tensors" for k in sorted(set(file.others.values())))


class _reading:
    """Turn whatever goes wrong with a file into one error."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                # A pipe would be waited for, and a device may have no end.
                raise BadFileError(
                    f"The weights file {self.path} is a folder, pipe or device."
                )
            with open(self.path, "rb"):
                pass
        except OSError as error:
            raise WeightsNotFoundError(
                f"The weights file {self.path} cannot be read: {error}"
            ) from error

    def __exit__(self, kind, error, traceback):
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, BadFileError):
            raise BadFileError(f"The weights file {self.path} {error}.") from error
        # On arbitrary bytes, the readers and their libraries raise errors of any kind.
        raise BadFileError(
            f"The weights file {self.path} is damaged, truncated or not a weights file "
            f"({_first_line(error)}). Delete it and download it again."
        ) from error


def _first_line(error):
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first if len(first) <= 200 else f"{first[:200]} ..."


def _kind_of(path):
    """Return which of `_READERS` reads a file, by its content."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError("it is empty")
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= _MAX_HEADER_BYTES:
        return "safetensors"
    for beginning, what in _OTHER_KINDS.items():
        if start.startswith(beginning):
            raise BadFileError(f"is damaged or {what}. Delete it and download it again")
    if start[257:262] == b"ustar":
        raise BadFileError(
            "is a tar archive. Unpack it; if torch older than 0.2 wrote it, load it "
            "there and save it again"
        )
    if start[:1] == b"\x80":
        return "legacy"
    raise ValueError(f"it begins with {start[:8]!r}")


# -- safetensors


def _list_safetensors(path):
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
        dtype = _SAFETENSORS_TYPES.get(entry["dtype"])
        if dtype is None:
            raise BadFileError(
                f"holds {name!r} in the unknown type {shown(entry['dtype'])}"
            )
        if not all(type(n) is int and n >= 0 for n in (start, end, *shape)) or (
            end - start != math.prod(shape) * dtype.itemsize or end > size - 8 - length
        ):
            raise ValueError(f"{name!r} does not fit the file")
        tensors[name] = TensorRecord(name, dtype, 0, shape, ())
    return tensors


def _take_safetensors(path, records):
    with safetensors.safe_open(path, "pt") as file:
        return [file.get_tensor(record.storage) for record in records]


# -- What torch.save writes since 1.6


def _list_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if not pickles:
            raise BadFileError(
                "is a zip archive without a state dict (no data.pkl); if there are "
                "weights in it, unpack them"
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and _read_member(archive, order, 100) != b"little":
            raise BadFileError("was written on a machine with another byte order")
        pickled = _open_member(archive, pickles[0], _MAX_PICKLE_BYTES)
        return read_pickle(pickled)


def _open_member(archive, name, n_bytes):
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise BadFileError(f"has a compressed member {name!r}; torch.save has none")
    if info.file_size > n_bytes:
        raise ValueError(f"{name!r} is larger than expected")
    if info.CRC == 0:
        info.CRC = None  # torch can be told to compute none
    return archive.open(info)


def _read_member(archive, name, n_bytes):
    with _open_member(archive, name, n_bytes) as member:
        return member.read()


def _take_zip(path, records):
    size = os.path.getsize(path)
    storages = {}
    with zipfile.ZipFile(path) as archive:
        [pickled] = [n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"]]
        folder = pickled.removesuffix("data.pkl")
        for storage in {record.storage: None for record in records}:
            content = _read_member(archive, f"{folder}data/{storage.key}", size)
            # Members may overlap, so that a small file would fill the memory.
            size -= len(content)
            # torch warns of memory that cannot be written.
            storages[storage] = bytearray(content)
    return [_view(storages[record.storage], record) for record in records]


def _view(content, record):
    wanted = record.storage.n_elements * record.storage.dtype.itemsize
    if len(content) < wanted:
        raise ValueError(f"the values of {record.storage.key!r} are truncated")
    if not wanted:
        return torch.empty(record.shape, dtype=record.dtype)
    count = wanted // record.dtype.itemsize
    flat = torch.frombuffer(content, dtype=record.dtype, count=count)
    return flat.as_strided(record.shape, record.stride, record.offset)


# -- What torch.save wrote before 1.6


def _list_legacy(path):
    with open(path, "rb") as file:
        return _read_legacy(file)[0]


def _read_legacy(file):
    """Return the content, and the storages in the order in which they follow."""
    if read_pickle(file) != _LEGACY_MAGIC:
        raise BadFileError(
            "is a pickle that torch.save has not written, so it is not read. Load it "
            "yourself and write its tensors with torch.save(state_dict, path)"
        )
    read_pickle(file)  # the protocol's number
    if read_pickle(file).get("little_endian") is not True:
        raise BadFileError("was written on a machine with another byte order")
    storages = {}
    content = read_pickle(file, storages)
    return content, [storages[str(key)] for key in read_pickle(file)]


def _take_legacy(path, records):
    size = os.path.getsize(path)
    contents = dict.fromkeys(record.storage.key for record in records)
    with open(path, "rb") as file:
        for storage in _read_legacy(file)[1]:
            n_bytes = int.from_bytes(file.read(8), "little") * storage.dtype.itemsize
            if n_bytes > size:
                raise ValueError(f"the values of {storage.key!r} are truncated")
            if storage.key in contents:
                contents[storage.key] = bytearray(file.read(n_bytes))
            else:
                file.seek(n_bytes, os.SEEK_CUR)
    return [_view(contents[record.storage.key], record) for record in records]


# -- Names


def _flatten(content, file):
    """Fill in the tensors of a file by the paths that lead to them."""
    queue, seen = deque([("", content, 0)]), {}
    while queue:
        path, value, depth = queue.popleft()
        # References can make a tree of any size from few bytes: each is followed once.
        if id(value) in seen or depth > _MAX_DEPTH:
            continue
        seen[id(value)] = value  # kept, or its identity might be given to another
        if isinstance(value, PickledDict) and isinstance(value.versions, dict):
            file.versions[path] = value.versions
        for name, inner in _items_of(value):
            if isinstance(inner, TensorRecord):
                file.tensors.setdefault(f"{path}{name}", inner)
                file.sizes[path] += 1
            elif isinstance(inner, Object) and "_rebuild_" in str(inner.kind):
                file.others[f"{path}{name}"] = _kind_of_tensor(inner)
            elif isinstance(inner, _CONTAINERS):
                queue.append((f"{path}{name}." if name else path, inner, depth + 1))


def _kind_of_tensor(made):
    function = str(made.kind).rpartition("_rebuild_")[2]
    return {"qtensor": "quantized"}.get(function, function.partition("_")[0])


def _items_of(value):
    """Return (name, value) of what is in a container, a module or another object."""
    if isinstance(value, dict):
        return [(str(name), inner) for name, inner in value.items()]
    if isinstance(value, (list, tuple)):
        # What belongs together, such as an epoch and a state dict: not lone tensors.
        items = [(str(number), inner) for number, inner in enumerate(value)]
        return [one for one in items if isinstance(one[1], (dict, Object))]
    state = value.state if isinstance(value.state, dict) else {}
    if not state.keys() >= {"_parameters", "_buffers", "_modules"}:
        return [*_items_of(state), *_items_of(value.items)]
    # A whole module: what its state dict would be.
    gone = _texts_in(state.get("_non_persistent_buffers_set"))
    buffers = state["_buffers"]
    if isinstance(buffers, dict):
        buffers = {name: one for name, one in buffers.items() if name not in gone}
    return [("", state["_parameters"]), ("", buffers), ("", state["_modules"])]


def _texts_in(value):
    """Return the strings in a set, which is a list or a call of its class."""
    if isinstance(value, Object):
        value = value.args[0] if value.args else ()
    return [one for one in value if isinstance(one, str)] if value else []


_READERS = {
    "safetensors": (_list_safetensors, _take_safetensors),
    "zip": (_list_zip, _take_zip),
    "legacy": (_list_legacy, _take_legacy),
}
