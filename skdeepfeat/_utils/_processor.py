"""What tells one kind of processor from another."""

import functools
import platform

import torch

_FIELDS = ("model name", "flags", "features")


@functools.cache
def describe_processor():
    """Return the name of the processor and what it can compute, in JSON types."""
    # Not `platform.processor`, which starts a program on some systems.
    found = {
        "machine": platform.machine(),
        "system": platform.system(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            # All cores are the same except for their clock rates. The description of
            # the first one ends at an empty line.
            for line in iter(file.readline, "\n"):
                name, colon, value = line.partition(":")
                if not colon:
                    break
                if name.strip().lower() in _FIELDS:
                    found[name.strip().lower()] = value.strip()
    except OSError:
        pass  # there is no such file outside Linux
    return found
