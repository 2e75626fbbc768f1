"""Weights files of all formats, read as data.

The format is found by the content, not by the extension. The structure is checked
before a tensor is read. Tensors are read only when they are used: the state of an
optimizer, which training scripts save with the weights, is never read.
"""

import contextlib
import os
import re
import stat
import zipfile
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

import safetensors
import torch

from ..._utils._parameter_errors import first_line
from ..._utils._shown import shown, shown_path
from ...exceptions import BadFileError, WeightsNotFoundError
from ._inert_pickle import Name, Object, PickledDict, TensorRecord, read_pickle

_MAX_PICKLE_BYTES = 256 * 2**20
_MAX_HEADER_BYTES = 16 * 2**20  # of 100,000 tensors
_MAX_DEPTH = 64  # of containers in containers; a module in a module adds two
# Containers may share their content, so a small file can have any number of tensors
# with names of any length.
_MAX_ITEMS = 5_000_000
_MAX_NAME = 1000  # characters, including the names of the containers
_MAX_BYTES_OF_NAMES = 2**27
_BYTES_OF_EMPTY_NAME = 200  # in the dict of tensors
_MAX_BUFFERS = 1000  # non-persistent ones of a module
_CONTAINERS = (dict, list, tuple, Object)
_OTHER_BYTE_ORDER = "was written on a machine with another byte order"
# The wrappers of torch.compile, FSDP and activation checkpointing add these anywhere in
# a name. For example, each block may be wrapped.
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# Common files that are not weights files, by their first bytes.
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
    """The tensors of a file by their names. None of them is in memory.

    Attributes
    ----------
    path : str
    tensors : dict of str to TensorRecord
        A name is the path to the tensor: ``"state_dict.model.conv1.weight"`` for a
        tensor ``"model.conv1.weight"`` under the key ``"state_dict"``. The names of
        torch's wrappers are left out.
    versions : dict of str to dict
        torch's versions of the modules' formats, by the path to the state dict.
    sizes : dict of str to int
        The number of tensors of each dict, by the path to it.
    others : dict of str to str
        The kinds of tensors that cannot be read (such as sparse), by name.
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
            From new names to names in the file.

        Returns
        -------
        OrderedDict of str to Tensor

        Raises
        ------
        BadFileError
        """
        with _reading(self.path):
            _, take = _readers_of(self.path)
            found = take(self.path, [self.tensors[name] for name in names.values()])
            return OrderedDict(zip(names, found, strict=True))


def read_weights_file(path):
    """Return the content of a weights file, without running any code in it.

    Parameters
    ----------
    path : str
        A safetensors file, or a file of ``torch.save`` in any version since 0.2. It may
        also hold a whole module or be a TorchScript archive.

    Returns
    -------
    WeightsFile

    Raises
    ------
    WeightsNotFoundError
        If the file does not exist or is not readable.
    BadFileError
        If it is damaged, malicious or not a weights file.
    """
    with _reading(path):
        list_content, _ = _readers_of(path)
        content, file = list_content(path), WeightsFile(path)
        if isinstance(content, _CONTAINERS):
            _flatten(content, file)
    if not file.tensors:
        kinds = sorted(set(file.others.values()))[:3]
        others = "".join(f" and {kind}" for kind in kinds)
        raise BadFileError(
            f"The weights file {shown_path(path)} must hold a state dict (names and "
            f"tensors). It holds {_shown(content)}{others}."
        )
    return file


def _shown(content):
    if isinstance(content, dict):
        return f"a dict with {shown(sorted(map(str, content))[:5])}"
    if isinstance(content, Object):
        return f"a {shown_path(content.kind_name or 'Python object')}"
    if isinstance(content, Name):
        return f"the name {shown_path(content)}"
    if isinstance(content, TensorRecord):
        return "one tensor without a name"
    return f"a {type(content).__name__}"


@contextlib.contextmanager
def readable(path):
    """Turn any error of the system into WeightsNotFoundError."""
    try:
        yield
    except OSError as error:
        raise WeightsNotFoundError(
            f"The weights file {shown_path(path)} cannot be read: {error}"
        ) from error


