"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

__all__ = []
