"""What works without a connection, for errors."""

import contextlib
import os

from ...exceptions import WeightsNotFoundError
from . import _embedded, _torchvision
from ._downloaded_weights import DownloadError, checkpoints_folder

__all__ = ["explain_downloads", "usable_offline"]


@contextlib.contextmanager
def explain_downloads():
    """Raise WeightsNotFoundError for a failed download, with what works offline."""
    try:
        yield
    except DownloadError as error:
        raise WeightsNotFoundError(f"{error} {usable_offline()}") from error.__cause__


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
