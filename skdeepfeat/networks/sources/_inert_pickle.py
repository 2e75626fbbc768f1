"""Parsing a pickle as data: nothing in it is imported, called or unpickled.

pickletools decodes the instructions, which are followed here on a separate stack. A
class or function is only its name, and an object only a name with its data. That is
enough to find the tensors, whatever classes of other packages are in the file.
"""

import pickletools
from dataclasses import dataclass, field
from typing import Any

import torch

from ...exceptions import BadFileError

__all__ = ["Object", "PickledDict", "Storage", "TensorRecord", "read_pickle"]

# A network of 100,000 tensors needs 4 million. It bounds the memory: an instruction is
# one byte at least, and an empty dict 64.
_MAX_INSTRUCTIONS = 5_000_000

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

# They would not be run, but no weights need them, so the file is malicious.
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
    """Numbers in a file: the key of its part, their type and how many they are."""

    key: str
    dtype: torch.dtype
    n_elements: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that has not been read yet: a view of a storage."""

    storage: Any
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class PickledDict(dict):
    """A dict; `versions` is what torch keeps of the modules' formats."""

    versions = None


@dataclass(frozen=True)
class _Name:
    """A class or a function."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Object:
    """What an object would be made of."""

    kind: Any
    args: Any = ()
    state: Any = None
    items: PickledDict = field(default_factory=PickledDict)


class _Mark:
    pass


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
_COLLECTED = {"TUPLE": tuple, "LIST": list, "FROZENSET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


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
        If it names what runs code, or is too long.
    Exception
        Any, if the file is damaged.
    """
    machine = _Machine({} if storages is None else storages)
    for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if number > _MAX_INSTRUCTIONS:
            raise BadFileError(
                f"its pickle has more than {_MAX_INSTRUCTIONS:,} instructions"
            )
        if instruction.name == "STOP":
            return machine.stack.pop()
        machine.follow(instruction.name, argument)
    raise EOFError


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, storages):
        self.stack = []
        self.memo = {}
        self.storages = storages

    def follow(self, name, argument):
        stack = self.stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in _COLLECTED:
            stack.append(_COLLECTED[name](self.pop_to_mark()))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name not in ("PROTO", "FRAME"):
            # Looked up by the instruction's name: there is no method for the others.
            getattr(self, f"on_{name.lower()}")(argument)

    def pop_to_mark(self):
        values = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]

    def on_pop(self, _):
        self.stack.pop()

    def on_pop_mark(self, _):
        self.pop_to_mark()

    def on_dup(self, _):
        self.stack.append(self.stack[-1])

    def on_dict(self, _):
        pairs = self.pop_to_mark()
        self.stack.append(PickledDict())
        self.set_items(pairs)

    def on_setitem(self, _):
        self.set_items([self.stack.pop(-2), self.stack.pop()])

    def on_setitems(self, _):
        self.set_items(self.pop_to_mark())

    def set_items(self, pairs):
        target = self.stack[-1]
        target = target.items if isinstance(target, Object) else target
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a nested tuple can take forever, and none is a tensor's name.
            if isinstance(key, (str, int)):
                target[key] = value

    def on_append(self, _):
        self.add([self.stack.pop()])

    def on_appends(self, _):
        self.add(self.pop_to_mark())

    on_additems = on_appends

    def add(self, values):
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def on_global(self, argument):
        self.stack.append(_name_of(*argument.split(" ", 1)))

    def on_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_name_of(module, name))

    def on_inst(self, argument):
        kind = _name_of(*argument.split(" ", 1))
        self.stack.append(_call(kind, tuple(self.pop_to_mark())))

    def on_obj(self, _):
        kind, *args = self.pop_to_mark()
        self.stack.append(_call(kind, tuple(args)))

    def on_reduce(self, _):
        args, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(kind, args))

    on_newobj = on_reduce

    def on_newobj_ex(self, _):
        _, args, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(_call(kind, args))

    def on_build(self, _):
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Object):
            target.state = state
        elif isinstance(target, PickledDict) and isinstance(state, dict):
            target.versions = state.get("_metadata")

    def on_binpersid(self, _):
        identifier = self.stack.pop()
        if identifier[0] == "module":  # a class with its source, in old files
            self.stack.append(identifier[1])
            return
        storage = _storage_of(identifier)
        self.stack.append(self.storages.setdefault(storage.key, storage))


def _name_of(module, name):
    found = _Name(str(module), str(name))
    top = found.module.partition(".")[0]
    if top in _HARMFUL_MODULES or (
        top in _BUILTINS and found.name.partition(".")[0] in _HARMFUL_BUILTINS
    ):
        raise _harmful(found)
    return found


def _harmful(name):
    return BadFileError(
        "holds Python objects beside its tensors that would run code when they are "
        f"unpickled ({name}), so it is refused; nothing of it was run. If you trust "
        "the file, load it yourself and write only its tensors: "
        "torch.save(model.state_dict(), path)"
    )


def _call(kind, args):
    """Return what a call would make: a tensor, a dict or a mere record of it."""
    if isinstance(kind, Object) and str(kind.kind).endswith(".getattr"):
        # A method by its name, which protocol 2 has no other way to write.
        raise _harmful(".".join(map(str, kind.args)))
    name = kind.name if isinstance(kind, _Name) else ""
    if str(kind) in ("collections.OrderedDict", "collections.defaultdict"):
        return PickledDict()
    if str(kind) == "torch.Size":
        return tuple(args[0])
    if isinstance(kind, _Name) and kind.module.partition(".")[0] == "torch":
        if name in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter"):
            return args[0] if args else None
        if name == "_rebuild_from_type_v2":
            return _call(args[0], args[2])
        if args and not isinstance(args[0], Storage):
            return Object(kind, args)  # what pickle.dump makes of a tensor
        if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            storage, offset, shape, stride = args[:4]
            return _checked(storage, storage.dtype, offset, shape, stride)
        if name == "_rebuild_tensor_v3":
            storage, offset, shape, stride = args[:4]
            return _checked(storage, _dtype_of(args[6]), offset, shape, stride)
    return Object(kind, args)


def _dtype_of(name):
    found = getattr(torch, name.name) if name.module == "torch" else None
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is not a numeric type")
    return found


def _checked(storage, dtype, offset, shape, stride):
    """Return a record of a view that lies within its storage."""
    shape, stride = tuple(shape), tuple(stride)
    n_bytes = storage.n_elements * storage.dtype.itemsize
    n_elements, last = 1, offset
    for n, step in zip(shape, stride, strict=True):
        n_elements *= n
        last += (n - 1) * step
    whole = all(type(n) is int and n >= 0 for n in (offset, *shape, *stride))
    # More elements than the storage has: one number can be a view of any size.
    if not whole or (
        n_elements and max(n_elements, last + 1) * dtype.itemsize > n_bytes
    ):
        raise ValueError(f"a tensor of shape {shape} exceeds its storage")
    return TensorRecord(storage, dtype, offset, shape, stride)


def _storage_of(identifier):
    kind, storage, key, _, n_elements = identifier[:5]
    if kind != "storage" or type(n_elements) is not int or n_elements < 0:
        raise ValueError(f"an unknown reference {kind!r}")
    return Storage(str(key), _STORAGES[storage.name], n_elements)
