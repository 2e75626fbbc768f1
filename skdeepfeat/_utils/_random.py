"""Random numbers that leave torch's global generators as they were."""

import contextlib
import random
import threading

import numpy as np
import torch

from ._forks import released_after_fork, undisturbed_by_forks

__all__ = ["RandomStream", "random_states_kept", "seeded"]

# torch.nn.init and dropout draw from the one global generator, so two threads that
# use it at the same time would draw from each other's seeds.
_LOCK = released_after_fork(threading.RLock())


class RandomStream:
    """Numbers from torch's generators under a seed of one's own, drawn in pieces.

    They are the same in however many pieces they are drawn. Only while it draws does
    a stream occupy the generators, whose states it puts back; in between, other
    threads draw theirs.

    `torch.manual_seed` is avoided because it would reseed every accelerator's
    generator as well.

    Parameters
    ----------
    seed : int
    device : torch.device or None, default=None
        An accelerator whose generator takes part, beside the CPU's. Networks are built
        on the CPU whatever device they will run on, so that the same seed means the
        same network everywhere.
    """

    def __init__(self, seed: int, device: torch.device | None = None):
        self._seed = seed
        self._device = device
        self._accelerator = None
        if device is not None and device.type != "cpu":
            self._accelerator = getattr(torch, device.type)
        self._states = None

    @contextlib.contextmanager
    def drawing(self):
        """Let what is drawn inside come from this stream, from where it was left."""
        # torch's generators have locks of their own, too.
        with undisturbed_by_forks(), _LOCK, contextlib.ExitStack() as stack:
            # MPS has one generator, and no device to name.
            if self._accelerator is not None and self._device.type != "mps":
                stack.enter_context(self._accelerator.device(self._device))
            outside = self._get_states()
            try:
                if self._states is None:
                    self._seed_generators()
                else:
                    self._set_states(self._states)
                yield
            finally:
                self._states = self._get_states()
                self._set_states(outside)

    def _seed_generators(self):
        torch.default_generator.manual_seed(self._seed)
        if self._accelerator is not None:
            self._accelerator.manual_seed(self._seed)

    def _get_states(self):
        states = [torch.get_rng_state()]
        if self._accelerator is not None:
            states.append(self._accelerator.get_rng_state(*self._where()))
        return states

    def _set_states(self, states):
        torch.set_rng_state(states[0])
        if self._accelerator is not None:
            self._accelerator.set_rng_state(states[1], *self._where())

    def _where(self):
        return () if self._device.type == "mps" else (self._device,)


def seeded(seed: int, device: torch.device | None = None):
    """Return a context in which torch's generators draw under `seed`.

    Their states are put back after.

    Parameters
    ----------
    seed, device
        As for `RandomStream`.
    """
    return RandomStream(seed, device).drawing()


@contextlib.contextmanager
def random_states_kept(device: torch.device | None = None):
    """Leave what the user draws next as it was: of torch, NumPy and `random`.

    Parameters
    ----------
    device
        As for `RandomStream`.
    """
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with seeded(0, device):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
