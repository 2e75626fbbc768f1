"""Smaller networks: low rank, pruning, and what they cost in score and time."""

from ._compress import compress
from ._curve import compression_curve
from ._export_report import export_report

__all__ = ["compress", "compression_curve", "export_report"]
