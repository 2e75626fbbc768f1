"""Parsing a pickle as data: nothing in it is imported, called or unpickled.

pickletools decodes the instructions. They are followed here on our own stack, where a
class or function is only its name, and an object is a name with its data. That is
enough to find the tensors, even if the file has classes of other packages.

With references, few bytes can describe a value of any size: a list that refers twice to
a list that refers twice to another list, and so on. So a value is not converted, hashed
or copied before its type and its length are known.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._utils._shown import shown_path
from ...exceptions import BadFileError

# A network of 100,000 tensors needs 4 million. The limit bounds the memory: an
# instruction can take 1 byte, and an empty dict that it creates 64.
_MAX_INSTRUCTIONS = 5_000_000

# Different integers below this have different hashes, so they do not make a dict slow.
_LARGEST_INT = 2**60
_MAX_AXES = 64  # as in torch and NumPy

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.int32,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}

# They would not be run. But weights do not need them, so the file is malicious.
_HARMFUL_MODULES = {
    "code", "commands", "ctypes", "http", "importlib", "multiprocessing", "nt", "os",
    "pickle", "posix", "pty", "requests", "runpy", "shutil", "signal", "socket",
    "subprocess", "sys", "urllib", "webbrowser",
}  # fmt: skip
_HARMFUL_BUILTINS = {
    "__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec",
    "execfile", "input", "open", "print", "setattr",
}  # fmt: skip
_BUILTINS = ("builtins", "__builtin__", "io", "_io")


@dataclass(frozen=True)
class Storage:
    """Numbers in a file: the key of their part, their type and their number."""

    key: str
    dtype: torch.dtype
    n_elements: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that has not been read: a view of a storage."""

    storage: Any
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class PickledDict(dict):
    """A dict. `versions` are torch's versions of the modules' formats."""

    versions = None


