"""The command line.

Commands import torch when they run, so that ``--help`` answers at once.
"""

from ._main import main

__all__ = ["main"]
