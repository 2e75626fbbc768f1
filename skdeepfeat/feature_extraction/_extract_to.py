"""Features to a file as they come, of more images than the memory has room for."""

import errno
import os
import pathlib
import shutil

import numpy as np
from tqdm.auto import tqdm

from .._utils._digests import digest_description, digest_strings
from .._utils._printable import printable, redacted
from ..exceptions import BadImageError
from ._extract import Extraction
from ._failures import warn_of
from ._file_formats import FORMATS, rows_at_once
from ._partial_file import Partial, explain_full_disk, hold

__all__ = ["check_destination", "write_features"]

# Raised when an equal job would give other files.
_FORMAT = 2


def check_destination(path, overwrite):
    """Return where to write as a path and the format, before anything is computed.

    Parameters
    ----------
    path : str or path-like
    overwrite : bool

    Returns
    -------
    path : pathlib.Path
    file_format : one of the classes in `FORMATS`, made

    Raises
    ------
    TypeError, ValueError
        If a parameter is none that `extract_to` takes.
    FileNotFoundError
        If the folder is not there.
    FileExistsError
        If something else is there that cannot be replaced.
    PermissionError
        If there is something to write and the folder may not be written to.
    ImportError
        If the format needs a package that is not installed.
    """
    if not isinstance(overwrite, (bool, np.bool_)):
        raise TypeError(
            f"The 'overwrite' parameter must be True or False. Got {overwrite!r} "
            "instead."
        )
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            "The 'path' parameter must be the path of the file to write. "
            f"Got {path!r} instead."
        )
    given, path = path, pathlib.Path(path)  # which makes "." of "", "s3:/" of "s3://"
    if "://" in os.fspath(given):
        raise ValueError(
            "The 'path' parameter must be on a local disk: write the file there and "
            f"upload it. Got {redacted(os.fspath(given))!r} instead."
        )
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"The 'path' parameter must end in {', '.join(FORMATS)}, which says what "
            f"to write. Got {os.fspath(given)!r} instead."
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            "The 'path' parameter must lie in a folder that exists: make it first. "
            f"Got {os.fspath(given)!r} instead."
        )
    file_format = kind()
    if file_format.is_in_the_way(path):
        raise FileExistsError(
            f"What is at {os.fspath(path)!r} or beside it is no {path.suffix.lower()} "
            "of features and will not be replaced: remove it, or choose another 'path'."
        )
    folder = _folder_of(path)
    # A finished file is only read, also where nothing may be written.
    if overwrite or not path.exists() or folder.exists():
        _check_permission(path.absolute().parent, given)
        if folder.is_dir():
            _check_permission(folder, given)
    if Partial.is_in_the_way(folder):
        raise FileExistsError(
            f"The 'path' parameter must leave {os.fspath(folder)!r} to what is "
            "computed on the way. Something else is there and will not be removed: "
            "move it, or choose another 'path'."
        )
    return path, file_format


