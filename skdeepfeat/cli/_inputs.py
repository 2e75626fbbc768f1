"""From arguments of the command line to the paths of images."""

import os
import sys

import click

from .._utils._address import is_address
from .._utils._parameter_errors import did_you_mean
from ._output import say

_TABLES = (".csv", ".tsv", ".parquet")
_LISTS = (*_TABLES, ".txt")


def collect_paths(
    inputs, from_file=None, column=None, root=None, storage_options=None, *, quiet
):
    """Return the paths of the images, in the order in which they were given.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders, addresses.
    from_file : str or None, default=None
        A file that lists paths; "-" is the standard input.
    column : str or None, default=None
        The column of a table that holds the paths.
    root : str or None, default=None
        The folder of relative paths in `from_file`. None is the working folder.
    storage_options : dict or None, default=None
        If given, addresses of folders are searched as well.
    quiet : bool
        Whether not to say how many files in the folders are not images.

    Returns
    -------
    list of str

    Raises
    ------
    click.UsageError
        If an input does not exist or contains no image.
    """
    if from_file is None and (column is not None or root is not None):
        raise click.UsageError("--column and --root require --from-file.")
    if not inputs and from_file is None:
        raise click.UsageError("Give images, folders, or a list with --from-file.")
    paths, n_skipped = [], 0
    for name in inputs:
        found, skipped = _images_of(name, storage_options)
        paths += found
        n_skipped += len(skipped)
    if from_file is not None:
        listed = _read_list(from_file, column)
        if not listed:
            raise click.UsageError(f"There is no path in {from_file!r}.")
        paths += [_below(root, path) for path in listed]
    if n_skipped and not quiet:
        say(f"{n_skipped:,} other file(s) in the folders were skipped.")
    return paths


def _images_of(name, storage_options):
    if is_address(name) and storage_options is None:
        return [name], []
    if is_address(name) or os.path.isdir(name):
        from ..images import find_images

        found, skipped = find_images(name, storage_options=storage_options)
        if not found:
            raise click.UsageError(
                f"There is no image in the folder {name!r}"
                + (f", only {len(skipped)} other file(s)." if skipped else ".")
            )
        return found, skipped
    if not os.path.lexists(name):
        raise click.UsageError(f"There is no file or folder {name!r}.")
    if name.lower().endswith(_LISTS):
        raise click.UsageError(
            f"{name!r} is not an image. If it lists paths of images: --from-file {name}"
        )
    return [name], []


def _below(root, path):
    # An empty cell stays empty: a row without an image.
    if root is None or not isinstance(path, str) or is_address(path):
        return path
    return os.path.join(root, path)


def _read_list(path, column):
    if path != "-" and not os.path.isfile(path):
        if os.path.isdir(path):
            raise click.UsageError(
                f"{path!r} is a folder: give it without --from-file."
            )
        if not os.path.exists(path):  # otherwise a pipe, such as <(...) in a shell
            raise click.UsageError(f"There is no file {path!r}.")
    if column is None and not path.lower().endswith(_TABLES):
        return _read_lines(path)
    return _column_of(_read_table(path), column, path)


def _read_lines(path):
    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\r\n") for line in file]
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{path!r} must be text, in UTF-8, with one path per line ({error})."
        ) from error
    return [line for line in lines if line.strip()]


def _read_table(path):
    import pandas as pd

    from .._utils._optional import import_optional

    try:
        if path.lower().endswith(".parquet"):
            import_optional("pyarrow", extra="parquet", purpose="Reading Parquet files")
            return pd.read_parquet(path)
        return pd.read_csv(
            sys.stdin if path == "-" else path,
            sep="\t" if path.lower().endswith(".tsv") else ",",
            dtype=str,
            # A file may be named NA.
            keep_default_na=False,
            na_values=[""],
        )
    except ValueError as error:  # as are the errors of pandas and pyarrow
        raise click.UsageError(f"{path!r} is not a table: {error}") from error


def _column_of(table, column, path):
    columns = [str(each) for each in table.columns]
    if column is None:
        if len(columns) > 1:
            raise click.UsageError(
                f"Use --column to select which of the {len(columns)} columns of "
                f"{path!r} holds the paths: {', '.join(columns[:12])}."
            )
        column = columns[0]
    if column not in columns:
        raise click.UsageError(
            f"{path!r} has no column {column!r}, but {', '.join(columns[:12])}."
            f"{did_you_mean(column, columns)}"
        )
    values = table.iloc[:, columns.index(column)]
    return values.astype(object).where(values.notna(), None).tolist()
