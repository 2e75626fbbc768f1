"""What code objects run, as far as it can change while a process runs.

In a notebook, functions and classes are defined again all the time.
"""

import collections
import functools
import itertools
import logging
import math
import os
import pathlib
import re
import sys
import sysconfig
import types
import weakref

import numpy as np
import torch

from .._utils._item_encoding import NotEncodableError, digest_item, encode_item
from ._modules import slots_of

logger = logging.getLogger(__name__)

# Maximum number of objects that are inspected, and of entries of one container.
_MAX_OBJECTS = 10_000
_MAX_ENTRIES = 1_000
# Maximum number of numbers, bytes and entries that are compared in an object.
_MAX_SIZE = 100_000

# Maximum total size of containers that turn out not to be comparable. Without it, the
# levels of nested containers would all be inspected again.
_MAX_WASTED = 100_000

# Maximum number of values of an array or a tensor that are compared.
_MAX_NUMBERS = 10_000_000

# Attributes of a module that are known by their tensors.
CONTENT = ("_parameters", "_buffers", "_modules")

_TABLES = (dict, collections.OrderedDict)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_ARRAYS = (np.ndarray, torch.Tensor)
_PLAIN: tuple = (str, bytes, int, float, complex, type(None), np.generic, *_ARRAYS)
_PLAIN += _CONTAINERS

# copyreg adds the last one to a class when an instance is copied.
_NOT_CODE = ("__dict__", "__weakref__", "__doc__", "__slotnames__")

_WORD = re.compile(r"[^\W\d]\w*")

_TABLE_PACKAGES = ("pandas", "polars")
_ENVIRONMENT = {"environ", "getenv"}

_OWN_PACKAGE = __name__.partition(".")[0]


def code_state(module, collate):
    """Return a tuple that changes when the code of a module changes.

    Looked at are classes, functions and what these use by name: other functions,
    constants, attributes of modules. Installed packages are assumed not to change.
    No code of the objects runs.

    Parameters
    ----------
    module : Module
    collate : callable

    Returns
    -------
    tuple
        Hashable.
    """
    walk, modules = _Walk(), list(module.modules())
    # The code first, before attributes reach the limit: each has dozens of them.
    walk.visit_all([collate, *dict.fromkeys(map(type, modules))])
    for one in modules:
        walk.visit_all(
            [
                value
                for name, value in vars(one).items()
                # Tables of hooks are mostly empty.
                if name not in CONTENT and (type(value) not in _TABLES or value)
            ]
            + [*slots_of(one).values()],
            is_part=True,
        )
    return tuple(walk.found)


