"""What is known of a network by its name or module: its layers and stages."""

import contextlib
import functools
import json

import torch
from torch.overrides import TorchFunctionMode

from ..._utils._random import seeded
from .._copying import copy_network
from .._parameter_errors import is_about
from ._diagnosis import check_module, explain_failure
from ._probe import Probe, probe_network
from ._stages import find_last_map, find_stages

__all__ = ["build_meta", "last_map_of", "probe_spec", "stages_of"]


def probe_spec(spec, size=None, explains=True):
    """Return the `Probe` of a network at its own or another size, remembered by name.

    Parameters
    ----------
    spec : NetworkSpec
    size : tuple of (int, int), default=None
        By default that of its preprocessing.
    explains : bool, default=True
        Whether to try out what is wrong where it fails.
    """
    size = size or spec.preprocessing.crop
    if spec.module is not None:
        return _probe(spec, size, explains)
    key = (json.dumps(spec.architecture, sort_keys=True), size)
    if key not in _probes:
        # Threads may do this twice; the results are equal.
        _probes[key] = _probe(spec, size, explains)
    return _probes[key]


_probes: dict[tuple, Probe] = {}


def _probe(spec, size, explains):
    if spec.module is not None:
        check_module(spec.module)
    build = functools.partial
    try:
        return probe_network(
            [build(build_meta, spec, True), build(build_meta, spec, False)],
            build(_build_real, spec),
            size,
            spec.has_pre_logits,
            spec.classifier,
        )
    except Exception as error:  # networks are anybody's code
        if is_about(error, "model"):
            raise
        if not explains:
            raise ValueError(str(error)) from error
        raise explain_failure(
            spec.name,
            size,
            error,
            [build(build_meta, spec), build(_build_real, spec)],
            spec.native_size if spec.module is None else None,
        ) from error


def build_meta(spec, keep_numbers=True):
    """Return a network without numbers; `keep_numbers` reads them on the CPU."""
    if spec.module is not None:
        return copy_network(spec.module, torch.device("meta"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(0))
        stack.enter_context(torch.device("meta"))
        if keep_numbers:
            stack.enter_context(_NumbersOnCpu())
        return spec.build().to("meta")


class _NumbersOnCpu(TorchFunctionMode):
    """Leave numbers that are read while a network is built where they can be read.

    torchvision computes the widths of its RegNets from them, older timm the rates at
    which paths are dropped.
    """

    _FACTORIES = (torch.arange, torch.linspace, torch.tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def _build_real(spec):
    if spec.module is not None:
        return copy_network(spec.module, torch.device("cpu"))
    with seeded(0):
        return spec.build()


def last_map_of(spec):
    """Return the name of the last layer with a map or tokens, or None.

    It is looked for at the size the weights were made for, as a small image's last map
    may be of one position.

    Parameters
    ----------
    spec : NetworkSpec
    """
    try:
        return find_last_map(probe_spec(spec, spec.native_size, explains=False))
    except ValueError:
        return find_last_map(probe_spec(spec))


def stages_of(spec):
    """Return the names of the layers that end a network's stages.

    They are found at the size the weights were made for, or at the wanted one where the
    network takes no other, as timm's transformers and some users' modules.

    Parameters
    ----------
    spec : NetworkSpec

    Returns
    -------
    tuple of str
    """
    size, wanted = spec.native_size, spec.preprocessing.crop
    if "img_size" not in spec.architecture:
        try:
            return find_stages(probe_spec(spec, size, size == wanted), size)
        except ValueError:
            if size == wanted:
                raise
    return find_stages(probe_spec(spec, wanted), wanted)
