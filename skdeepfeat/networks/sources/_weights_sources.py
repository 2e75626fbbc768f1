"""Where a network's weights come from: what the `weights` parameter can be.

A new source is a subclass of `Weights` in a file of its own, and an entry in
`WEIGHTS_SOURCES`. It has the class method ``from_parameter(weights, random_state,
must_exist)``, which returns the weights that the parameter means, or None. `must_exist`
tells whether a file must be there already. Names of weights that belong to one network,
such as ``"IMAGENET1K_V1"``, are read by the sources of networks.
"""

import enum
import importlib
import os
import sys
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._utils._parameter_errors import choice_error, is_int
from ..._utils._printable import redacted
from ..._utils._random import seeded
from ...exceptions import WeightsNotFoundError
from .._installed_code import installed_version
from ._weights import Weights, file_key

# Names without a folder that mean files, whether they exist or not.
_FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")


@dataclass(frozen=True)
class RandomWeights(Weights):
    """Weights as the architecture initializes them with a seed."""

    seed: int
    label: str = "random"
    wanted: ClassVar[str] = "'random'"
    are_random: ClassVar[bool] = True

    @classmethod
    def from_parameter(cls, weights, random_state, must_exist):
        """Return the weights for ``"random"``, or None."""
        if not isinstance(weights, str) or weights != "random":
            return None
        if not is_int(random_state):
            raise choice_error(
                "random_state",
                "an int with weights='random', because every process and every call "
                "has to build the same network",
                random_state,
                error=TypeError,
            )
        return cls(int(random_state))

    def identity(self, digest_file):
        """Return the seed and the versions of the libraries that use it."""
        return {
            "random_state": self.seed,
            "torch": torch.__version__,
            **{name: _version_of(name) for name in ("timm", "torchvision")},
        }

    def build_network(self, spec):
        """Return a new network."""
        with seeded(self.seed):
            return spec.build(), ()


@dataclass(frozen=True)
class FileWeights(Weights):
    """A weights file of the user."""

    path: str
    wanted: ClassVar[str] = "a file"

    @classmethod
    def from_parameter(cls, weights, random_state, must_exist):
        """Return the weights for a path, or None. The format does not matter here."""
        path = os.fspath(weights) if isinstance(weights, os.PathLike) else weights
        if not isinstance(path, str):
            return None
        is_path = (
            path is not weights
            or os.path.basename(path) != path
            or path.lower().endswith(_FILE_ENDINGS)
            or os.path.isfile(path)
        )
        if is_path and must_exist and not os.path.isfile(path):
            try:
                folder = os.getcwd()
            except FileNotFoundError:
                folder = "a working directory that does not exist any more"
            raise WeightsNotFoundError(
                "The 'weights' parameter must be a file that exists. There is no file "
                f"{redacted(path)!r} (relative to {folder})."
            )
        return cls(os.path.abspath(path)) if is_path else None

    @property
    def label(self):
        """The path, for messages."""
        return self.path

    def store_key(self):
        """Return path, size and time of the file: a changed file is read again."""
        return file_key(self.path)


def _version_of(package):
    """Return the version of a package, imported only if nothing else tells it."""
    version = installed_version(package)
    # Another version may have been installed after the import. The part after "+",
    # such as cu130, is not in all metadata.
    if version and package in sys.modules:
        imported = sys.modules[package].__version__
        same = imported.partition("+")[0] == version.partition("+")[0]
        return version if same else imported
    return version or importlib.import_module(package).__version__


# The first class that recognizes the value of `weights` is used.
WEIGHTS_SOURCES = (RandomWeights, FileWeights)


def read_weights(weights, random_state, must_exist=True):
    """Return the `weights` parameter as `Weights`, or as the name of a network's own.

    Parameters
    ----------
    weights : str, PathLike or WeightsEnum
    random_state : int
        The seed of ``weights="random"``.
    must_exist : bool, default=True
        Whether a file must be there already.

    Returns
    -------
    Weights, str or WeightsEnum
    """
    if isinstance(weights, str) and weights == "default":
        return weights
    for source in WEIGHTS_SOURCES:
        found = source.from_parameter(weights, random_state, must_exist)
        if found is not None:
            return found
    if isinstance(weights, (str, enum.Enum)) and weights != "":
        return weights
    wanted = f"'default', a name that the network's source knows, {other_weights()}"
    raise choice_error("weights", wanted, weights, error=TypeError)


def other_weights():
    """Return in words what `weights` can be for every network."""
    *others, last = [source.wanted for source in WEIGHTS_SOURCES]
    return f"{', '.join(others)} or {last}"
