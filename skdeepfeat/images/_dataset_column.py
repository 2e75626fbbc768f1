"""The images of a Hugging Face data set, still encoded.

`datasets` is not imported here: who has a data set has imported it.
"""

import sys
from collections.abc import Sequence

from skdeepfeat._utils._shown import shown


class EncodedColumn(Sequence):
    """A column of images, as dicts ``{"bytes": ..., "path": ...}``.

    They are read from Arrow's memory map when they are needed. `datasets` itself would
    decode each, so that its pixels instead of its bytes would be hashed.

    Parameters
    ----------
    dataset : datasets.Dataset
    name : str
        That of a column whose feature is `datasets.Image`.
    """

    def __init__(self, dataset, name: str):
        self._rows = dataset.with_format("arrow", columns=[name])
        self._name = name

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, i):
        return self._rows[int(i)][self._name][0].as_py()


def images_of_dataset(X):
    """Return the images of a data set or of a column of one, None for anything else.

    Returns
    -------
    EncodedColumn, list or None

    Raises
    ------
    TypeError
        If X is streamed, or several data sets.
    ValueError
        If it is a data set with several columns.
    """
    datasets = sys.modules.get("datasets")
    if not hasattr(datasets, "arrow_dataset"):  # or a module of the user's own
        return None
    _refuse_other_forms(X, datasets)
    if isinstance(X, datasets.Dataset):
        dataset, name = X, _single_column(X)
        column = X[name]
    # Before version 4, a column was a list.
    elif isinstance(X, getattr(datasets.arrow_dataset, "Column", ())):
        dataset, name, column = X.source, X.column_name, X
    else:
        return None
    # A column of a nested column, and what the user's own transform returns, are known
    # to `datasets` alone. `mode` converts what is decoded.
    if (
        isinstance(dataset, datasets.Dataset)
        and dataset.format["type"] != "custom"
        and isinstance(feature := dataset.features[name], datasets.Image)
        and getattr(feature, "mode", None) is None
    ):
        return EncodedColumn(dataset, name)
    return list(column)


def _refuse_other_forms(X, datasets):
    name = type(X).__name__
    if isinstance(X, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        advice = "choose a part and its column, as X['train']['image']"
    elif isinstance(
        X, (datasets.IterableDataset, getattr(datasets, "IterableColumn", ()))
    ):
        advice = (
            "X is streamed: load the data set without streaming=True, or use "
            "[row['image'] for row in X.take(1000)]"
        )
    else:
        return
    raise TypeError(f"X must be a column of a data set; {advice}. Got {name} instead.")


def _single_column(dataset):
    """Return the name of the one column, or raise ValueError."""
    names = dataset.column_names
    if len(names) == 1:
        return names[0]
    of_images = [
        name for name in names if type(dataset.features[name]).__name__ == "Image"
    ]
    wanted = of_images[0] if of_images else "image"
    raise ValueError(
        "X must be the column of a data set that holds its images: use "
        f"X[{shown(wanted)}]. Got a Dataset with {len(names)} columns: "
        f"{shown(names)}."
    )