@contextlib.contextmanager
def _reading(path):
    """Turn any error of reading a file into BadFileError or WeightsNotFoundError."""
    with readable(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            # Reading a pipe would wait, and a device may have no end.
            raise BadFileError(
                f"The weights file {shown_path(path)} is a folder, pipe or device."
            )
        with open(path, "rb"):
            pass
    try:
        yield
    except BadFileError as error:
        raise BadFileError(f"The weights file {shown_path(path)} {error}.") from error
    except Exception as error:
        # Arbitrary bytes can cause any error in the readers and their libraries.
        raise BadFileError(
            f"The weights file {shown_path(path)} is damaged, truncated or not a "
            f"weights file ({first_line(error)}). Delete it and download it again."
        ) from error


def _readers_of(path):
    """Return the functions that list and read a kind of file, told by its content."""
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError("it is empty")
    if start.startswith(b"PK\x03\x04"):
        return _list_zip, _take_zip
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= os.path.getsize(path):
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"its header has more than {_MAX_HEADER_BYTES:,} bytes")
        return _list_safetensors, _take_safetensors
    for beginning, what in _OTHER_KINDS.items():
        if start.startswith(beginning):
            raise BadFileError(f"is damaged or {what}. Delete it and download it again")
    if start[257:262] == b"ustar":
        raise BadFileError(
            "is a tar archive. Unpack it; if torch older than 0.2 wrote it, load it "
            "there and save it again"
        )
    if start[:1] == b"\x80":
        return _list_legacy, _take_legacy
    raise ValueError(f"it begins with {start[:8]!r}")


# -- safetensors


def _list_safetensors(path):
    tensors = {}
    with safetensors.safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is not a dict
            view = file.get_slice(name)
            if view.get_dtype() not in _SAFETENSORS_TYPES:
                raise BadFileError(f"has {shown(name)} in the type {view.get_dtype()}")
            dtype = _SAFETENSORS_TYPES[view.get_dtype()]
            tensors[name] = TensorRecord(name, dtype, 0, tuple(view.get_shape()), ())
    return tensors


def _take_safetensors(path, records):
    with safetensors.safe_open(path, "pt") as file:
        return [file.get_tensor(record.storage) for record in records]


# -- torch.save since 1.6


def _list_zip(path):
    with zipfile.ZipFile(path) as archive:
        folder = _folder_in(archive)
        order = f"{folder}byteorder"
        if order in archive.namelist():
            with _open_member(archive, order, 100) as member:
                if member.read() != b"little":
                    raise BadFileError(_OTHER_BYTE_ORDER)
        name = f"{folder}data.pkl"
        with _open_member(archive, name, _MAX_PICKLE_BYTES) as member:
            return read_pickle(member)


def _folder_in(archive):
    for name in archive.namelist():
        if name.split("/")[1:] == ["data.pkl"]:
            return name.removesuffix("data.pkl")
    raise BadFileError(
        "is a zip archive without a state dict (no data.pkl); if there are weights in "
        "it, unpack them"
    )


def _open_member(archive, name, n_bytes):
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise BadFileError(
            f"has a compressed member {shown(name)}; torch.save writes none"
        )
    if info.file_size > n_bytes:
        raise ValueError(f"{name!r} is larger than expected")
    if info.CRC == 0:
        info.CRC = None  # torch can be told to compute none
    return archive.open(info)


def _take_zip(path, records):
    size = os.path.getsize(path)
    storages = {}
    with zipfile.ZipFile(path) as archive:
        folder = _folder_in(archive)
        for storage in {record.storage: None for record in records}:
            name = f"{folder}data/{storage.key}"
            with _open_member(archive, name, size) as member:
                # A bytearray, because torch warns about read-only memory.
                storages[storage] = bytearray(member.read())
            # Members may overlap: without this, a small file could fill the memory.
            size -= len(storages[storage])
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


# -- torch.save before 1.6


def _list_legacy(path):
    with open(path, "rb") as file:
        return _read_legacy(file)[0]


