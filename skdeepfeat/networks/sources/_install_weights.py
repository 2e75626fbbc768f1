"""Putting a file's weights into a network, strictly, but for a head of another size."""

import contextlib
import re
from collections import OrderedDict

from ._match_weights import match_network

__all__ = ["install_state_dict", "taken_for", "with_own_head"]


@contextlib.contextmanager
def taken_for(network, file, head):
    """Take a network's tensors from a file, and explain why they cannot be put in.

    Parameters
    ----------
    network : Module
    file : WeightsFile
    head : tuple of str
        Names of the classifier's modules.

    Yields
    ------
    OrderedDict of str to Tensor

    Raises
    ------
    BadFileError
        If a tensor cannot be read.
    ValueError
        If, in the ``with``, something does not match. It says what is nearest.
    """
    match = match_network(file, network.state_dict(), head)
    state_dict = file.take(match.names)
    if match.versions is not None:
        state_dict._metadata = OrderedDict(match.versions)
    try:
        yield state_dict
    except Exception as error:
        # A RuntimeError of `load_state_dict`, or whatever timm's filters meet where
        # the tensors are not those that they rename.
        raise ValueError(
            f"{_shorten_mismatch(network, error)} {match.nearest}"
        ) from error


def install_state_dict(network, state_dict, head):
    """Load `state_dict` into `network`, strictly.

    Parameters
    ----------
    network : Module
    state_dict : dict of str to Tensor
    head : tuple of str
        Names of the classifier's modules. Where only they are missing from the state
        dict, or of another size there, they stay as they are.

    Returns
    -------
    tuple of str
        The head's modules where it stayed as it is, else empty.

    Raises
    ------
    RuntimeError
        If anything else does not match. It lists what.
    """
    versions = getattr(state_dict, "_metadata", None)
    state_dict, kept = with_own_head(network, state_dict, head)
    own = network.state_dict()
    # Counts of training steps, which old files lack, play no part in evaluation.
    counts = {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")}
    state_dict = OrderedDict({**counts, **state_dict})
    state_dict._metadata = own._metadata if versions is None else versions
    network.load_state_dict(state_dict, strict=True)
    return kept


def with_own_head(network, state_dict, head):
    """Return `state_dict` with the network's own head where it brings none that fits.

    Returns
    -------
    dict of str to Tensor, tuple of str
        The second is `head` where it had to be taken from the network, else empty.
    """
    own = network.state_dict()
    of_head = {
        name
        for name in (*own, *state_dict)
        if any(name.startswith(module + ".") for module in head)
    }
    body = own.keys() - of_head
    if not body or not body & state_dict.keys():
        # Names of some other convention: timm's filters may still know them, and a
        # second head would only confuse them.
        return state_dict, ()
    fits = all(
        name in own and name in state_dict and own[name].shape == state_dict[name].shape
        for name in of_head
    )
    if fits:
        return state_dict, ()
    merged = {k: v for k, v in state_dict.items() if k not in of_head}
    merged |= {k: v for k, v in own.items() if k in of_head}
    return merged, tuple(head)


def _shorten_mismatch(network, error):
    """Return a message from the RuntimeError of `load_state_dict`, cut to readable."""
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    shown = [re.sub(r"\s+", " ", line) for line in lines[:6]]
    shown = [line if len(line) <= 240 else f"{line[:240]} ..." for line in shown]
    if len(lines) > 6:
        shown.append(f"and {len(lines) - 6} more")
    return (
        f"The weights do not belong to this network ({type(network).__name__}): "
        f"{'; '.join(shown) or error}. Choose the 'model' that the file was made with."
    )
