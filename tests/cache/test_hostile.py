"""Cache files from strangers: no hang, no link followed, and always the right rows."""

import os
import shutil
import signal
import socket
import sqlite3
import struct
import warnings

import pytest

from skdeepfeat import CacheWarning
from skdeepfeat.cache import FeatureCache, MappingCache, _connection
from skdeepfeat.cache._connection import FORMAT, PAGE_SIZE, Bounds
from skdeepfeat.cache._errors import StoreDamaged
from tests.cache.pretend import Nets, finish, start

FILE = f"features-v{FORMAT}.sqlite"
IMAGES = list(range(12))
ENDLESS = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) "
posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX systems")


@pytest.fixture
def path(cache):
    """Return the path of a cache file with the rows of `IMAGES`."""
    Nets({"a": 3}).fetch(cache, IMAGES)
    with cache.open() as store:
        return store.database.path


def change(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def is_set_aside(cache):
    """Fetch: the rows are right, and one warning says that the file was quarantined."""
    with pytest.warns(CacheWarning) as caught:
        Nets({"a": 3}).check_fetch(cache, IMAGES)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Nets({"a": 3}).check_fetch(cache, IMAGES)  # what was read before the damage
        assert Nets({"a": 3}).check_fetch(cache, IMAGES) == []
        assert cache.info().n_rows == len(IMAGES)
    return "quarantined" in str(caught[0].message)


@pytest.mark.parametrize(
    "statements",
    [
        ["DROP TABLE rows", f"CREATE VIEW rows AS {ENDLESS} SELECT x AS id FROM c"],
        ["DROP TABLE used", f"CREATE VIEW used AS {ENDLESS} SELECT x AS id FROM c"],
        ["DROP TABLE files", f"CREATE VIEW files AS {ENDLESS} SELECT x AS key FROM c"],
        [f"CREATE VIEW more AS {ENDLESS} SELECT x FROM c"],
        [
            "CREATE TRIGGER more AFTER INSERT ON rows BEGIN DELETE FROM rows; END",
        ],
        ["CREATE INDEX more ON rows (length(data))"],
        ["DROP INDEX rows_by_key"],
        ["CREATE TABLE more (x)"],
        ["ALTER TABLE used ADD COLUMN more AS (used + 1)"],
        ["ALTER TABLE rows RENAME COLUMN data TO more"],
        ["CREATE VIRTUAL TABLE more USING fts5(x)"],
        ["PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"],
    ],
    ids=lambda statements: statements[-1][:24],
)
def test_another_schema(cache, path, statements):
    change(path, *statements)
    assert is_set_aside(cache)


@pytest.mark.parametrize("tables", [("namespaces", "rows"), ("used", "files")])
def test_tables_that_share_their_pages(cache, path, tables):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master "
        "WHERE name = ?) WHERE name = ?",
        tables[::-1],
    )
    connection.close()
    assert is_set_aside(cache)


def link_to_another(path):
    os.rename(path, path + "-other")
    os.symlink(path + "-other", path)


def bind_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        # A path of a socket is short: from within its directory.
        before = os.getcwd()
        os.chdir(os.path.dirname(path))
        try:
            server.bind(os.path.basename(path))
        finally:
            os.chdir(before)


@posix
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link_to_another, bind_socket])
def test_what_is_not_a_plain_file(cache, path, make):
    if make is not link_to_another:
        os.remove(path)
    make(path)
    assert is_set_aside(cache)


@posix
def test_a_link_to_nowhere(cache, path, tmp_path):
    os.remove(path)
    os.symlink(tmp_path / "elsewhere", path)
    assert is_set_aside(cache)
    assert not (tmp_path / "elsewhere").exists()


@posix
@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_companions_that_lead_elsewhere(cache, path, tmp_path, ending):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious" * 100)
    os.symlink(elsewhere, path + ending)
    assert is_set_aside(cache)
    assert elsewhere.read_bytes() == b"precious" * 100


def test_a_journal_is_not_played_back(cache, path):
    shutil.copy(path, path + "-journal")
    assert is_set_aside(cache)


