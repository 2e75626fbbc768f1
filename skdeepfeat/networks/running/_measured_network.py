"""The cheaper of torch and a compiled network, by what the first images take in torch.

A compiled network is faster and takes longer to start. How much, depends on the network
and the machine. So torch runs the first images, which are wanted anyway, and what they
took tells whether compiling is won back by the rest. What a network was found to take
is kept with its compiled form.
"""

import contextlib
import dataclasses
import json
import logging
import math
import time

import numpy as np
import torch

from ..._utils._digests import digest_description
from ._kept_networks import key_of_network
from ._loaded_networks import is_loaded

logger = logging.getLogger(__name__)

# Measured by `benchmarks/few_rows.py` with one thread of a processor with AVX-512:
# seconds to convert a network, without the passes that are part of it, are 0.15 and
# 0.0055 for each of its innermost modules.
_SECONDS = 0.15
_SECONDS_PER_MODULE = 0.0055
# These passes run two images to trace it and three to compare it in each runtime, as
# torch.
_N_PASSES = 8
# Assumed speedup of a compiled network until it is measured. Measured: 1.3 (ViT), 1.5
# (ResNet-50), 2.8 (the installed network).
_GAIN = 1.4
# Minimum assumed speedup. Otherwise, a network that was measured on a busy machine
# would never be compiled again.
_LEAST_GAIN = 1.1
# Images that identify a user's own network, which is done before it is compiled.
_N_IDENTIFYING = 10


@contextlib.contextmanager
def cheapest_network(form, n_images, in_torch, compiled):
    """Lend a network in float32, in the form that is expected to be done first.

    Parameters
    ----------
    form : CompiledForm
        Its neck has no fingerprint if a user's own network was not identified.
    n_images : int
    in_torch : callable
        ``in_torch()`` returns an `EagerNetwork` for the images, ``in_torch(n)`` one
        for the first n.
    compiled : callable
        Returns the network in a compiled form, or None if that is impossible.

    Yields
    ------
    callable
        As `Runner` wants it.
    """
    neck, files = form.neck, form.files
    is_known = neck.fingerprint is not None or not neck.is_own
    is_ready = is_known and form.is_in_memory()
    key, costs, is_kept = None, Costs(), False
    if is_known and files is not None and not is_ready:
        key = key_of_network(form)
    if key is not None:
        is_kept = key in files
        key = key_of_costs(key)
        costs = Costs.read(files.read(key) or b"")
    known = dataclasses.replace(costs)
    torch_first = costs.prefer_torch(n_images, is_loaded=is_loaded(neck.spec))
    if is_ready or (is_kept and not torch_first):
        start = time.perf_counter()
        network = compiled()
        if is_kept:
            costs.compiled_start = time.perf_counter() - start
        network = in_torch() if network is None else costs.timed(network)
    elif is_kept:
        network = in_torch()
    else:
        was_loaded, start = is_loaded(neck.spec), time.perf_counter()
        network = in_torch(0)  # whether it pays to fold batch norms is decided later
        if not was_loaded:
            costs.torch_start = time.perf_counter() - start
        n_at_once = neck.suggested_batch_size(form.device)
        n_extra = 0 if is_known else _N_IDENTIFYING
        network = MeasuredNetwork(
            network, n_images, n_at_once, costs, compiled, n_extra
        )
    yield network
    if key is not None and costs.say_more_than(known):
        files.write(key, costs.dump())


def key_of_costs(key):
    """Return the key under which the costs of a kept network are kept."""
    return digest_description({"costs": key, "threads": torch.get_num_threads()})


