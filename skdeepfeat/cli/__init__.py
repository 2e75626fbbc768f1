"""The command line: arguments to the public interface, results to stdout.

A command imports what is heavy when it runs, so that ``--help`` answers at once.
"""

from ._main import main

__all__ = ["main"]
