"""Write the features of more images than fit into memory while they are computed."""

import errno
import os
import pathlib
import shutil

import numpy as np

from .._utils._address import check_local
from .._utils._digests import digest_description, digest_strings
from .._utils._parameter_errors import choice_error
from .._utils._printable import printable
from .._utils._public_function import public_function
from ..exceptions import BadImageError
from ._extraction import side_by_side
from ._failures import warn_of
from ._file_formats import FORMATS, indices_at_once
from ._partial_file import Partial, explain_full_disk, hold, is_intact, with_checksum

# Increased when an equal job would give a different file.
_FORMAT = 2


class FileWriterMixin:
    """Mixin class with the method `extract_to`."""

    @public_function
    def extract_to(self, X, path, *, overwrite=False):
        """Write the features of the images to a file, with little memory.

        Features are written as they are computed. If a call is interrupted by Ctrl-C, a
        kill or a full disk, the same call continues where it stopped. If the file is
        complete, the call returns immediately. Intermediate results are in the folder
        ``path + ".partial"``, which is removed at the end. If several processes write
        the same file, one of them does the work and the others wait.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,) or as described in the Notes
            A `numpy.memmap` is not loaded into memory.

        path : str or path-like
            A path on a local disk, not an address such as ``s3://bucket/a.npy``. The
            extension selects the format. Row i of the file belongs to image i.

            * ``.parquet`` (extra ``[parquet]``): a column ``image`` with the path of
              the image, or with its index if X holds no paths, and a column of float32
              for each name of `get_feature_names_out`. `pandas.read_parquet` makes
              ``image`` the index. `polars.scan_parquet` and `pyarrow.dataset` can read
              a part of the file.
            * ``.npy``: an array, for ``numpy.load(path, mmap_mode="r")``. The file
              ``path + ".json"`` next to it has the names of the columns.
            * ``.zarr`` (extra ``[zarr]``): an array in chunks of rows.

        overwrite : bool, default=False
            Whether to replace the file of another call, or its intermediate results.

        Returns
        -------
        path : pathlib.Path
            The file.

        Raises
        ------
        FileExistsError
            With ``overwrite=False``, if `path` holds something other than the features
            of X from this network.
        BadImageError
            If an image cannot be read, with ``on_error="raise"``. Intermediate results
            are kept.
        NonFiniteOutputError
            If the network returns NaN or infinite values for an image that can be read.
            Intermediate results are kept.
        OSError
            If the disk is full. Intermediate results are kept.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from skdeepfeat import PretrainedFeatureExtractor
        >>> X = np.zeros((3, 32, 32, 3), dtype=np.uint8)
        >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = extractor.extract_to(X, f"{folder}/features.npy")
        ...     np.load(path, mmap_mode="r").shape
        (3, 1280)
        """
        self._validate_params()
        destination = _check_destination(path, overwrite)
        X = self._check_images(X, reset=False)
        with self._extraction(X) as extraction:
            names = feature_names(extraction.neck)
            return _write_features(extraction, names, destination, overwrite)


def feature_names(neck):
    """Return the names of all features of a neck."""
    pairs = zip(neck.feature_name_prefixes(), neck.n_features(), strict=True)
    names = [f"{prefix}_{i:03d}" for prefix, n in pairs for i in range(n)]
    return np.array(names, dtype=object)


