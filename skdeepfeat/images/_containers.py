"""Frames, Series and other containers, recognized by their attributes.

polars and pyarrow are optional, so nothing here imports them.
"""

from collections.abc import Sequence

__all__ = ["is_frame", "list_from", "single_column"]


def is_frame(X) -> bool:
    """Return whether X is a two-dimensional table: pandas, polars, modin, cuDF."""
    return hasattr(X, "columns") and len(getattr(X, "shape", ())) == 2


def single_column(X):
    """Return the one column of a frame, or raise ValueError."""
    if X.shape[1] != 1:
        columns = list(getattr(X, "column_names", X.columns))[:5]
        names = [str(name)[:80] for name in columns]
        raise ValueError(
            "A frame X must have one column, that of the images: use X[['path']], a "
            "ColumnTransformer that chooses it, or flat_image_shape=(H, W, C) if the "
            f"columns are pixels. Got {X.shape[1]} columns: {', '.join(names)}"
            f"{' ...' if X.shape[1] > 5 else ''}."
        )
    if hasattr(X, "iloc"):
        return X.iloc[:, 0]
    return X.to_series(0) if hasattr(X, "to_series") else X.column(0)


def list_from(X) -> list | None:
    """Return the elements of a Series or sequence, None for an array."""
    for name in ("to_list", "to_pylist"):  # pandas and polars; pyarrow
        if hasattr(X, name):
            return list(getattr(X, name)())
    if isinstance(X, Sequence):
        return list(X)
    return None