def write_features(X, neck, cache, settings, names, destination, overwrite):
    """Write the features of X to a file; what is there of it already is kept.

    Parameters
    ----------
    X, neck, cache, settings
        As in `extract_features`.
    names : sequence of str
        Of the features.
    destination : tuple
        From `check_destination`.
    overwrite : bool
        Whether to replace what is there, and the beginnings of another job.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path, file_format = destination
    folder = _folder_of(path)
    failures = None
    with cache.open() as store:
        extraction = Extraction(X, neck, store, settings)
        images = _paths_of(extraction.source)
        job = _describe(extraction, images, names)
        if path.exists() and not overwrite and not folder.exists():
            failures = _settle_for(path, file_format, job, extraction)
        if failures is None:
            with hold(folder):
                failures = _write(
                    extraction, images, names, job, folder, destination, overwrite
                )
    if failures:
        warn_of(failures)
    return path


def _check_permission(folder, path):
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise PermissionError(
            "The 'path' parameter must lie in a folder that this user may write to. "
            f"{os.fspath(folder)!r} is none: choose another 'path', or change its "
            f"permissions. Got {os.fspath(path)!r} instead."
        )


def _folder_of(path):
    """Return where the rows of a file lie until it is whole."""
    return path.with_name(f"{path.name}.partial")


def _write(extraction, images, names, job, folder, destination, overwrite):
    """Write the file, with `folder` to oneself; return what could not be read."""
    path, file_format = destination
    job = extraction.as_noted(job, Partial.job_in(folder))
    is_worth_keeping = os.path.lexists(folder / "rows.npy")
    try:
        # Whoever had the folder before may have written the file meanwhile.
        if path.exists() and not overwrite:
            failures = _settle_for(path, file_format, job, extraction)
            # What is left of this job is done with; a half of another one is not ours.
            is_worth_keeping = Partial.job_in(folder) not in (None, job)
            return failures
        _refuse_another_half(folder, job, overwrite)
        with Partial(folder, job, (len(extraction), len(names))) as partial:
            is_worth_keeping = partial.done.any()
            _check_room(partial, file_format.copies_rows)
            try:
                _fill(extraction, partial)
            finally:
                is_worth_keeping = partial.done.any()
            failures = extraction.failures()
            record = _sealed(job, [_as_json(one) for one in failures])
            with explain_full_disk(folder):
                assembled = file_format.assemble(partial, names, images, record)
        with explain_full_disk(folder):
            file_format.install(assembled, path, names, record)
        is_worth_keeping = False
        return failures
    finally:
        if not is_worth_keeping:
            Partial.remove(folder)


def _fill(extraction, partial):
    """Compute what is missing, a part at a time, and put it where it belongs."""
    n_rows, n_features = partial.shape
    twins = _twins(extraction.digests)
    size = rows_at_once(n_features)
    with tqdm(
        total=n_rows,
        initial=int(partial.done.sum()),
        desc=printable(extraction.neck.model_name),
        unit="image",
        disable=extraction.settings.verbose < 1,
    ) as bar:
        for start in range(0, n_rows, size):
            stop = min(start + size, n_rows)
            _copy_twins(partial, _missing(partial, start, stop), twins)
            wanted = _missing(partial, start, stop)
            if len(wanted):
                _fetch(extraction, partial, wanted, bar)
            bar.update(stop + int(partial.done[stop:].sum()) - bar.n)


def _missing(partial, start, stop):
    return start + np.flatnonzero(~partial.done[start:stop])


def _fetch(extraction, partial, wanted, bar):
    """Write rows, those that are computed as they come, those of the cache after."""

    def on_computed(rows, outputs, n_bad):
        if len(rows):
            partial.write(rows, _side_by_side(outputs))
        bar.update(len(rows) + n_bad)

    values = _side_by_side(extraction.fetch(wanted, on_computed))
    left = ~partial.done[wanted]
    failed = extraction.failed(wanted) & left
    if left.any():
        left &= ~failed
        partial.write(wanted[left], values if left.all() else values[left])
        # Not noted as there: next time they are looked at again, and listed again.
        partial.place(wanted[failed], values[failed])


def _side_by_side(outputs):
    return outputs[0] if len(outputs) == 1 else np.hstack(outputs)


def _twins(digests):
    """Return {row: the first row with the same image}, of those that are not first."""
    first, twins = {}, {}
    for row, digest in enumerate(digests):
        if digest is not None and first.setdefault(digest, row) != row:
            twins[row] = first[digest]
    return twins


def _copy_twins(partial, rows, twins):
    """Take rows from where the same image stood in an earlier part.

    No cache has to remember them for an image to go through the network once.
    """
    for row in rows.tolist():
        twin = twins.get(row, row)
        if partial.done[twin]:
            partial.write(np.array([row]), partial.read(twin, twin + 1))


def _paths_of(source):
    """Return the path of each image, or None if none of them has one."""
    paths = [_as_text(source.path(row)) for row in range(len(source))]
    return paths if any(path is not None for path in paths) else None


def _as_text(path):
    try:
        return path if path is None or path.isascii() else path.encode().decode()
    except UnicodeEncodeError:  # not UTF-8 on the disk: shown, not kept
        return os.fsencode(path).decode("utf-8", "backslashreplace")


def _describe(extraction, images, names):
    """Return all that the file depends on, as JSON types."""
    return {
        "format": _FORMAT,
        **extraction.describe_network(),
        "feature names": digest_description({"names": list(names)}),
        "images": digest_strings(digest or b"" for digest in extraction.digests),
        "paths": digest_strings((path or "").encode() for path in images or ()),
        "number of images": len(extraction),
        "number of features": len(names),
    }


def _differences(other, job):
    differing = [key for key in job if other.get(key) != job[key]]
    return f"it differs in: {', '.join(differing)}"


def _settle_for(path, file_format, job, extraction):
    """Return the failures noted in a finished file; raise if it is another job's."""
    record = file_format.read_record(path)
    if not _is_record(record):
        raise _exists(
            path, "was not written by extract_to, or was changed since; it stays"
        )
    job = extraction.as_noted(job, record["job"])
    if record["job"] != job:
        raise _exists(
            path,
            f"holds the features of another call ({_differences(record['job'], job)})",
        )
    failures = [BadImageError(*one) for one in record["failures"]]
    if failures and extraction.settings.on_error == "raise":
        raise failures[0]
    return failures


def _sealed(job, failures):
    """Return what is noted in a finished file: damage to it is noticed."""
    record = {"job": job, "failures": failures}
    return {**record, "checksum": digest_description(record)}


def _is_record(record):
    """Return whether what stands in a file has the form that `_write` gave it."""
    if not isinstance(record, dict) or not isinstance(record.get("job"), dict):
        return False
    failures = record.get("failures")
    sealed = _sealed(record["job"], failures)
    return isinstance(failures, list) and all(
        record.get(key) == value for key, value in sealed.items()
    )


def _refuse_another_half(folder, job, overwrite):
    other = Partial.job_in(folder)
    if other is not None and other != job and not overwrite:
        raise _exists(
            folder,
            f"holds what another call has computed so far ({_differences(other, job)})",
        )


def _exists(path, what):
    return FileExistsError(
        f"{os.fspath(path)!r} {what}. Use overwrite=True to replace it, or choose "
        "another 'path'."
    )


def _check_room(partial, copies_rows):
    """Say at once, not after hours, that the disk has no room for the result."""
    usage = shutil.disk_usage(partial.folder)
    needed = partial.missing_bytes()
    if copies_rows:
        needed += partial.n_bytes() // 2  # features do not shrink to less
    if usage.total and usage.free < needed:
        raise OSError(
            errno.ENOSPC,
            f"The features need about {needed / 1e6:,.1f} MB of room in "
            f"{os.fspath(partial.folder.parent.absolute())!r}, where "
            f"{usage.free / 1e6:,.1f} MB are left: make room, or choose another 'path'",
        )


def _as_json(failure):
    return [failure.cause, failure.row, failure.origin]
