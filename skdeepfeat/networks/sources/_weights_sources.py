"""Where a network's weights come from, how they are told apart, and reading them.

Each kind of weights is a small record with the same three methods, so that nothing
outside this file asks what kind it is dealing with.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torchvision
from torch import nn

from ...exceptions import BadFileError, WeightsNotFoundError
from ._weights_file import WeightsFile, read_weights_file

__all__ = [
    "FileWeights",
    "ModuleWeights",
    "PinnedWeights",
    "RandomWeights",
    "Weights",
    "check_sha256",
    "file_key",
]

DigestFile = Callable[[str], bytes]


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

    def read(self) -> WeightsFile:
        """Return what the file holds, downloaded first where need be."""
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
        """Return what the file holds, after comparing its sha256."""
        check_sha256(self.path, self.sha256)
        return read_weights_file(self.path)


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
        """Return what the file holds."""
        return read_weights_file(self.path)


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
        raise BadFileError(
            f"The weights file {path} is damaged or is not what its name says: its "
            f"sha256 must begin with {expected}, but is {found}. "
            "Delete it; it is then fetched again (a file that came with a package: "
            "install that package again)."
        )
