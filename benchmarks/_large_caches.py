"""Large caches: filled without a network, then used as users do.

Files are distinct JPEGs of a few hundred bytes. Their rows and digests are written to
the cache directly, under the key that `transform` looks for, so that no network has to
compute a million images. What is timed is the public interface.
"""

import io
import os
import pathlib
import resource
import sqlite3
import threading
import time

import numpy as np
from _common import serve
from PIL import Image

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor
from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat._utils._filestat import stat_file
from skdeepfeat.cache import Namespace, _eviction
from skdeepfeat.cache._namespace import checksum, seed_of

_N_AT_ONCE = 50_000


def write_files(folder, n_files):
    """Write small distinct JPEG files, a thousand in a folder; return their paths."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (120, 60, 30)).save(buffer, "jpeg", quality=50)
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    paths = []
    for i in range(n_files):
        parent = pathlib.Path(folder, f"{i // 1000:05d}")
        if i % 1000 == 0:
            parent.mkdir(parents=True, exist_ok=True)
        path = f"{parent}{os.sep}{i:08d}.jpg"
        with open(path, "wb", buffering=0) as file:
            # A comment (0xFFFE) of eight bytes makes each file one of its own.
            file.write(start + b"\xff\xfe\x00\x0a" + i.to_bytes(8, "big") + rest)
        paths.append(path)
    return paths


def make_extractor(job, max_size=None):
    return PretrainedFeatureExtractor(
        layer=job["layer"],
        image_size=8,
        device="cpu",
        runtime="torch",
        cache=FeatureCache(job["cache"], max_size=max_size),
    )


def make_rows(first, n_rows, n_features):
    """Return rows that tell which they are."""
    rows = np.empty((n_rows, n_features), np.float32)
    rows[:] = np.arange(first, first + n_rows)[:, None] % 65_521
    rows += np.arange(n_features, dtype=np.float32) / n_features
    return rows


def store_rows(cache, namespace, keys, n_features, first=0):
    """Store rows as a job does that computes quickly."""
    with cache.open() as store:
        for start in range(0, len(keys), _N_AT_ONCE):
            part = keys[start : start + _N_AT_ONCE]

            def compute(indices, start=start):
                for some in np.array_split(indices, -(-len(indices) // 4096)):
                    at = first + start + int(some[0])
                    yield some, [make_rows(at, len(some), n_features)]

            store.fetch([namespace], part, compute, lambda: [n_features])


def fill_known(job):
    """Write files and make them known: their digests, and rows for them."""
    paths = write_files(job["files"], job["n_files"])
    pathlib.Path(job["list"]).write_text("\n".join(paths), encoding="utf-8")
    time.sleep(2.5)  # digests of younger files are not stored
    extractor = make_extractor(job)
    n_features = extractor.transform(paths[:1]).shape[1]
    [info] = extractor.cache.info().namespaces
    namespace = Namespace(info.description, info.label)
    if namespace.key != info.key:
        raise RuntimeError("the namespace of the rows was not found")
    for start in range(0, len(paths), _N_AT_ONCE):
        part = paths[start : start + _N_AT_ONCE]
        digests = [digest_bytes(pathlib.Path(path).read_bytes()) for path in part]
        with extractor.cache.open() as store:
            store.remember([stat_file(path) for path in part], digests)
        store_rows(extractor.cache, namespace, digests, n_features, start)
    return {"n_features": n_features, "cache_mb": extractor.cache.info().size / 1e6}


def _peak():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _read_paths(job):
    lines = pathlib.Path(job["list"]).read_text(encoding="utf-8").splitlines()
    return lines[: job["n_files"]]


def _check(rows, n_files):
    # The first row is the network's own.
    if not np.array_equal(rows[1:], make_rows(1, n_files - 1, rows.shape[1])):
        raise RuntimeError("rows are not those that were stored")


def read_known(job):
    """Transform known files in a new process."""
    paths, extractor = _read_paths(job), make_extractor(job)
    extractor.transform(paths[:1])  # imports and the network are not what grows
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    rows = extractor.transform(paths)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = _peak()
    _check(rows, len(paths))
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "output_mb": rows.nbytes / 1e6,
        "grown_mb": peak - before,
    }


def compare_known(job):
    """Transform known files, beside os.stat of each and a plain table of the rows."""
    paths, extractor = _read_paths(job), make_extractor(job)
    rows = extractor.transform(paths)
    _check(rows, len(paths))
    connection = sqlite3.connect(pathlib.Path(job["cache"], "plain.db"))
    connection.execute("create table rows (path text primary key, value blob)")
    with connection:
        connection.executemany(
            "insert into rows values (?, ?)",
            ((path, row.tobytes()) for path, row in zip(paths, rows, strict=True)),
        )

    def stat():
        for path in paths:
            os.stat(path)

    def read_by_path():
        found = np.empty_like(rows)
        for i, path in enumerate(paths):
            query = "select value from rows where path = ?"
            (value,) = connection.execute(query, (path,)).fetchone()
            found[i] = np.frombuffer(value, np.float32)

    def read_in_order():
        found = np.empty_like(rows)
        query = "select rowid - 1, value from rows order by rowid"
        for i, value in connection.execute(query):
            found[i] = np.frombuffer(value, np.float32)

    def transform():
        extractor.transform(paths)

    turns = []
    for _ in range(job["n"]):
        turn = {}
        for function in (transform, stat, read_by_path, read_in_order):
            start, cpu = time.perf_counter(), time.process_time()
            function()
            turn[function.__name__] = [
                time.perf_counter() - start,
                time.process_time() - cpu,
            ]
        turns.append(turn)
    return {"turns": turns}


_LARGE = Namespace({"benchmark": "large"}, "large, avg, float32")


def _keys(first, n_keys):
    """Return keys that are anywhere in the index, as digests are."""
    return [digest_bytes(i.to_bytes(8, "big")) for i in range(first, first + n_keys)]


def fill_large(job):
    """Store rows, each with a key that is a digest.

    The index is made at the end. With an index of all rows, each of which lies
    anywhere in it, storing millions of rows at once would take many minutes.
    """
    cache = FeatureCache(job["cache"], max_size=None)
    store_rows(cache, _LARGE, _keys(0, 1), job["n_features"])
    path, seed = cache.info().path, seed_of(_LARGE.key)
    footprint = _eviction.footprint(4 * job["n_features"])
    # Not a connection of the cache's own, which refuses a file without its index.
    connection = sqlite3.connect(path, isolation_level=None)
    [(index,)] = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'rows_by_key'"
    )
    connection.execute("DROP INDEX rows_by_key")
    now = int(time.time()) - 86_400
    for first in range(1, job["n_rows"], _N_AT_ONCE):
        n_keys = min(_N_AT_ONCE, job["n_rows"] - first)
        keys = _keys(first, n_keys)
        rows = [row.tobytes() for row in make_rows(first, n_keys, job["n_features"])]
        ids = range(first + 1, first + 1 + n_keys)
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO rows (id, namespace, key, crc, data) VALUES (?, 1, ?, ?, ?)",
            (
                (row_id, key, checksum(key, row, seed), row)
                for row_id, key, row in zip(ids, keys, rows, strict=True)
            ),
        )
        connection.executemany(
            "INSERT INTO used (id, used, bytes) VALUES (?, ?, ?)",
            ((row_id, now + row_id // 1000, footprint) for row_id in ids),
        )
        connection.execute("COMMIT")
    connection.execute(index)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return {"file_mb": os.path.getsize(path) / 1e6}


def _operations(job, unlimited, size):
    """Return what can be done with a large cache of some bytes, by name."""

    def look_up(n_keys):
        first = np.random.default_rng(0).integers(job["n_rows"] // 4, job["n_rows"] - 1)
        keys = _keys(int(min(first, job["n_rows"] - n_keys)), n_keys)
        with unlimited.open() as store:
            [rows] = store.fetch([_LARGE], keys, _refuse, lambda: [1])
        assert np.isfinite(rows).all()

    def open_and_look_up_one():
        look_up(1)

    def look_up_many():
        look_up(min(100_000, job["n_rows"] // 2))

    def add_a_batch():
        store_rows(unlimited, _LARGE, _keys(2**40, 64), job["n_features"])

    def evict():
        # The limit is below what the file has, so a tenth of it and more goes.
        limited = FeatureCache(job["cache"], max_size=int(1.08 * size))
        with limited.open() as store:
            store.limits.file_bytes = int(0.98 * size)
            keys = _keys(2**41, 64)

            def compute(indices):
                yield indices, [make_rows(0, len(indices), job["n_features"])]

            store.fetch([_LARGE], keys, compute, lambda: [1])

    def info():
        assert unlimited.info().n_rows

    def check():
        assert unlimited.check().ok

    def clear():
        unlimited.clear("large*")

    operations = (open_and_look_up_one, look_up_many, add_a_batch, info, check)
    return {one.__name__: one for one in (*operations, evict, clear)}


def use_large(job):
    """Do one thing with a large cache, and watch what another thread waits for."""
    unlimited = FeatureCache(job["cache"], max_size=None)
    path = unlimited.open().path
    size = os.path.getsize(path)
    function = _operations(job, unlimited, size)[job["operation"]]
    wal, waits, finished = [0], [], threading.Event()
    tries = job["operation"] in ("evict", "clear")
    watching = threading.Thread(target=_watch, args=(path, tries, wal, waits, finished))
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    watching.start()
    try:
        function()
    finally:
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        finished.set()
        watching.join()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "grown_mb": _peak() - before,
        "wal_mb": wal[0],
        "file_mb": size / 1e6,
        "longest_wait": max(waits, default=0),
    }


def _refuse(indices):
    raise AssertionError(f"{len(indices)} rows are not known")


def _watch(path, tries_to_write, wal, waits, finished):
    """Note the size of the write-ahead log, and how long another writer waits."""
    connection = None
    if tries_to_write:
        connection = sqlite3.connect(path, timeout=600, isolation_level=None)
    while not finished.wait(0.1):
        if os.path.exists(path + "-wal"):
            wal[0] = max(wal[0], os.path.getsize(path + "-wal") / 1e6)
        if connection is not None:
            start = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            waits.append(time.perf_counter() - start)
    if connection is not None:
        connection.close()


if __name__ == "__main__":
    tasks = (fill_known, read_known, compare_known, fill_large, use_large)
    serve({task.__name__: task for task in tasks})
