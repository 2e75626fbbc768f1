"""The record of a network's weights, which every source of weights subclasses."""

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar

from ..._utils._filestat import stat_file
from ..._utils._random import seeded
from ..._utils._shown import shown_path
from ...exceptions import BadFileError
from ._weights_file import read_weights_file, readable


class Weights:
    """One set of weights.

    A subclass is a frozen dataclass. If the weights are in a file, it defines `path`,
    or `fetch` if the file may have to be downloaded.

    Attributes
    ----------
    label : str
        For messages.
    path : str
    wanted : str
        What the `weights` parameter is for this source, for messages.
    are_random : bool
        Whether they are not trained.
    sha256 : str or None
        The beginning of the file's sha256 (hexadecimal), if it is known.
    """

    label: str
    path: str
    wanted: ClassVar[str] = ""
    are_random: ClassVar[bool] = False
    sha256: ClassVar[str | None] = None

    def fetch(self) -> str:
        """Return the path of the file, which is downloaded if necessary."""
        return self.path

    def identity(self, digest_file: Callable[[str], bytes]) -> dict[str, Any]:
        """Return JSON types that differ whenever the numbers differ.

        No weights are loaded. By default it is the digest of the file's content.
        """
        return {"file": digest_file(self.fetch()).hex()}

    def is_identified(self) -> bool:
        """Return whether `identity` downloads nothing."""
        return True

    def store_key(self) -> tuple:
        """Return a key of the weights in memory, without reading from a disk.

        It may differ if the identity is the same, but not the other way around. By
        default it is the record itself, for weights that never change.
        """
        return (self,)

    def build_network(self, spec):
        """Return a network with these weights, and its modules that stay random.

        Returns
        -------
        Module, tuple of str
            The second are the modules of the head, if the weights have none that fits.
        """
        path = self.fetch()
        if self.sha256:
            check_sha256(path, self.sha256)
        file = read_weights_file(path)
        with seeded(0):
            return spec.install(file)


def file_key(path: str) -> tuple:
    """Return a key that changes when the file changes, without reading it."""
    with readable(path):
        return stat_file(path)


def check_sha256(path: str, expected: str) -> None:
    """Raise unless the file's sha256 begins with `expected` (hexadecimal)."""
    with readable(path), open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise BadFileError(
            f"The weights file {shown_path(path)} is damaged or is not what its name "
            f"says: its sha256 must begin with {expected}, but is {found}. Delete it, "
            "and it is downloaded again. If it came with a package, install that "
            "package again."
        )