@dataclasses.dataclass
class Costs:
    """What a network takes on this machine, in seconds. NaN is unknown.

    Attributes
    ----------
    torch_start, compiled_start : float
        To load the network, and to load its compiled form.
    torch_image, compiled_image : float
    """

    torch_start: float = math.nan
    torch_image: float = math.nan
    compiled_start: float = math.nan
    compiled_image: float = math.nan

    def prefer_torch(self, n_images, *, is_loaded):
        """Return whether torch is known to be done before the compiled form is.

        Parameters
        ----------
        n_images : int
        is_loaded : bool
            Whether torch's network is in memory, and only the compiled form is not.
        """
        start = 0 if is_loaded else self.torch_start
        saved = n_images * (self.torch_image - self._compiled_image())
        return start + saved < self.compiled_start

    def _compiled_image(self):
        return min(self.compiled_image, self.torch_image / _LEAST_GAIN)

    def say_more_than(self, others):
        """Return whether these measurements have a value that `others` lacks."""
        theirs = vars(others)
        return any(
            math.isnan(theirs[name]) and not math.isnan(value)
            for name, value in vars(self).items()
        )

    def winning(self, n_images, n_modules, n_extra):
        """Return whether converting a network is won back by some images.

        Parameters
        ----------
        n_images : int
        n_modules : int
            How many innermost modules the network has.
        n_extra : int
            How many images torch has to run before.
        """
        image = self.torch_image / _GAIN
        if not math.isnan(self.compiled_image):
            image = self._compiled_image()
        converting = _SECONDS + _SECONDS_PER_MODULE * n_modules
        converting += (_N_PASSES + n_extra) * self.torch_image
        return n_images * (self.torch_image - image) > converting

    def timed(self, network):
        """Return a compiled network that notes here what an image takes.

        Parameters
        ----------
        network : callable
            As `Runner` wants it.
        """

        def run(batch):
            start = time.perf_counter()
            rows = network(batch)
            if len(batch):
                took = (time.perf_counter() - start) / len(batch)
                # The first batch of a size takes longer.
                self.compiled_image = np.fmin(took, self.compiled_image)
            return rows

        return run

    def dump(self):
        """Return the costs as bytes."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def read(cls, data):
        """Return what `dump` made bytes of; unknown costs if that is not the case."""
        try:
            found = json.loads(data).items()
            return cls(**{name: float(value) for name, value in found})
        except (AttributeError, TypeError, ValueError):
            return cls()


class MeasuredNetwork:
    """Runs images in torch until it is known what is cheaper for the rest.

    Parameters
    ----------
    network : EagerNetwork
    n_images : int
        How many images are to be run.
    n_at_once : int
        How many to run at once in torch.
    costs : Costs
        Changed by what is measured.
    compiled : callable
        Returns the network in a compiled form, or None if that is impossible.
    n_extra : int
        How many images torch has to run before it is compiled.
    """

    def __init__(self, network, n_images, n_at_once, costs, compiled, n_extra):
        self._torch = network
        self._n_missing = n_images
        self._n_at_once = n_at_once
        self._costs = costs
        self._compiled = compiled
        self._n_extra = n_extra
        self._chosen = None

    def __call__(self, batch):
        """Return the rows of a batch; the parameters are those of `EagerNetwork`."""
        parts, n_done = [], 0
        while self._chosen in (None, self._torch) and n_done < len(batch):
            part = batch[n_done : n_done + self._n_at_once]
            parts.append(self._torch(part) if self._chosen else self._try(part))
            n_done += len(part)
        if n_done < len(batch) or not parts:
            parts.append((self._chosen or self._torch)(batch[n_done:]))
        return [np.concatenate(rows) for rows in zip(*parts, strict=True)]

    def _try(self, images):
        """Return rows by torch, and choose what runs the other images."""
        start = time.perf_counter()
        rows = self._torch(images)
        self._costs.torch_image = (time.perf_counter() - start) / len(images)
        self._n_missing -= len(images)
        modules = self._torch.network.modules()
        n_modules = sum(1 for one in modules if next(one.children(), None) is None)
        found = None
        if self._costs.winning(self._n_missing, n_modules, self._n_extra):
            logger.info(
                "compiling the network for the other %d images", self._n_missing
            )
            found = self._compiled()
        if found is None:
            self._torch.fold_if_worthwhile(self._n_missing)
            self._chosen = self._torch
        else:
            self._chosen, self._torch = self._costs.timed(found), None
        return rows
