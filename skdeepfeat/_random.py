"""Random numbers that leave torch's global generators as they were."""

import contextlib
import threading

import torch

__all__ = ["seeded"]

# torch.nn.init and dropout draw from the one global generator, so two threads that
# use it at the same time would draw from each other's seeds.
_LOCK = threading.RLock()


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None):
    """Draw from torch's generators under `seed`, and put their states back after.

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
    accelerator = None
    if device is not None and device.type != "cpu":
        accelerator = getattr(torch, device.type)
    # MPS has one generator, and no device to name.
    where = (device,) if device is not None and device.type != "mps" else ()
    with _LOCK, contextlib.ExitStack() as stack:
        state = torch.get_rng_state()
        if accelerator is not None:
            if where:
                stack.enter_context(accelerator.device(device))
            accelerator_state = accelerator.get_rng_state(*where)
        try:
            torch.default_generator.manual_seed(seed)
            if accelerator is not None:
                accelerator.manual_seed(seed)
            yield
        finally:
            torch.set_rng_state(state)
            if accelerator is not None:
                accelerator.set_rng_state(accelerator_state, *where)
