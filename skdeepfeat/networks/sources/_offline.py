"""What works without a connection, for errors."""

import os

from . import _embedded, _torchvision
from ._downloaded_weights import checkpoints_folder


def usable_offline() -> str:
    """Return a sentence about what works here without a connection."""
    try:
        files = sorted(os.listdir(checkpoints_folder()))
    except OSError:
        files = []
    local = _torchvision.names_of_files(files)
    parts = [f"model={name!r}" for name in _embedded.list_names()]
    parts += [f"model={name!r}, weights={weights!r}" for name, weights in local]
    parts += ["weights=FILE (.safetensors, .pth)", "weights='random'"]
    return f"Usable here without a connection: {'; '.join(parts)}."
