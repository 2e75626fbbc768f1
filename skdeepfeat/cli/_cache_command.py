"""``skdeepfeat cache``: show, check and clear the feature cache."""

import contextlib
import dataclasses
import warnings

import click

from ._options import json_option
from ._output import echo, say, shown, write_result

_directory = click.option(
    "--cache",
    "directory",
    type=click.Path(exists=True, file_okay=False),
    help="Directory of the cache. The default is SKDEEPFEAT_CACHE_DIR if it is set, or "
    "the user cache directory of the platform.",
)


@click.group
def cache():
    """Show, check and clear the feature cache."""


@cache.command
@_directory
@click.option(
    "--namespace",
    metavar="PATTERN",
    help='Show only networks that match a pattern, such as "resnet*".',
)
@json_option
def info(directory, namespace, as_json):
    """Show the location and size of the cache, and its rows by network."""
    found = _info(_open(directory), namespace)
    write_result(as_json, dataclasses.asdict(found), [found])


@cache.command
@_directory
@click.option("--no-repair", is_flag=True, help="Do not remove damaged rows.")
def check(directory, no_repair):
    """Verify the checksum of every row, and remove damaged rows.

    If the structure of the file is damaged, the file is renamed. The exit status is 1
    if anything is damaged.
    """
    report = _open(directory).check(repair=not no_repair)
    echo(report)
    if not report.ok:
        click.get_current_context().exit(1)


@cache.command
@_directory
@click.option(
    "--namespace",
    metavar="PATTERN",
    help='Remove only rows of networks that match a pattern, such as "resnet*". '
    "`skdeepfeat cache info` lists the networks. By default, all rows are removed.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def clear(directory, namespace, yes):
    """Remove rows and free their disk space.

    Without --namespace, this also removes networks converted for another runtime.
    """
    store = _open(directory)
    found = _info(store, namespace)
    n_rows = sum(each.n_rows for each in found.namespaces)
    if not yes and n_rows:
        for each in found.namespaces:
            say(f"  {each}")
        click.confirm(
            shown(f"Remove {n_rows:,} rows from {found.path}?"), abort=True, err=True
        )
    with _usable(store):
        removed = store.clear(namespace)
    say(f"{removed:,} rows removed from {found.path}.")


def _open(directory):
    from .. import FeatureCache

    return FeatureCache(directory)


@contextlib.contextmanager
def _usable(store):
    """Turn the warning that a cache cannot be used into an error.

    An estimator gives correct results without a cache. These commands need it.
    """
    with warnings.catch_warnings(record=True) as given:
        yield
    for one in given:
        if (cause := getattr(one.message, "cause", None)) is not None:
            raise click.ClickException(
                f"The cache in {store.directory} cannot be used: {cause}."
            )
        warnings.showwarning(one.message, one.category, one.filename, one.lineno)


def _info(store, pattern):
    """Return the `CacheInfo` of a cache, with the networks that match a pattern."""
    with _usable(store):
        found = store.info()
    if pattern is None:
        return found
    matching = tuple(each for each in found.namespaces if each.matches(pattern))
    if not matching:
        raise click.ClickException(
            f"Nothing in {found.path} matches {pattern!r}. `skdeepfeat cache info` "
            "lists what it contains."
        )
    return dataclasses.replace(found, namespaces=matching)
