"""What a row of features was computed by: one namespace a neck."""

import functools

from .._utils._digests import digest_description

__all__ = ["Namespace"]


class Namespace:
    """The part of the cache that belongs to one way of computing rows.

    Parameters
    ----------
    description : dict
        Everything that a row's values depend on besides the image itself, in JSON
        types. Two namespaces are the same if their descriptions are.
    label : str
        The same for people: ``"efficientnet_lite0, layer3, avg, float32"``.
    work : str or None, default=None
        Names the network that computes the rows, in letters and digits. Namespaces of
        one network are computed by one thread or process at a time, so that
        those who want other layers of it do not run it side by side. None: the
        namespace shares its network with no other.

    Attributes
    ----------
    key : str
        Hexadecimal digest of the description.
    """

    def __init__(self, description: dict, label: str, work: str | None = None):
        self.description = description
        self.label = label
        self._work = work

    @functools.cached_property
    def key(self) -> str:
        """Hexadecimal digest of the description."""
        return digest_description(self.description)

    @property
    def work(self) -> str:
        """What is computed by one thread or process at a time."""
        return self._work or self.key

    def __eq__(self, other):
        return isinstance(other, Namespace) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"Namespace({self.label!r}, key={self.key[:12]!r})"