def _check_destination(path, overwrite):
    """Check where to write before anything is computed.

    Parameters
    ----------
    path : str or path-like
    overwrite : bool

    Returns
    -------
    instance of one of the classes in `FORMATS`

    Raises
    ------
    TypeError, ValueError
        If `extract_to` does not accept a parameter.
    FileNotFoundError
        If the folder does not exist.
    FileExistsError
        If something is there that must not be replaced.
    PermissionError
        If there is something to write and the folder is not writable.
    ImportError
        If the format needs a package that is not installed.
    """
    if not isinstance(overwrite, (bool, np.bool_)):
        raise choice_error("overwrite", "True or False", overwrite, error=TypeError)
    if not isinstance(path, (str, os.PathLike)):
        wanted = "the path of the file to write"
        raise choice_error("path", wanted, path, error=TypeError)
    check_local(path, "path")
    given, path = path, pathlib.Path(path)  # which turns "" into "."
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(
            f"The 'path' parameter must end in {', '.join(FORMATS)}, which selects the "
            f"format. Got {os.fspath(given)!r} instead."
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            "The 'path' parameter must be in a folder that exists: create it first. "
            f"Got {os.fspath(given)!r} instead."
        )
    file_format = kind(path)
    if file_format.is_in_the_way():
        raise FileExistsError(
            f"{os.fspath(path)!r}, or the file of notes next to it, was not written by "
            "extract_to and will not be replaced: remove it, or choose another 'path'."
        )
    folder = _folder_of(path)
    # A complete file is only read, which needs no permission to write.
    if overwrite or not path.exists() or folder.exists():
        _check_permission(path.absolute().parent, given)
        if folder.is_dir():
            _check_permission(folder, given)
    if Partial.is_in_the_way(folder):
        raise FileExistsError(
            f"The 'path' parameter must leave {os.fspath(folder)!r} for intermediate "
            "results. Something else is there and will not be removed: move it, or "
            "choose another 'path'."
        )
    return file_format


def _write_features(extraction, names, file_format, overwrite):
    """Write features to a file, reusing what an earlier call has written of it.

    Parameters
    ----------
    extraction : Extraction
    names : sequence of str
        Names of the features.
    file_format : instance of one of the classes in `FORMATS`
        From `_check_destination`.
    overwrite : bool
        Whether to replace the file of another call, or its intermediate results.

    Returns
    -------
    pathlib.Path
        The file.
    """
    path = file_format.path
    images = _paths_of(extraction.source)
    job = {
        "format": _FORMAT,
        **extraction.describe_network(),
        "feature names": digest_description({"names": list(names)}),
        "images": digest_strings(digest or b"" for digest in extraction.digests),
        "paths": digest_strings((image or "").encode() for image in images or ()),
        "number of images": len(extraction),
        "number of features": len(names),
    }
    folder = _folder_of(path)
    if path.exists() and not overwrite and not folder.exists():
        failures = _failures_of_finished(file_format, job, extraction)
    else:
        with hold(folder):
            failures = _write(extraction, images, names, job, file_format, overwrite)
    if failures:
        warn_of(failures)
    return path


def _check_permission(folder, path):
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise PermissionError(
            "The 'path' parameter must be in a folder that this user may write to. "
            f"{os.fspath(folder)!r} is not: choose another 'path', or change its "
            f"permissions. Got {os.fspath(path)!r} instead."
        )


def _folder_of(path):
    """Return the folder of the intermediate results."""
    return path.with_name(f"{path.name}.partial")


def _write(extraction, images, names, job, file_format, overwrite):
    """Write the file while holding the folder; return what could not be read."""
    folder = _folder_of(file_format.path)
    other = Partial.job_in(folder)
    job = extraction.as_noted(job, other)
    is_worth_keeping = os.path.lexists(folder / "rows.npy")
    try:
        # The process that held the folder before may have written the file.
        if file_format.path.exists() and not overwrite:
            failures = _failures_of_finished(file_format, job, extraction)
            # Intermediate results of this job are no longer needed. Those of another
            # job are not removed.
            is_worth_keeping = other not in (None, job)
            return failures
        if other not in (None, job) and not overwrite:
            raise _exists(
                folder,
                "holds what another call has computed so far "
                f"({_differences(other, job)})",
            )
        with Partial(folder, job, (len(extraction), len(names))) as partial:
            try:
                _check_disk_space(partial, file_format.copies_rows)
                _fill(extraction, partial)
            finally:
                is_worth_keeping = partial.done.any()
            failures = extraction.failures()
            causes = [list(one.args) for one in failures]
            record = with_checksum({"job": job, "failures": causes})
            with explain_full_disk(folder):
                assembled = file_format.assemble(partial, names, images, record)
        with explain_full_disk(folder):
            file_format.install(assembled, names, record)
        is_worth_keeping = False
        return failures
    finally:
        if not is_worth_keeping:
            Partial.remove(folder)


