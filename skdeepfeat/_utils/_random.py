"""Random numbers that do not change torch's global generators."""

import contextlib
import pickle
import random
import threading

import numpy as np
import torch

from ._forks import released_after_fork, undisturbed_by_forks

# torch.nn.init and dropout use the global generator, so two threads that set its state
# at the same time would disturb each other.
_LOCK = released_after_fork(threading.RLock())

_GENERATORS = (
    torch.Generator,
    np.random.Generator,
    np.random.RandomState,
    random.Random,
)


class RandomStream:
    """Random numbers with a seed of their own, drawn in several steps.

    The numbers do not depend on the number of steps. In a step, the global generators
    of torch have the state of the stream. Their states are restored after each step, so
    that other threads can use them in between.

    `torch.manual_seed` is not used, because it would seed the generators of all
    accelerators.

    Parameters
    ----------
    seed : int
    device : torch.device or None, default=None
        An accelerator whose generator is used in addition to the CPU's. Networks are
        always built on the CPU, so that the same seed gives the same network on all
        devices.
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
        """Draw from this stream in the body of a ``with``, which is one step."""
        # torch's generators have locks, too.
        with undisturbed_by_forks(), _LOCK, contextlib.ExitStack() as stack:
            # MPS has a single device, which cannot be selected.
            if self._accelerator is not None and self._device.type != "mps":
                stack.enter_context(self._accelerator.device(self._device))
            outside = self._get_states()
            try:
                if self._states is None:
                    torch.default_generator.manual_seed(self._seed)
                    if self._accelerator is not None:
                        self._accelerator.manual_seed(self._seed)
                else:
                    self._set_states(self._states)
                yield
            finally:
                self._states = self._get_states()
                self._set_states(outside)

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
    """Return a context in which torch's generators are seeded.

    Their states are restored afterwards.

    Parameters
    ----------
    seed, device
        As for `RandomStream`.
    """
    return RandomStream(seed, device).drawing()


def random_states(device: torch.device | None = None):
    """Return what changes when torch, NumPy or `random` draws numbers.

    Parameters
    ----------
    device
        As for `RandomStream`.

    Returns
    -------
    bytes
    """
    states = [one.numpy().tobytes() for one in RandomStream(0, device)._get_states()]
    return pickle.dumps((states, np.random.get_state(), random.getstate()))


def has_generator(module: torch.nn.Module) -> bool:
    """Return whether a module holds a generator of its own, as an attribute."""
    return any(
        isinstance(value, _GENERATORS)
        for one in module.modules()
        for value in vars(one).values()
    )


@contextlib.contextmanager
def random_states_kept(device: torch.device | None = None):
    """Restore the generators of torch, NumPy and `random` after the body of a ``with``.

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
