"""Where a network's weights come from, how they are told apart, and reading them.

Each kind of weights is a small record with the same three methods, so that nothing
outside this file asks what kind it is dealing with.
"""

import argparse
import hashlib
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import nn

from .._errors import WeightsNotFoundError

__all__ = [
    "FILE_SUFFIXES",
    "FileWeights",
    "ModuleWeights",
    "PinnedWeights",
    "RandomWeights",
    "Weights",
    "read_state_dict",
]

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
DigestFile = Callable[[str], bytes]

# What training scripts wrap a state dict in, the exponential average before the rest.
_WRAPPINGS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# DataParallel, torch.compile and Lightning put these before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")


class Weights:
    """One set of weights.

    Attributes
    ----------
    label : str
        For messages.
    """

    label: str
    needs_reading: ClassVar[bool] = True

    def identity(self, digest_file: DigestFile) -> dict[str, Any]:
        """Return JSON types that differ whenever the numbers differ.

        Nothing is loaded for it. Weights that can only be told apart by their file,
        and whose file is not here, are downloaded.
        """
        raise NotImplementedError

    def store_key(self) -> tuple:
        """Return what networks in memory tell weights apart by.

        It may be finer than the identity, and nothing is read from a disk for it.
        """
        raise NotImplementedError

    def read(self) -> dict[str, torch.Tensor]:
        """Return the state dict, on the CPU, downloaded first where need be."""
        raise NotImplementedError


@dataclass(frozen=True)
class RandomWeights(Weights):
    """Weights as the architecture initialises them under a seed."""

    seed: int
    label: str = "random"
    needs_reading: ClassVar[bool] = False

    def identity(self, digest_file):
        """Return the seed and the version of what draws the numbers."""
        return {
            "random_state": self.seed,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }

    def store_key(self):
        """Return the seed."""
        return ("random", self.seed)


@dataclass(frozen=True, eq=False)
class ModuleWeights(Weights):
    """The weights that a user's module came with.

    They have no identity of their own: what the module computes with them is what
    counts, which a `Fingerprint` says.
    """

    module: nn.Module
    label: str = "its own"
    needs_reading: ClassVar[bool] = False


@dataclass(frozen=True)
class PinnedWeights(Weights):
    """A file whose sha256 is written down in this package.

    Attributes
    ----------
    path : str
    sha256 : str
        Hexadecimal.
    """

    path: str
    sha256: str
    label: str = "default"

    def identity(self, digest_file):
        """Return the pinned digest: the file is compared with it when it is read."""
        return {"sha256": self.sha256}

    def store_key(self):
        """Return the pinned digest."""
        return ("sha256", self.sha256)

    def read(self):
        """Return the state dict of the file, after comparing its sha256."""
        check_sha256(self.path, self.sha256)
        return read_state_dict(self.path)


@dataclass(frozen=True)
class FileWeights(Weights):
    """A weights file of the user's."""

    path: str

    @property
    def label(self):
        """The path, for messages."""
        return self.path

    def identity(self, digest_file):
        """Return the digest of the file's content."""
        return {"file": digest_file(self.path).hex()}

    def store_key(self):
        """Return path, size and time of the file: a changed file is read again."""
        return file_key(self.path)

    def read(self):
        """Return the state dict in the file."""
        return read_state_dict(self.path)


def file_key(path: str) -> tuple:
    """Return what tells one state of a file from another without reading it."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise WeightsNotFoundError(
            f"The weights file {path} cannot be read: {error}"
        ) from error
    return ("file", os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


def check_sha256(path: str, expected: str) -> None:
    """Raise unless the file's sha256 begins with `expected` (hexadecimal)."""
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsNotFoundError(
            f"The weights file {path} cannot be read: {error}"
        ) from error
    if not found.startswith(expected):
        raise ValueError(
            f"The weights file {path} is damaged or is not what its name says: its "
            f"sha256 must begin with {expected}, but is {found}. "
            "Delete it; it is then fetched again (a file that came with a package: "
            "install that package again)."
        )


def read_state_dict(path: str) -> dict[str, torch.Tensor]:
    """Read a state dict from a file without running any code in it.

    Parameters
    ----------
    path : str
        ``.safetensors``, or what ``torch.save`` wrote. The latter is read with
        ``weights_only=True``, always.

    Returns
    -------
    dict of str to Tensor
        Unwrapped from ``{"state_dict": ...}`` and the like, and from a prefix such as
        ``module.`` that all names share.

    Raises
    ------
    WeightsNotFoundError
        If the file is not there or may not be read.
    ValueError
        If it is damaged, holds more than tensors, or no state dict.
    """
    try:
        with open(path, "rb"):
            pass
        if pathlib.Path(path).suffix == ".safetensors":
            content = safetensors.torch.load_file(path, device="cpu")
        else:
            # timm's training script keeps its arguments beside the weights.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsNotFoundError(
            f"The weights file {path} cannot be read: {error}"
        ) from error
    except pickle.UnpicklingError as error:
        raise ValueError(_unpickling_message(path, error)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            safetensors.SafetensorError) as error:  # fmt: skip
        raise ValueError(_damaged_message(path, error)) from error
    return _strip_prefixes(_unwrap(path, content))


def _unpickling_message(path, error):
    text = str(error)
    if "Unsupported global" in text or "Unsupported class" in text or "GLOBAL" in text:
        return (
            f"The weights file {path} holds Python objects beside its tensors, and "
            "reading those can run any code, so it is refused. Where you trust the "
            "file, load it yourself and write its tensors alone: "
            "torch.save(model.state_dict(), path)."
        )
    return _damaged_message(path, error)


def _damaged_message(path, error):
    return (
        f"The weights file {path} is damaged, truncated or not a weights file "
        f"({_first_line(error)}). Delete it and fetch it again."
    )


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _unwrap(path, content):
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(v, torch.Tensor) for v in content.values()):
            # As it is: torch.save keeps the versions of the modules' formats in an
            # attribute of the dict, and MNASNet builds another stem for an old one.
            return content
        inner = next((key for key in _WRAPPINGS if content.get(key) is not None), None)
        if inner is None:
            break
        content = content[inner]
    found = (
        f"a dict with {sorted(map(str, content))[:5]}"
        if isinstance(content, Mapping)
        else type(content).__name__
    )
    raise ValueError(
        f"The weights file {path} must hold a state dict (names and tensors), bare or "
        f"under one of {', '.join(_WRAPPINGS)}. It holds {found}."
    )


def _strip_prefixes(state_dict):
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state_dict):
                state_dict = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state_dict.items()
                }
    return state_dict