@dataclass(frozen=True)
class Name:
    """A class or a function."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Object:
    """The parts of an object that is not created."""

    kind: Any
    args: Any = ()
    state: Any = None
    items: PickledDict = field(default_factory=PickledDict)

    @property
    def kind_name(self):
        """The name of the class or function, or "" if the kind is something else."""
        return str(self.kind) if isinstance(self.kind, Name) else ""


class _Mark:
    pass


# Instructions that push their argument, and those that push something new.
_PUSHED = {
    "BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "BINUNICODE8", "BINBYTES",
    "BINBYTES8", "BINSTRING", "BYTEARRAY8", "FLOAT", "INT", "LONG", "LONG1", "LONG4",
    "SHORT_BINBYTES", "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE",
}  # fmt: skip
_MADE = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": PickledDict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}


def read_pickle(file, storages=None):
    """Follow one pickle.

    Parameters
    ----------
    file : binary file
        It is read up to the end of the pickle.
    storages : dict, default=None
        It is filled with every `Storage` that the pickle refers to, by key.

    Returns
    -------
    object
        Plain values, lists, tuples, `PickledDict`, `TensorRecord` and `Object`.

    Raises
    ------
    BadFileError
        If it names something that runs code, or is too long.
    Exception
        Any, if the file is damaged.
    """
    storages, stack, memo = {} if storages is None else storages, [], {}
    for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if number > _MAX_INSTRUCTIONS:
            raise BadFileError(
                f"its pickle has more than {_MAX_INSTRUCTIONS:,} instructions"
            )
        if instruction.name == "STOP":
            return stack.pop()
        _follow(instruction.name, argument, stack, memo, storages)
    raise EOFError


def _follow(instruction, argument, stack, memo, storages):
    if instruction in _PUSHED:
        stack.append(argument)
    elif instruction in _MADE:
        stack.append(_MADE[instruction]())
    elif instruction in _MADE_OF_LAST:
        n, make = _MADE_OF_LAST[instruction]
        stack[-n:] = [make(*stack[-n:])]
    elif instruction in _MADE_OF_MARKED:
        values = _pop_to_mark(stack)
        stack.append(_MADE_OF_MARKED[instruction](values))
    elif instruction in _ADDED:
        values = _pop_to_mark(stack)
        _ADDED[instruction](stack[-1], values)
    elif instruction in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
        number = len(memo) if argument is None else int(argument)
        if not _is_number(number):
            raise ValueError("a number in it is too large")
        memo[number] = stack[-1]
    elif instruction in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif instruction == "GLOBAL":
        stack.append(_name_of(*argument.split(" ", 1)))
    elif instruction == "INST":
        kind = _name_of(*argument.split(" ", 1))
        stack.append(_call(kind, tuple(_pop_to_mark(stack))))
    elif instruction == "BINPERSID":
        stack.append(_find_persistent(stack.pop(), storages))
    elif instruction == "DUP":
        stack.append(stack[-1])
    elif instruction == "POP":
        stack.pop()
    elif instruction == "POP_MARK":
        _pop_to_mark(stack)
    elif instruction not in ("PROTO", "FRAME"):
        raise ValueError(f"the instruction {instruction} is not supported")


def _pop_to_mark(stack):
    values = []
    while not isinstance(value := stack.pop(), _Mark):
        values.append(value)
    return values[::-1]


def _set_items(target, pairs):
    items = target.items if isinstance(target, Object) else target
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if _is_key(key):  # others, such as tuples, are not names of tensors
            items[key] = value
    return target


def _extend(target, values):
    if isinstance(target, list):
        target.extend(values)
    return target


def _set_state(target, state):
    if isinstance(target, Object):
        target.state = state
    elif isinstance(target, PickledDict) and isinstance(state, dict):
        target.versions = state.get("_metadata")
    return target


def _is_number(value):
    return type(value) is int and 0 <= value < _LARGEST_INT


def _is_key(value):
    return isinstance(value, str) or (
        isinstance(value, int) and -_LARGEST_INT < value < _LARGEST_INT
    )


def _find_persistent(identifier, storages):
    if identifier[0] == "module":  # a class with its source, in old files
        return identifier[1]
    kind, storage, key, _, n_elements = identifier[:5]
    if kind != "storage" or not _is_key(key) or not _is_number(n_elements):
        raise ValueError("a reference in it is of an unknown kind")
    found = Storage(str(key), _STORAGES[storage.name], n_elements)
    return storages.setdefault(found.key, found)


def _name_of(module, name):
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("a name in it is not text")
    found = Name(module, name)
    top = found.module.partition(".")[0]
    if top in _HARMFUL_MODULES or (
        top in _BUILTINS and found.name.partition(".")[0] in _HARMFUL_BUILTINS
    ):
        raise _harmful(found)
    return found


def _harmful(name):
    return BadFileError(
        "has Python objects that would run code when they are unpickled "
        f"({shown_path(name)}), so it is refused; no code was run. If you trust the "
        "file, load it yourself and write only its tensors: "
        "torch.save(model.state_dict(), path)"
    )


def _call(kind, args):
    """Return what a call would: a tensor, a dict or only a record of the call."""
    if isinstance(kind, Object) and kind.kind_name.endswith(".getattr"):
        # A method by its name, as protocol 2 writes it.
        texts = [arg for arg in kind.args if isinstance(arg, str)]
        raise _harmful(".".join([kind.kind_name, *texts]))
    if not isinstance(kind, Name):
        return Object(kind, args)
    if str(kind) in ("collections.OrderedDict", "collections.defaultdict"):
        return PickledDict()
    if str(kind) == "torch.Size":
        return _numbers(args[0])
    if kind.module.partition(".")[0] == "torch":
        name = kind.name
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter"):
            return args[0] if args else None
        if name == "_rebuild_from_type_v2":
            return _call(args[0], args[2])
        if args and not isinstance(args[0], Storage):
            return Object(kind, args)  # as pickle.dump writes a tensor
        if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _checked(args[0].dtype, *args[:4])
        if name == "_rebuild_tensor_v3":
            return _checked(_dtype_of(args[6]), *args[:4])
    return Object(kind, args)


def _dtype_of(name):
    found = getattr(torch, name.name) if name.module == "torch" else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is not a numeric type")
    return found


def _checked(dtype, storage, offset, shape, stride):
    """Return a record of a view that lies within its storage."""
    shape, stride = _numbers(shape), _numbers(stride)
    if not _is_number(offset):
        raise ValueError("the offset of a tensor is not valid")
    n_bytes = storage.n_elements * storage.dtype.itemsize
    n_elements, last = 1, offset
    for n, step in zip(shape, stride, strict=True):
        n_elements *= n
        last += (n - 1) * step
    # At most as many elements as the storage has: a view of one number can have any
    # size.
    if n_elements and max(n_elements, last + 1) * dtype.itemsize > n_bytes:
        raise ValueError(f"a tensor of shape {shape} exceeds its storage")
    return TensorRecord(storage, dtype, offset, shape, stride)


def _numbers(values):
    """Return a shape or a stride as a tuple."""
    is_list = isinstance(values, (list, tuple)) and len(values) <= _MAX_AXES
    if not is_list or not all(map(_is_number, values)):
        raise ValueError("the shape of a tensor is not valid")
    return tuple(values)


# By instruction: how many of the last values it takes, and the function of them.
_MADE_OF_LAST = {
    **{f"TUPLE{n}": (n, lambda *values: values) for n in (1, 2, 3)},
    "STACK_GLOBAL": (2, _name_of),
    "REDUCE": (2, _call),
    "NEWOBJ": (2, _call),
    "NEWOBJ_EX": (3, lambda kind, args, keywords: _call(kind, args)),
    "SETITEM": (3, lambda target, *pair: _set_items(target, pair)),
    "APPEND": (2, lambda target, value: _extend(target, [value])),
    "BUILD": (2, _set_state),
}
# By instruction: the function of the values above the mark.
_MADE_OF_MARKED = {
    "TUPLE": tuple,
    "LIST": list,
    "FROZENSET": list,
    "DICT": lambda pairs: _set_items(PickledDict(), pairs),
    "OBJ": lambda values: _call(values[0], tuple(values[1:])),
}
# By instruction: how the values above the mark are added to the object below it.
_ADDED = {"SETITEMS": _set_items, "APPENDS": _extend, "ADDITEMS": _extend}
