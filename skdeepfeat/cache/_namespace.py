"""What identifies the network that computed a row: one namespace per neck."""

from .._utils._digests import digest_description


class Namespace:
    """The part of the cache that belongs to one way of computing rows.

    Parameters
    ----------
    description : dict
        Everything that a row's values depend on except the image, in JSON types. Two
        namespaces are equal if their descriptions are.
    label : str
        The same for people: ``"efficientnet_lite0, layer3, avg, float32"``.
    work : str or None, default=None
        Identifies the network that computes the rows, in letters and digits.
        Namespaces of one network are computed by one thread or process at a time. None
        means that the namespace shares its network with no other.

    Attributes
    ----------
    key : str
        Hexadecimal digest of the description.
    work : str
        What is computed by one thread or process at a time.
    """

    def __init__(self, description: dict, label: str, work: str | None = None):
        self.description = description
        self.label = label
        self.key = digest_description(description)
        self.work = work or self.key

    def variant(self, name: str) -> "Namespace":
        """Return the namespace of one of the networks that share this description."""
        description = {**self.description, "variant": name}
        return Namespace(description, self.label, self.work)

    def __eq__(self, other):
        return isinstance(other, Namespace) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"Namespace({self.label!r}, key={self.key[:12]!r})"
