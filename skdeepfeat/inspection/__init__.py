"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

from ._gradient_norms import relative_gradient_norms
from ._linear_probe import linear_probe
from ._trajectories import Trajectories, trajectories

__all__ = [
    "Trajectories",
    "linear_probe",
    "relative_gradient_norms",
    "trajectories",
]
