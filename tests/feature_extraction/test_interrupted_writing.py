"""Writing features is taken up where it stopped: kills, full disks, other writers."""

import errno
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import zarr
from child import in_child, limit_files
from networks import CountingNet, is_probe, rows_counted

from benchmarks._forks import start_python
from skdeepfeat import CacheWarning, PretrainedFeatureExtractor
from skdeepfeat.feature_extraction import _file_formats
from skdeepfeat.feature_extraction._partial_file import Partial, hold

N = 60
BATCH = 4
IN_FLIGHT = 3 * BATCH  # images that the network may be ahead of the file
N_FEATURES = 8
FORMATS = [".parquet", ".npy", ".zarr"]
ROOT = pathlib.Path(__file__).parents[2]


STOP = []  # of the module: what is the network's own is part of what it is


class StoppingNet(CountingNet):
    """Counts its images and does what `STOP` says before the one that it says."""

    def forward(self, x):
        if x.device.type != "meta" and STOP and not is_probe():
            after, fault = STOP[0]
            if rows_counted(self.log) + len(x) > after:
                STOP.clear()
                fault()
        return super().forward(x)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(_file_formats, "_BLOCK", 20 * 4 * N_FEATURES)
    monkeypatch.setattr(_file_formats, "_GROUP", 20 * 4 * N_FEATURES)
    monkeypatch.setattr(_file_formats, "_ZARR_CHUNK", 20 * 4 * N_FEATURES)


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).integers(0, 256, (N, 24, 20, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def extractor(log):
    yield stopping(log)
    STOP.clear()


def stopping(log, **parameters):
    parameters = {"image_size": 16, "batch_size": BATCH, "cache": None, **parameters}
    return PretrainedFeatureExtractor(StoppingNet(log, N_FEATURES), **parameters)


def stop_after(n_images, fault):
    """Let something happen in the network before it has seen more than `n_images`."""
    STOP[:] = [(n_images, fault)]


def interrupt():
    raise KeyboardInterrupt


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_numpy()
    if path.suffix == ".npy":
        return np.load(path)
    return zarr.open(str(path), mode="r")[:]


def contents(folder):
    return sorted(entry.name for entry in folder.iterdir())


def interrupted(extractor, X, path, after=33):
    """Write until a Ctrl-C in the middle of the second part."""
    stop_after(after, interrupt)
    with pytest.raises(KeyboardInterrupt):
        extractor.extract_to(X, path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("cached", [False, True])
def test_ctrl_c_loses_nothing(extractor, log, X, tmp_path, suffix, cached):
    if cached:
        extractor.set_params(cache=tmp_path / "cache")
    path = tmp_path / f"features{suffix}"
    interrupted(extractor, X, path)
    assert not path.exists()
    assert rows_counted(log) == 32
    extractor.extract_to(X, path)
    assert rows_counted(log) == N
    assert f"{path.name}.partial" not in contents(tmp_path)
    whole = stopping(log).extract_to(X, tmp_path / f"whole{suffix}")
    assert read(whole).tobytes() == read(path).tobytes()


@pytest.mark.parametrize("times", [1, 2, 5])
def test_as_often_as_one_likes(extractor, log, X, tmp_path, times):
    path = tmp_path / "features.npy"
    for i in range(times):
        interrupted(extractor, X, path, after=(i + 1) * N // (times + 1))
    extractor.extract_to(X, path)
    assert rows_counted(log) == N
    np.testing.assert_allclose(read(path), extractor.transform(X), rtol=1e-5)


def test_the_half_of_another_call_is_not_continued(extractor, log, X, tmp_path):
    path = tmp_path / "features.parquet"
    interrupted(extractor, X, path)
    other = stopping(log, image_size=20)
    for one, images, what in [
        (extractor, X[:-1], "images, number of images"),
        (other, X, "network"),
    ]:
        with pytest.raises(FileExistsError, match=f"so far .*{what}.*overwrite=True"):
            one.extract_to(images, path)
    other.extract_to(X, path, overwrite=True)
    np.testing.assert_allclose(read(path), other.transform(X), rtol=1e-5)


def test_a_half_in_another_format_is_its_own(extractor, log, X, tmp_path):
    interrupted(extractor, X, tmp_path / "features.npy")
    extractor.extract_to(X, tmp_path / "features.parquet")
    assert rows_counted(log) == 32 + N
    extractor.extract_to(X, tmp_path / "features.npy")
    assert rows_counted(log) == 2 * N


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_old_file_stays_until_the_new_one_is_whole(
    extractor, log, X, tmp_path, suffix
):
    path = extractor.extract_to(X[::-1], tmp_path / f"features{suffix}")
    before = read(path)
    stop_after(N + 33, interrupt)
    with pytest.raises(KeyboardInterrupt):
        extractor.extract_to(X, path, overwrite=True)
    np.testing.assert_array_equal(read(path), before)
    extractor.extract_to(X, path, overwrite=True)
    assert rows_counted(log) == 2 * N
    np.testing.assert_allclose(read(path), before[::-1], rtol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("step", ["assemble", "install", "remove"])
def test_stopped_at_any_step_of_the_end(
    extractor, log, X, tmp_path, suffix, step, monkeypatch
):
    path = extractor.extract_to(X[::-1], tmp_path / f"features{suffix}")
    kind = type("Stopped", (_file_formats.FORMATS[suffix],), {})
    with monkeypatch.context() as patch:
        if step == "remove":  # killed between putting the file in place and tidying up
            patch.setattr(shutil, "rmtree", lambda *args, **kwargs: interrupt())
            patch.setattr(pathlib.Path, "unlink", lambda *args, **kwargs: interrupt())
            patch.setattr(kind, "install", _stop_after(kind.install))
        else:
            patch.setattr(kind, step, _stop_after(getattr(kind, step)))
        patch.setitem(_file_formats.FORMATS, suffix, kind)
        with pytest.raises(KeyboardInterrupt):
            extractor.extract_to(X, path, overwrite=True)
    counted = rows_counted(log)
    extractor.extract_to(X, path, overwrite=True)
    np.testing.assert_allclose(read(path), extractor.transform(X), rtol=1e-5)
    if step == "assemble":
        assert rows_counted(log) - counted == N  # those of `transform`
    assert not any(name.endswith(".partial") for name in contents(tmp_path))


def _stop_after(method):
    def stopped(*args):
        method(*args)
        interrupt()

    return stopped


def test_a_finished_file_is_tidied_up_after(extractor, log, X, tmp_path, monkeypatch):
    kind = type(
        "Stopped",
        (_file_formats.Npy,),
        {"install": _stop_after(_file_formats.Npy.install)},
    )
    with monkeypatch.context() as patch:
        patch.setitem(_file_formats.FORMATS, ".npy", kind)
        with pytest.raises(KeyboardInterrupt):
            extractor.extract_to(X, tmp_path / "features.npy")
    assert "features.npy.partial" in contents(tmp_path)
    extractor.extract_to(X, tmp_path / "features.npy")
    assert rows_counted(log) == N
    assert contents(tmp_path) == ["features.npy", "features.npy.json", "log"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_finished_file_leaves_the_half_of_another_call(
    extractor, log, X, tmp_path, suffix
):
    path = extractor.extract_to(X, tmp_path / f"features{suffix}")
    other = stopping(log, image_size=20)
    stop_after(N + 33, interrupt)
    with pytest.raises(KeyboardInterrupt):
        other.extract_to(X, path, overwrite=True)
    extractor.extract_to(X, path)
    assert rows_counted(log) == N + 32
    other.extract_to(X, path, overwrite=True)
    assert rows_counted(log) == 2 * N
    assert not any(name.endswith(".partial") for name in contents(tmp_path))


@pytest.mark.parametrize("file", ["rows.npy", "sums", "job.json"])
@pytest.mark.parametrize(
    "damage", ["cut short", "removed", "nonsense", "[1, 2]", '"abc"', "null"]
)
@pytest.mark.filterwarnings("ignore:.*are damaged:skdeepfeat.CacheWarning")
def test_a_damaged_half_is_computed_again(extractor, X, tmp_path, file, damage):
    path = tmp_path / "features.npy"
    interrupted(extractor, X, path)
    damaged = tmp_path / "features.npy.partial" / file
    if damage == "removed":
        damaged.unlink()
    elif damage == "cut short":
        os.truncate(damaged, 40)
    else:
        damaged.write_text(damage)
    extractor.extract_to(X, path)
    np.testing.assert_allclose(read(path), extractor.transform(X), rtol=1e-5)


def restored(folder, saved):
    """Put the folder of an interrupted call back as it was."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)


@pytest.mark.filterwarnings("ignore:.*are damaged:skdeepfeat.CacheWarning")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_flipped_bit_never_gives_a_wrong_row(extractor, X, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    interrupted(extractor, X, path)
    folder, saved = tmp_path / f"{path.name}.partial", tmp_path / "saved"
    folder.rename(saved)
    expected = extractor.transform(X)
    rng = np.random.default_rng(0)
    files = ["rows.npy", "sums", "job.json"]
    n_flips = 8 if suffix == ".npy" else 3
    for number in range(len(files) * n_flips):
        restored(folder, saved)
        data = bytearray((folder / files[number % 3]).read_bytes())
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (folder / files[number % 3]).write_bytes(data)
        extractor.extract_to(X, path, overwrite=True)
        np.testing.assert_allclose(read(path), expected, rtol=1e-5)


def test_a_note_without_its_row_counts_for_nothing(extractor, log, X, tmp_path):
    path = tmp_path / "features.npy"
    interrupted(extractor, X, path)
    sums = tmp_path / "features.npy.partial" / "sums"
    data = bytearray(sums.read_bytes())
    data[8 * 40] = 1  # row 40 has not been computed
    data[:8], data[8:16] = data[8:16], data[:8]  # rows 0 and 1 have
    sums.write_bytes(data)
    with pytest.warns(CacheWarning, match="3 of the 33 rows .* damaged"):
        extractor.extract_to(X, path)
    assert rows_counted(log) == N + 2
    np.testing.assert_allclose(read(path), extractor.transform(X), rtol=1e-5)


def test_a_damaged_header_costs_no_row(extractor, log, X, tmp_path):
    path = tmp_path / "features.npy"
    interrupted(extractor, X, path)
    (tmp_path / "features.npy.partial" / "job.json").write_text("{")
    extractor.extract_to(X, path)
    assert rows_counted(log) == N


@pytest.mark.parametrize("name", ["features.npy", "features.zarr"])
def test_a_finished_file_with_damaged_notes_is_not_believed(
    extractor, X, tmp_path, name
):
    path = extractor.extract_to(X, tmp_path / name)
    notes = path / "zarr.json" if path.is_dir() else tmp_path / "features.npy.json"
    data = notes.read_bytes()
    assert data.count(b'"number of images": 60') >= 1
    notes.write_bytes(
        data.replace(b'"number of images": 60', b'"number of images": 61')
    )
    with pytest.raises(FileExistsError, match="overwrite=True"):
        extractor.extract_to(X, path)


FILES = ["lock", "rows.npy", "sums", "job.json"]


@pytest.mark.parametrize(
    "there, link",
    [("folder", "symbolic"), *itertools.product(FILES, ["symbolic", "hard"])],
)
def test_links_are_never_followed(extractor, X, tmp_path, there, link):
    path, elsewhere = tmp_path / "features.npy", tmp_path / "elsewhere"
    folder = tmp_path / "features.npy.partial"
    if there == "folder":
        elsewhere.mkdir()
        folder.symlink_to(elsewhere)
    else:
        elsewhere.write_bytes(b"precious")
        folder.mkdir()
        if link == "hard":
            (folder / there).hardlink_to(elsewhere)
        else:
            (folder / there).symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="'path'"):
        extractor.extract_to(X, path)
    if there == "folder":
        assert not list(elsewhere.iterdir())
    else:
        assert elsewhere.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["lock", "rows.npy"])
def test_links_made_after_the_check_are_not_followed_either(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    folder = tmp_path / "features.npy.partial"
    folder.mkdir()
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="followed"), hold(folder):
        Partial(folder, {"network": "a"}, (3, 2))
    assert elsewhere.read_bytes() == b"precious"


def test_a_pipe_does_not_hang(extractor, X, tmp_path):
    folder = tmp_path / "features.npy.partial"
    folder.mkdir()
    os.mkfifo(folder / "job.json")
    with pytest.raises(FileExistsError, match="'path'"):
        extractor.extract_to(X, tmp_path / "features.npy")
    assert Partial.job_in(folder) is None


@pytest.mark.parametrize("name", ["features.npy", "features.npy.json", "f.parquet"])
def test_pipes_in_the_place_of_files_do_not_hang(extractor, X, tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileExistsError):
        extractor.extract_to(X, tmp_path / name.removesuffix(".json"))


def test_the_users_own_links_are_followed(extractor, X, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    extractor.extract_to(X, tmp_path / "link" / "features.npy")
    assert contents(tmp_path / "disk") == ["features.npy", "features.npy.json"]


SCRIPT = """
import sys
import numpy as np
import logging, os, pathlib, time
from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.feature_extraction import _file_formats, _partial_file as _partial
from networks import CountingNet, is_probe, rows_counted

log, path, what, seen = sys.argv[1:]
_file_formats._BLOCK = 20 * 4 * 8
_partial._COMMIT_INTERVAL = 0  # what a kill costs is counted in batches, not seconds
X = np.random.default_rng(0).integers(0, 256, (60, 24, 20, 3), dtype=np.uint8)
faults = [what] if what != "run" else []

class Note(logging.Handler):
    def emit(self, record):
        if "waiting" in record.getMessage():
            pathlib.Path(seen).touch()

class Net(CountingNet):
    def forward(self, x):
        if faults and x.device.type != "meta" and not is_probe():
            if faults[0] == "wait":
                while not os.path.exists(seen):
                    time.sleep(0.01)
            elif rows_counted(self.log) >= 28:
                os.kill(os.getpid(), int(faults.pop()))
        return super().forward(x)

logging.basicConfig()
logging.getLogger("skdeepfeat").addHandler(Note())
PretrainedFeatureExtractor(
    Net(log, 8), image_size=16, batch_size=4, cache=None
).extract_to(X, path)
"""


def start(log, path, what="run"):
    """Extract in another process.

    `what` is the number of a signal that the network sends to its own process half
    way, or ``"wait"`` for another process to say that it waits.
    """
    seen = log.with_name("a process waits")
    return start_python(
        ["-c", SCRIPT, log, path, what, seen],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests/support"},
    )


def finish(process):
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "suffix"),
    [("SIGKILL", ".parquet"), ("SIGKILL", ".zarr"), ("SIGINT", ".npy")],
)
def test_killed_in_the_middle(log, X, tmp_path, how, suffix):
    path = tmp_path / f"features{suffix}"
    process = start(log, path, str(int(getattr(signal, how))))
    process.communicate()
    assert process.returncode != 0
    assert 28 <= rows_counted(log) < N and not path.exists()
    # This process goes on where the other one stopped.
    Net = type("Net", (CountingNet,), {})  # named as in `SCRIPT`
    extractor = PretrainedFeatureExtractor(
        Net(log, N_FEATURES), image_size=16, batch_size=BATCH, cache=None
    )
    extractor.extract_to(X, path)
    # What was on its way through the network is lost.
    assert N <= rows_counted(log) <= N + IN_FLIGHT
    whole = extractor.extract_to(X, tmp_path / f"whole{suffix}")
    assert read(path).tobytes() == read(whole).tobytes()


@pytest.mark.slow
def test_two_processes_write_the_same_file(log, tmp_path):
    path = tmp_path / "features.parquet"
    errors = [finish(one) for one in [start(log, path, "wait") for _ in range(2)]]
    assert rows_counted(log) == N
    assert sum("another process is writing it" in error for error in errors) == 1
    assert contents(tmp_path) == ["a process waits", "features.parquet", "log"]


def test_two_threads_write_the_same_file(log, X, tmp_path, caplog):
    def wait_for_the_other():
        while "waiting" not in caplog.text:
            time.sleep(0.01)

    stop_after(0, wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(stopping(log).extract_to, X, tmp_path / "features.npy")
            for _ in range(2)
        ]
        [future.result() for future in both]
    assert rows_counted(log) == N
    assert "another process is writing it; waiting" in caplog.text


def test_a_folder_is_held_by_one_at_a_time_though_it_comes_and_goes(tmp_path):
    folder, inside, most = tmp_path / "held", [], []
    lock = threading.Lock()

    def work(seed):
        for round in range(15):
            with hold(folder):
                (folder / "rows.npy").write_text(f"{seed}")
                with lock:
                    inside.append(seed)
                    most.append(len(inside))
                time.sleep(0.001)
                assert (folder / "rows.npy").read_text() == f"{seed}"
                with lock:
                    inside.remove(seed)
                if (seed + round) % 3:
                    Partial.remove(folder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(most) == 60 and max(most) == 1


def test_removing_leaves_alone_what_the_next_one_has_begun(tmp_path, monkeypatch):
    folder = tmp_path / "held"
    unlink = os.unlink

    def let_the_next_one_in(path, *args, **kwargs):
        unlink(path, *args, **kwargs)
        if os.path.basename(path) == "lock":
            monkeypatch.setattr(os, "unlink", unlink)
            with hold(folder):
                (folder / "rows.npy").write_text("the next one's")

    with hold(folder):
        for name in ("rows.npy", "sums", "job.json"):
            (folder / name).touch()
        monkeypatch.setattr(os, "unlink", let_the_next_one_in)
        Partial.remove(folder)
    assert (folder / "rows.npy").read_text() == "the next one's"
    assert contents(folder) == ["lock", "rows.npy"]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 1 MiB, where that is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("mounting is not permitted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def wide(log, monkeypatch):
    """Return an extractor whose rows take 1,568 bytes, so that pages fill up soon."""
    monkeypatch.setattr(_file_formats, "_BLOCK", 20 * 1568)
    monkeypatch.setattr(_file_formats, "_GROUP", 20 * 1568)
    return stopping(log, layer="conv", pooling="flatten")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_fills_up(wide, log, X, small_disk, suffix):
    path = small_disk / f"features{suffix}"
    filler = small_disk / "another's"

    def fill_up():
        with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    stop_after(33, fill_up)
    with pytest.raises(
        OSError, match="no space left .* kept there: .* call again"
    ) as e:
        wide.extract_to(X, path)
    assert e.value.errno == errno.ENOSPC
    assert not path.exists()
    # Nothing is computed before there is space.
    counted = rows_counted(log)
    with pytest.raises(OSError, match="need about .* MB .*: free some space"):
        wide.extract_to(X, path)
    assert rows_counted(log) == counted < N
    filler.unlink()
    wide.extract_to(X, path)
    assert rows_counted(log) <= N + IN_FLIGHT  # those that could not be written
    np.testing.assert_allclose(read(path), wide.transform(X), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_files_that_may_not_be_that_large(wide, log, X, tmp_path):
    def extract():
        limit_files(N * 1568)  # the header is too much
        for suffix in FORMATS:
            path = tmp_path / f"features{suffix}"
            with pytest.raises(OSError, match="no space left .*File too large"):
                wide.extract_to(X, path)
            assert not any(name.startswith("features") for name in contents(tmp_path))
            assert rows_counted(log) == 0

    in_child(extract)


@pytest.mark.slow
def test_no_room_for_the_last_step(wide, log, X, tmp_path):
    def extract():
        # Random rows do not get smaller, and a Parquet file has a longer description.
        path = tmp_path / "features.parquet"
        limit_files(128 + N * 1568)
        with pytest.raises(OSError, match="no space left .* kept there"):
            wide.extract_to(X, path)
        limit_files(None)
        wide.extract_to(X, path)
        assert rows_counted(log) == N
        assert read(path).shape == (N, 392)

    in_child(extract)