@posix
def test_locks_that_lead_elsewhere(cache, path, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    [lock] = [
        each for each in os.scandir(cache.directory + "/locks") if "device" in each.name
    ]
    os.remove(lock)
    os.symlink(elsewhere, lock)
    with pytest.warns(CacheWarning, match="link"):
        Nets({"b": 3}).check_fetch(cache, IMAGES)
    assert elsewhere.read_bytes() == b"precious"


@posix
def test_a_folder_of_locks_that_leads_elsewhere(cache, tmp_path):
    os.makedirs(cache.directory)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", cache.directory + "/locks")
    with pytest.warns(CacheWarning, match="link"):
        Nets({"a": 3}).check_fetch(cache, IMAGES)
    assert not list((tmp_path / "elsewhere").iterdir())


def interior_page(child, n_cells=1000):
    """Return a page of a table's tree: all of its entries lead to one child."""
    cells = [struct.pack(">IB", child, 1) for _ in range(n_cells)]
    starts = [PAGE_SIZE - 5 * (i + 1) for i in range(n_cells)]
    head = struct.pack(">BHHHBI", 5, 0, n_cells, starts[-1], 0, child)
    page = head + struct.pack(f">{n_cells}H", *starts)
    return page.ljust(PAGE_SIZE - 5 * n_cells, b"\0") + b"".join(reversed(cells))


@pytest.mark.parametrize("table", ["rows", "used"])
def test_pages_that_lead_nowhere_but_on(cache, path, table, monkeypatch):
    monkeypatch.setattr(_connection, "_TO_USE", 1_000_000)
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = WAL")
    connection = sqlite3.connect(path)
    [(root,)] = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    )
    connection.close()
    with open(path, "r+b") as file:
        n_pages = os.path.getsize(path) // PAGE_SIZE
        leaf = file.seek((root - 1) * PAGE_SIZE) and file.read(PAGE_SIZE)
        # A thousand ways from each of four pages to the next, and then a leaf.
        children = [n_pages + 1 + i for i in range(5)]
        pages = [interior_page(child) for child in children[1:]] + [leaf]
        file.seek((root - 1) * PAGE_SIZE)
        file.write(interior_page(children[0]))
        file.seek(n_pages * PAGE_SIZE)
        file.write(b"".join(pages))
        file.seek(28)
        file.write(struct.pack(">I", n_pages + len(pages)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache.info()
        cache.clear("a*")
        cache.clear()
        Nets({"a": 3}).check_fetch(cache, IMAGES)


def test_values_longer_than_any_row(cache, path, monkeypatch):
    monkeypatch.setitem(_connection._LIMITS, sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
    change(path, "UPDATE rows SET data = zeroblob(2097152) WHERE id = 3")
    assert is_set_aside(cache)


def test_labels_that_fill_the_memory(cache, path, monkeypatch):
    from skdeepfeat.cache import _sqlite_audit

    monkeypatch.setattr(_sqlite_audit, "_MAX_NAMESPACES", 1000)
    change(path, "UPDATE namespaces SET label = printf('%.2000c', 'x')")
    with pytest.warns(CacheWarning, match="quarantined"):
        cache.info()


@pytest.mark.parametrize("description", ["[" * 99_999, "[1]", "null", "\xff", "{"])
def test_descriptions_that_cannot_be_read(cache, path, description):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE namespaces SET description = ?", (description,))
    connection.execute("UPDATE used SET bytes = 9223372036854775807")
    connection.close()
    [namespace] = cache.info().namespaces
    assert (namespace.description, namespace.n_rows) == ({}, len(IMAGES))


@pytest.mark.parametrize("value", [b"", b"skdf", b"\0" * 999, None, 7, "text", [b"x"]])
def test_a_mapping_with_anything_in_it(value):
    nets, mapping = Nets({"a": 3}), {}
    cache = MappingCache(mapping)
    nets.fetch(cache, IMAGES)
    for name in list(mapping)[::2]:
        mapping[name] = value
    mapping["\x1b/../x"] = b"of others"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        nets.check_fetch(cache, IMAGES)
        assert cache.info().n_rows == len(IMAGES)
        cache.check()
    assert nets.check_fetch(cache, IMAGES) == []
    assert mapping["\x1b/../x"] == b"of others"


def test_a_query_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(_connection, "_TO_USE", 200_000)
    connection = sqlite3.connect(":memory:")
    bounds, sizes = Bounds(connection), []
    with pytest.raises(StoreDamaged), bounds.hold(lambda: sizes.append(1) or 100_000):
        connection.execute(f"{ENDLESS} SELECT count(*) FROM c").fetchall()
    assert sizes == [1]
    with bounds.hold():  # it can be used again
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    connection.close()


INTERRUPTED = f"""
import os, signal, sqlite3, threading
from skdeepfeat.cache import _connection

signal.signal(signal.SIGINT, signal.default_int_handler)
_connection._TO_USE = 10**15
connection = sqlite3.connect(":memory:")
started = threading.Event()
connection.create_function("begin", 0, started.set)

def interrupt():
    started.wait()
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    with _connection.Bounds(connection).hold(lambda: 0):
        connection.execute("{ENDLESS} SELECT count(*) FROM c WHERE x > 1 OR begin()")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX systems")
def test_ctrl_c_ends_a_query(tmp_path):
    assert finish(start(INTERRUPTED)) == "interrupted\n"


# -- Who may look into it

FILL = """
import os, sys
from pretend import Nets
from skdeepfeat.cache import FeatureCache

def show(folder):
    for root, folders, files in os.walk(folder):
        for name in ["", *files]:
            path = os.path.join(root, name)
            mode = os.stat(path).st_mode & 0o777
            print(os.path.relpath(path, folder), oct(mode))

os.umask(int(sys.argv[1], 8))
cache = FeatureCache(sys.argv[2] or None)
Nets({"a": 3}).check_fetch(cache, range(12))
with cache.open() as store:
    store.run(lambda connection: None)  # a second connection, so that the log stays
    Nets({"b": 3}).check_fetch(cache, range(12))
    show(cache.directory)
"""


def modes_after_filling(umask, path=""):
    """Return the permissions of all files of a cache that is in use."""
    lines = finish(start(FILL, umask, path)).splitlines()
    return {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}


@pytest.fixture
def default_place(tmp_path, monkeypatch):
    monkeypatch.delenv("SKDEEPFEAT_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "skdeepfeat"


@posix
@pytest.mark.parametrize("umask", ["022", "0"])
def test_the_default_cache_is_the_users_own(default_place, umask):
    modes = modes_after_filling(umask)
    assert {f"{FILE}-wal", f"{FILE}-shm"} <= set(modes)
    folders = {".", "locks", "locks/."}
    assert {mode for name, mode in modes.items() if name in folders} == {"0o700"}
    assert {m for name, m in modes.items() if name not in folders} == {"0o600"}


@pytest.mark.slow
@posix
def test_a_default_cache_that_was_open_is_closed(default_place):
    modes_after_filling("022")
    (default_place / FILE).write_bytes(b"damaged")
    for root, _, files in os.walk(default_place):
        os.chmod(root, 0o755)
        for name in files:
            os.chmod(os.path.join(root, name), 0o644)
    modes = modes_after_filling("022")
    assert any(".damaged-" in name for name in modes)
    assert set(modes.values()) == {"0o700", "0o600"}


@posix
def test_a_named_cache_follows_the_umask(open_directory):
    os.chmod(open_directory, 0o777)
    path = open_directory / "shared"
    modes = modes_after_filling("002", path)
    assert {f"{FILE}-wal", f"{FILE}-shm"} <= set(modes)
    assert set(modes.values()) == {"0o775", "0o664"}


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can be two users"
)
def test_a_group_shares_a_named_cache(open_directory):
    path = open_directory / "shared"
    path.mkdir()
    os.chown(path, -1, 54321)
    os.chmod(path, 0o2770)
    modes_after_filling("002", path)
    script = """
    import os, sys, warnings
    from pretend import Nets
    from skdeepfeat.cache import FeatureCache
    cache = FeatureCache(sys.argv[1])
    # Python itself may be root's alone: what is needed is imported before.
    Nets({"a": 3}).check_fetch(FeatureCache(sys.argv[1] + "-other"), range(12))
    os.umask(0o002)
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54322)
    warnings.simplefilter("error")
    assert Nets({"a": 3}).check_fetch(cache, range(12)) == []
    assert len(Nets({"a": 3}).check_fetch(cache, range(6, 18))) == 6
    """
    finish(start(script, path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Nets({"a": 3}).check_fetch(FeatureCache(path), range(18)) == []
