"""Smaller networks: low rank, pruning, and what they cost in score and time."""

from ._compress import compress

__all__ = ["compress"]