def _fill(extraction, partial):
    """Compute what is missing, one part of the images at a time."""
    n_images, n_features = partial.shape
    first = _first_with_same_content(extraction.digests)
    size = indices_at_once(n_features)
    title = printable(extraction.neck.spec.model_name)
    n_done = int(partial.done.sum())
    settings = extraction.settings
    with settings.progress_bar(n_images, title, initial=n_done) as bar:
        for start in range(0, n_images, size):
            stop = min(start + size, n_images)
            # Duplicates of images in earlier parts. So an image goes through the
            # network once even without a cache.
            for i in _missing(partial, start, stop).tolist():
                if partial.done[first[i]]:
                    row = partial.read(first[i], first[i] + 1)
                    partial.write(np.array([i]), row)
            missing = _missing(partial, start, stop)
            if len(missing):
                _fetch(extraction, partial, missing, bar)
            bar.update(stop + int(partial.done[stop:].sum()) - bar.n)


def _missing(partial, start, stop):
    return start + np.flatnonzero(~partial.done[start:stop])


def _fetch(extraction, partial, missing, bar):
    """Write the features of images: computed ones at once, known ones at the end."""

    def on_computed(indices, outputs, n_bad):
        if len(indices):
            partial.write(indices, side_by_side(outputs))
        bar.update(len(indices) + n_bad)

    values = side_by_side(extraction.fetch(missing, on_computed))
    left = ~partial.done[missing]
    failed = extraction.failed(missing) & left
    left &= ~failed
    partial.write(missing[left], values if left.all() else values[left])
    # Not marked done, so that the next call tries these images again.
    partial.place(missing[failed], values[failed])


def _first_with_same_content(digests):
    """Return for each image the index of the first image with the same content."""
    first = {}
    return [
        i if digest is None else first.setdefault(digest, i)
        for i, digest in enumerate(digests)
    ]


def _paths_of(source):
    """Return the path of each image, or None if none of them has one."""
    paths = [_as_text(source.path(i)) for i in range(len(source))]
    return paths if any(path is not None for path in paths) else None


def _as_text(path):
    try:
        return path if path is None or path.isascii() else path.encode().decode()
    except UnicodeEncodeError:  # the name is not UTF-8 on the disk
        return os.fsencode(path).decode("utf-8", "backslashreplace")


def _differences(other, job):
    differing = [key for key in job if other.get(key) != job[key]]
    return f"it differs in: {', '.join(differing)}"


def _failures_of_finished(file_format, job, extraction):
    """Return the failures noted in a complete file; raise if it has another job."""
    path, record = file_format.path, file_format.read_record()
    if not is_intact(record, "job", "failures"):
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


def _exists(path, what):
    return FileExistsError(
        f"{os.fspath(path)!r} {what}. Use overwrite=True to replace it, or choose "
        "another 'path'."
    )


def _check_disk_space(partial, copies_rows):
    """Raise if the disk has no space for the result, before hours of computing."""
    usage = shutil.disk_usage(partial.folder)
    needed = partial.missing_bytes()
    if copies_rows:
        needed += partial.n_bytes() // 2  # compressed features are at least that large
    if usage.total and usage.free < needed:
        raise OSError(
            errno.ENOSPC,
            f"The features need about {needed / 1e6:,.1f} MB in "
            f"{os.fspath(partial.folder.parent.absolute())!r}, where "
            f"{usage.free / 1e6:,.1f} MB are free: free some space, or choose another "
            "'path'",
        )
