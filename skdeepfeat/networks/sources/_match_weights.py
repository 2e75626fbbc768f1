"""Finding a network's tensors in a weights file, under any prefix or key."""

import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from ..._utils._shown import shown, shown_path

logger = logging.getLogger(__name__)

# Which of several complete copies of a network is used, by the words in the prefix:
# moving averages first, the trained network before the one that follows it, and what is
# no network last.
_RANKS = {
    "ema": 0, "averaged": 0, "swa": 0,
    "teacher": 1,
    "student": 3, "online": 2,
    "target": 4, "momentum": 4, "k": 4,
    "grad": 5, "grads": 5, "gradients": 5, "optim": 5, "optimizer": 5, "exp": 5,
}  # fmt: skip
_RANK_OF_OTHERS = 2

# Prefixes of DataParallel and Lightning. Others may belong to names that timm's filters
# know.
_WRAPPERS = ("module.", "model.")

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """Where the tensors of a network are in a file.

    Attributes
    ----------
    names : dict of str to str
        From names in the network to names in the file.
    versions : dict or None
        torch's versions of the modules' formats, by the modules' names.
    nearest : str
        A sentence about what was found, for errors.
    """

    names: dict[str, str]
    versions: dict[str, Any] | None
    nearest: str


def match_network(file, own, head):
    """Find the prefix in a file that the names of a network have there.

    Parameters
    ----------
    file : WeightsFile
    own : dict of str to Tensor
        The network's state dict.
    head : tuple of str
        The modules of its head, which may be missing from the file.

    Returns
    -------
    Match
        All names with the prefix. If the file has the whole body, names of modules
        that the network does not have are left out. If less than half of the body is
        found, the largest state dict in the file is used instead.

    Raises
    ------
    ValueError
        If the file has the network several times with different values, and the
        prefixes do not tell which of them to use.
    """
    in_head = tuple(f"{module}." for module in head)
    body = {n for n in own if not n.startswith(in_head) and _COUNTER not in n}
    found = _count(file.tensors, own, body)
    prefix = min(found, key=lambda p: (-found[p], _rank(p), len(p)), default=None)
    nearest = _describe(file, prefix, own, body, found)
    if prefix is None or 2 * found[prefix] < len(body):
        prefix = _largest(file)
    names = {
        name.removeprefix(prefix): name
        for name in file.tensors
        if name.startswith(prefix)
    }
    if body and found[prefix] == len(body):
        tied = sorted(p for p in found if found[p] == len(body) and p != prefix)
        if tied:
            _refuse_ambiguous(file, prefix, tied, body)
            logger.info(
                "%s contains the network several times; using %s, not %s",
                shown_path(file.path), shown(prefix), shown(tied),
            )  # fmt: skip
        names = _without_others(names, own, file)
    _refuse_other_types(names, own, file)
    return Match(names, _versions(file, prefix), nearest)


def _refuse_ambiguous(file, prefix, tied, body):
    """Refuse a file with another copy of the network that might as well be used."""
    wanted = None
    for other in tied:
        if _rank(other) != _rank(prefix):
            continue
        wanted = wanted or file.take({name: prefix + name for name in body})
        found = file.take({name: other + name for name in body})
        if not all(torch.equal(wanted[name], found[name]) for name in body):
            raise ValueError(
                f"The weights file {shown_path(file.path)} has this network several "
                f"times, with different values: under {shown(prefix)} and "
                f"{shown(other)}. Save only the one that you want."
            )


def _refuse_other_types(names, own, file):
    """Refuse a quantized file, whose integers would be copied as weights."""
    for name in names.keys() & own.keys():
        found, wanted = file.tensors[names[name]].dtype, own[name].dtype
        if found.is_floating_point != wanted.is_floating_point and _COUNTER not in name:
            raise ValueError(
                f"The weights file {shown_path(file.path)} has {shown(names[name])} as "
                f"{found}, but the network as {wanted}. Save it in the network's type "
                "and shape; dequantize quantized weights first."
            )


def _fits(record, tensor):
    is_floating = record.dtype.is_floating_point
    has_shape = record.shape == tuple(tensor.shape)
    return has_shape and is_floating == tensor.dtype.is_floating_point


def _count(tensors, own, body):
    """Return how many tensors of the body have each prefix."""
    found = Counter()
    longest = max(map(len, body), default=0)
    for name, record in tensors.items():
        # Only the end, because a name in a hostile file may consist of a million dots.
        first = max(0, len(name) - longest - 1)
        dots = re.compile(r"\.").finditer(name, first)
        for start in (0, *(dot.end() for dot in dots)):
            if name[start:] in body and _fits(record, own[name[start:]]):
                found[name[:start]] += 1
    return found


def _rank(prefix):
    words = re.split(r"[._]", prefix.lower())
    known = [_RANKS[word] for word in words if word in _RANKS]
    return known[-1] if known else _RANK_OF_OTHERS


def _largest(file):
    """Return the prefix of the largest state dict."""
    prefix = min(file.sizes, key=lambda p: (-file.sizes[p], _rank(p)))
    names = [name for name in file.tensors if name.startswith(prefix)]
    while True:
        for wrapper in _WRAPPERS:
            if all(name.startswith(prefix + wrapper) for name in names):
                prefix += wrapper
                break
        else:
            return prefix


def _without_others(names, own, file):
    """Return the names without those of modules that the network does not have.

    Names inside its own modules stay, because a deeper network has all names of a
    flatter one.
    """
    tops = {name.partition(".")[0] for name in own}
    kept = {k: v for k, v in names.items() if k in own or k.partition(".")[0] in tops}
    ignored = sorted(set(file.tensors) - set(kept.values()))
    if ignored:
        logger.info(
            "%d tensors of %s are ignored, such as %s", len(ignored),
            shown_path(file.path), shown(ignored[:5], 400),
        )  # fmt: skip
    return kept


def _versions(file, prefix):
    """Return the versions of the modules with a prefix, by their names after it."""
    fitting = [path for path in file.versions if prefix.startswith(path)]
    if not fitting:
        return None
    path = max(fitting, key=len)
    inner = prefix.removeprefix(path)
    return {
        name.removeprefix(inner) if name != inner[:-1] else "": value
        for name, value in file.versions[path].items()
        if isinstance(value, dict) and f"{name}.".startswith(inner)
    }


def _describe(file, prefix, own, body, found):
    """Return a sentence about the nearest match in a file."""
    if prefix is None:
        first = next(iter(file.tensors))
        return (
            f"None of the network's {len(body)} names is in the file, whose first is "
            f"{shown(first)}."
        )
    lacking, differing = [], []
    for name in sorted(body):
        record = file.tensors.get(prefix + name)
        if record is None:
            lacking.append(f"{name!r} is missing")
        elif not _fits(record, own[name]):
            differing.append(
                f"{name!r} has shape {record.shape} there ({record.dtype}), "
                f"{tuple(own[name].shape)} here ({own[name].dtype})"
            )
    examples = "".join(f"; {one}" for one in [*lacking[:1], *differing[:1]])
    return (
        f"Nearest in the file is the prefix {shown(prefix)}: {found[prefix]} of "
        f"{len(body)} names match{examples}."
    )
