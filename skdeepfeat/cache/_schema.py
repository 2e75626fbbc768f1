"""The schema of the cache file, as data: files are made from it and compared with it.

A file from a stranger may have triggers, computed columns, or a view that never ends
instead of a table. So a file is used only if its schema is exactly what this package
writes.
"""

import contextlib
import functools
import sqlite3

from ._errors import StoreDamaged

# In the file's name too, so that two versions of this package with different
# formats do not quarantine each other's files. It must change with the statements.
FORMAT = 3
APPLICATION_ID = 0x736B6466  # "skdf"
# Rows are several kilobytes: pages of 4 KiB read 1.7 times slower.
PAGE_SIZE = 65536

_STATEMENTS = (
    """CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, label TEXT, description TEXT,
    used INTEGER)""",
    """CREATE TABLE rows (
    id INTEGER PRIMARY KEY, namespace INTEGER, key BLOB, crc INTEGER, data BLOB)""",
    "CREATE UNIQUE INDEX rows_by_key ON rows (namespace, key)",
    """CREATE TABLE variants (
    id INTEGER PRIMARY KEY, namespace TEXT, name TEXT, key TEXT, crc INTEGER,
    seen INTEGER, data BLOB)""",
    "CREATE INDEX variants_by_namespace ON variants (namespace)",
    "CREATE TABLE used (id INTEGER PRIMARY KEY, used INTEGER, bytes INTEGER)",
    "CREATE INDEX used_by_time ON used (used)",
    """CREATE TABLE files (
    key BLOB PRIMARY KEY, digest BLOB, crc INTEGER, seen INTEGER
) WITHOUT ROWID""",
)
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name LIMIT ?"
_PRAGMAS = (
    ("application_id", APPLICATION_ID),
    ("user_version", FORMAT),
    ("page_size", PAGE_SIZE),
)


def build(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    for statement in _STATEMENTS:
        connection.execute(statement)


def check(connection: sqlite3.Connection) -> None:
    """Raise `StoreDamaged` unless the file is one that `build` has made."""
    for name, value in _PRAGMAS:
        if connection.execute(f"PRAGMA {name}").fetchone() != (value,):
            raise StoreDamaged("it is not a feature cache, or one of another version")
    expected = _expected()
    if connection.execute(_OBJECTS, (len(expected) + 1,)).fetchall() != expected:
        raise StoreDamaged("its tables are not those of a feature cache")


@functools.cache
def _expected() -> list[tuple]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        build(connection)
        return connection.execute(_OBJECTS, (-1,)).fetchall()
