"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

from ._linear_probe import linear_probe
from ._similarity import cka, similarity
from ._transfer_scores import transfer_scores

__all__ = ["cka", "linear_probe", "similarity", "transfer_scores"]