def _read_legacy(file):
    """Return the content, and the storages in the order in which they are stored."""
    if read_pickle(file) != _LEGACY_MAGIC:
        raise BadFileError(
            "is a pickle that torch.save did not write, so it is not read. Load it "
            "yourself and write its tensors with torch.save(state_dict, path)"
        )
    read_pickle(file)  # the protocol's number
    if read_pickle(file).get("little_endian") is not True:
        raise BadFileError(_OTHER_BYTE_ORDER)
    storages = {}
    content = read_pickle(file, storages)
    keys = [key for key in read_pickle(file) if isinstance(key, (str, int))]
    return content, [storages[str(key)] for key in keys]


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
    """Add all tensors to a file, by the paths to them."""
    queue, seen = deque([("", content, 0)]), {}
    n_items = n_bytes = 0
    while queue:
        path, value, depth = queue.popleft()
        # References can make a tree of any size from few bytes, so each is followed
        # only once.
        if id(value) in seen or depth > _MAX_DEPTH:
            continue
        seen[id(value)] = value  # kept, because ids are reused
        if isinstance(value, PickledDict) and isinstance(value.versions, dict):
            file.versions[path] = {
                _WRAPPERS.sub("", f"{name}.")[:-1]: version
                for name, version in value.versions.items()
                if isinstance(name, str)
            }
        items = _items_of(value)
        n_items += len(items)
        if n_items > _MAX_ITEMS or n_bytes > _MAX_BYTES_OF_NAMES:
            raise ValueError("it has more names than any real network")
        for name, inner in items:
            if len(path) + len(name) > _MAX_NAME:
                continue
            if isinstance(inner, TensorRecord):
                name = _WRAPPERS.sub("", name)
                file.tensors.setdefault(f"{path}{name}", inner)
                file.sizes[path] += 1
                n_bytes += len(path) + len(name) + _BYTES_OF_EMPTY_NAME
            elif isinstance(inner, Object) and _kind_of_tensor(inner):
                file.others[f"{path}{name}"] = _kind_of_tensor(inner)
                n_bytes += len(path) + len(name) + _BYTES_OF_EMPTY_NAME
            elif isinstance(inner, _CONTAINERS):
                inside = f"{path}{_WRAPPERS.sub('', f'{name}.')}" if name else path
                queue.append((inside, inner, depth + 1))


def _kind_of_tensor(made):
    """Return the kind of a tensor that cannot be read, or "" for other objects."""
    if made.kind_name.endswith("multiarray._reconstruct"):
        return "NumPy arrays (convert them with torch.from_numpy before saving)"
    function = made.kind_name.partition("_rebuild_")[2]
    kind = {"qtensor": "quantized"}.get(function, function.partition("_")[0][:80])
    return f"{kind} tensors" if kind else ""


def _items_of(value):
    """Return the (name, value) pairs in a container, a module or another object."""
    if isinstance(value, dict):
        return [(str(name), inner) for name, inner in value.items()]
    if isinstance(value, (list, tuple)):
        # Such as an epoch next to a state dict. Tensors in lists have no names.
        items = [(str(number), inner) for number, inner in enumerate(value)]
        return [one for one in items if isinstance(one[1], (dict, Object))]
    state = value.state if isinstance(value.state, dict) else {}
    if not state.keys() >= {"_parameters", "_buffers", "_modules"}:
        # A named tuple has its items among the arguments.
        args = value.args if isinstance(value.args, tuple) else ()
        return [*_items_of(state), *_items_of(value.items), *_items_of(args)]
    # A whole module, as its state dict would be.
    gone = _texts_in(state.get("_non_persistent_buffers_set"))
    own = [*_plain_items(state["_parameters"])]
    own += [one for one in _plain_items(state["_buffers"]) if one[0] not in gone]
    return [*own, ("", state["_modules"])]


def _plain_items(value):
    return _items_of(value) if isinstance(value, dict) else []


def _texts_in(value):
    """Return the strings in a set, which is a list or a call of its class."""
    if isinstance(value, Object):
        value = value.args[0] if value.args else ()
    if not isinstance(value, list) or len(value) > _MAX_BUFFERS:
        return set()
    return {one for one in value if isinstance(one, str)}