class _Walk:
    """Goes through what functions use, each object once."""

    def __init__(self):
        self.found = []
        # Numbers by object. The objects are kept, so that no id is reused.
        self._seen = {}
        self._pending = []
        self._n_wasted = 0

    def visit_all(self, objects, is_part=False):
        self._wait(objects, is_part)
        while self._pending and len(self._seen) < _MAX_OBJECTS:
            value, is_part = self._pending.pop()
            if id(value) in self._seen:
                # The identity, because two constants may have the same value.
                self.found.append(self._seen[id(value)][0])
            else:
                self._seen[id(value)] = len(self._seen), value
                try:
                    self._visit(value, is_part)
                except Exception:  # what a user's class says may raise anything
                    logger.debug("an object cannot be inspected", exc_info=True)
                    self._add_identity(value, is_part)

    def _wait(self, values, is_part=False):
        self._pending += [(value, is_part) for value in values]

    def _visit(self, value, is_part):
        if isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, (classmethod, staticmethod)):
            self._wait([value.__func__])
        elif isinstance(value, types.MethodType):
            self._wait([value.__func__])
            self._wait([value.__self__], is_part)
        elif isinstance(value, property):
            self._wait([value.fget])
        elif isinstance(value, functools.partial):
            self._wait([value.func, value.args, value.keywords], is_part)
        elif not self._visit_content(value, is_part):
            self._visit_instance(value, is_part)

    def _visit_function(self, function):
        if _is_installed(function.__module__):
            self.found.append(_Same(function))
            return
        self.found.append(function.__code__)
        self._wait([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            try:
                self._wait([cell.cell_contents])
            except ValueError:  # it is empty
                continue
        names = _names(function.__code__)
        if not _ENVIRONMENT.isdisjoint(names):
            self.found.append(digest_item(encode_item(dict(os.environ))))
        self._wait(vars(function).values())
        for name in sorted(names):
            value = function.__globals__.get(name)
            if isinstance(value, types.ModuleType):
                self._visit_module(value, names, set())
            else:
                self._wait([value])

    def _visit_module(self, module, names, seen):
        self.found.append(_Same(module))
        if module in seen:
            return
        seen.add(module)
        for name in sorted(names & vars(module).keys()):
            value = vars(module)[name]
            if isinstance(value, types.ModuleType):
                self._visit_module(value, names, seen)
            elif _is_installed(module.__name__):
                self.found.append(_Same(value))  # or what a test has put there
            else:
                self._wait([value])

    def _visit_class(self, cls):
        if not _is_installed(type(cls).__module__):  # a metaclass
            self._wait([type(cls)])
        for one in cls.__mro__:
            self.found.append(_Same(one))
            if not _is_installed(one.__module__):
                self._wait(
                    value
                    for name, value in list(vars(one).items())
                    if name not in _NOT_CODE
                )

    def _visit_content(self, value, is_part):
        """Compare plain values by what they are, and return whether it is one."""
        if not isinstance(value, _PLAIN):
            return False
        is_container = isinstance(value, _CONTAINERS)
        limit, is_wasted = _MAX_SIZE, is_container and self._n_wasted > _MAX_WASTED
        size = limit + 1 if is_wasted else _size(value)
        if isinstance(value, _ARRAYS) and value.dtype != object:
            size, limit = _length(value), _MAX_NUMBERS
        if size > limit and isinstance(value, torch.Tensor):
            return False
        if size > limit:
            self._add_identity(value, is_part)
            self.found.append(_length(value))
        else:
            try:
                self.found.append(digest_item(encode_item(value)))
                return True
            except NotEncodableError:
                if not is_container:
                    return False
                self._n_wasted += size
                self.found.append(len(value))
        if is_container:
            self._wait(itertools.islice(_entries(value), 2 * _MAX_ENTRIES), is_part)
        return True

    def _visit_instance(self, value, is_part):
        if isinstance(value, torch.Tensor):
            self._add_identity(value, is_part)
            # The count of changes in place, which tensors of inference mode lack.
            self.found.append(None if value.is_inference() else value._version)
            return
        self._visit_class(type(value))
        attributes = [
            *getattr(value, "__dict__", {}).values(),
            *slots_of(value).values(),
        ]
        if not attributes and not hasattr(value, "__dict__"):
            self._add_identity(value, is_part)  # what it holds cannot be seen
        if type(value).__module__.partition(".")[0] in _TABLE_PACKAGES:
            if math.prod(getattr(value, "shape", ())) <= _MAX_SIZE:
                self._wait([np.asarray(value).tolist()], is_part)
        if _is_installed(type(value).__module__):
            # A configuration, or a function wrapped by functools.cache; but the objects
            # that a logger refers to are endless, for example.
            self._add_identity(value, is_part)
            kinds = (*_PLAIN, types.FunctionType)
            attributes = [one for one in attributes if isinstance(one, kinds)]
        self._wait(attributes, is_part=True)

    def _add_identity(self, value, is_part):
        # scikit-learn's clone copies a module with everything in it.
        self.found.append(_Same(type(value) if is_part else value))


class _Same:
    """Is equal only to one of the same object, which it keeps only if it has to."""

    def __init__(self, value):
        self._id = id(value)
        try:
            self._get = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def __eq__(self, other):
        if not isinstance(other, _Same):
            return False
        value = self._get()
        return value is not None and value is other._get()

    def __hash__(self):
        return self._id


def _size(value):
    """Count numbers, bytes and entries, until there are more than `_MAX_SIZE`."""
    n_found, pending = 0, [value]
    while pending and n_found <= _MAX_SIZE:
        one = pending.pop()
        length = _length(one)
        n_found += length
        if length > _MAX_SIZE:
            break
        if isinstance(one, _CONTAINERS):
            pending += _entries(one)
        if isinstance(one, np.ndarray) and one.dtype == object:
            pending += one.ravel().tolist()
    return n_found


def _entries(value):
    """Iterate over what a container holds, by no method that a subclass defines."""
    kind = next(one for one in _CONTAINERS if isinstance(value, one))
    if kind is not dict:
        return kind.__iter__(value)
    pairs = zip(dict.__iter__(value), dict.values(value), strict=True)
    return itertools.chain.from_iterable(pairs)


def _length(value):
    if isinstance(value, np.ndarray):
        return value.size
    # Those of a module in it are compared, as all parameters are.
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        return value.numel()
    return len(value) if isinstance(value, (str, bytes, *_CONTAINERS)) else 1


def _names(code):
    """Return the names that code and the functions in it use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
        elif isinstance(constant, str):  # globals()["scale"], eval("scale(x)")
            names.update(_WORD.findall(constant))
    return names


@functools.cache
def _is_installed(name):
    """Return whether a module is part of Python or of an installed package."""
    if name == "__main__" or not isinstance(name, str):
        return False
    if name.partition(".")[0] == _OWN_PACKAGE:
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str):
        return name in sys.builtin_module_names
    # Not only the folders of this environment, but also those of the user and of the
    # system.
    parts = pathlib.PurePath(file).parts
    return (
        "site-packages" in parts
        or "dist-packages" in parts
        or file.startswith(sysconfig.get_path("stdlib"))
    )
