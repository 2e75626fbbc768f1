"""Installing a file's weights in a network, strictly except for the head."""

import contextlib
from collections import OrderedDict
from textwrap import shorten

from ..._utils._parameter_errors import first_line
from ..._utils._printable import printable
from ._match_weights import match_network


@contextlib.contextmanager
def taken_for(network, file, head):
    """Take a network's tensors from a file, and explain why they do not fit.

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
        If something in the body of the ``with`` does not match. It names the nearest
        match.
    """
    match = match_network(file, network.state_dict(), head)
    state_dict = file.take(match.names)
    if match.versions is not None:
        state_dict._metadata = OrderedDict(match.versions)
    try:
        yield state_dict
    except Exception as error:
        # A RuntimeError of `load_state_dict`, or any error of timm's filters if the
        # tensors are not those that they expect.
        text = f"{_shorten_mismatch(network, error)} {match.nearest}"
        # torch's error lists all names in the file, as they are.
        raise ValueError(text) from None


def install_state_dict(network, state_dict, head):
    """Load `state_dict` into `network`, strictly.

    Parameters
    ----------
    network : Module
    state_dict : dict of str to Tensor
    head : tuple of str
        Names of the classifier's modules. They may be missing from the state dict, or
        have another size there, and then stay random.

    Returns
    -------
    tuple of str
        `head` if it stays random, else empty.

    Raises
    ------
    RuntimeError
        If anything else does not match. It lists the differences.
    """
    versions = getattr(state_dict, "_metadata", None)
    state_dict, kept = with_own_head(network, state_dict, head)
    own = network.state_dict()
    # Old files lack the counts of training steps, which evaluation does not use.
    counts = {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")}
    state_dict = OrderedDict({**counts, **state_dict})
    state_dict._metadata = own._metadata if versions is None else versions
    network.load_state_dict(state_dict, strict=True)
    return kept


def with_own_head(network, state_dict, head):
    """Return `state_dict`, with the network's own head if it has none that fits.

    Returns
    -------
    dict of str to Tensor, tuple of str
        The second is `head` if it was taken from the network, else empty.
    """
    own = network.state_dict()
    in_head = tuple(f"{module}." for module in head)
    of_head = {name for name in (*own, *state_dict) if name.startswith(in_head)}
    body = own.keys() - of_head
    if not body or not body & state_dict.keys():
        # Names of another convention. timm's filters may know them, but not together
        # with a second head.
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
    """Return the first lines of the RuntimeError of `load_state_dict`."""
    lines = [line.strip() for line in str(error).splitlines()[1:]]
    shown = [printable(shorten(line, 240)) for line in lines[:6]]
    if len(lines) > 6:
        shown.append(f"and {len(lines) - 6} more")
    return (
        f"The weights do not belong to this network ({type(network).__name__}): "
        f"{'; '.join(shown) or first_line(error)}. Choose the 'model' that the file "
        "was made with."
    )
