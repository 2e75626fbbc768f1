"""Random initialisation that leaves torch's global generator as it was."""

import contextlib
import threading

import torch

__all__ = ["seeded"]

# torch.nn.init draws from the one global generator, so two threads that initialise
# networks at the same time would draw from each other's seeds.
_LOCK = threading.Lock()


@contextlib.contextmanager
def seeded(seed: int):
    """Draw from torch's CPU generator under `seed`, and put its state back after.

    Networks are built on the CPU whatever device they will run on: the same seed then
    means the same network everywhere. `torch.manual_seed` is avoided because it would
    reseed the accelerators' generators as well.
    """
    with _LOCK:
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(state)
