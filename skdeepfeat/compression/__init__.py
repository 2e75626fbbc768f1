"""Smaller networks, and what they cost in score and time; larger ones to continue with.

`compress` and `compression_curve` make networks smaller; `widen` and `deepen` make them
larger without changing what they compute.
"""

from ._compress import compress
from ._curve import compression_curve
from ._deepen import deepen
from ._export_report import export_report
from ._widen import widen

__all__ = ["compress", "compression_curve", "deepen", "export_report", "widen"]
