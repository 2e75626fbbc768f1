"""Features written to files: what they hold, and when they are written again."""

import json
import os
import shutil
import sys
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
import zarr
from child import forbid_writing, in_child
from joblib import parallel_config
from networks import CountingNet, rows_counted
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureCache,
    PretrainedFeatureExtractor,
)
from skdeepfeat.feature_extraction import _file_formats

N = 30
N_FEATURES = 8
FORMATS = [".parquet", ".npy", ".zarr"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Let a part, a row group and a chunk have seven rows: thirty take five."""
    monkeypatch.setattr(_file_formats, "_BLOCK", 7 * 4 * N_FEATURES)
    monkeypatch.setattr(_file_formats, "_GROUP", 7 * 4 * N_FEATURES)
    monkeypatch.setattr(_file_formats, "_ZARR_CHUNK", 7 * 4 * N_FEATURES)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 24, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return [str(folder / f"{i:03d}.png") for i in range(N)]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def counting(log, **parameters):
    parameters = {"image_size": 16, "batch_size": 4, "cache": None, **parameters}
    return PretrainedFeatureExtractor(CountingNet(log, N_FEATURES), **parameters)


def read(path):
    """Return the features in a file, read in the plainest way there is."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_numpy()
    if path.suffix == ".npy":
        return np.load(path)
    return zarr.open(str(path), mode="r")[:]


def contents(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["paths", "array", "tensor"])
def test_the_rows_are_those_of_transform(log, paths, pixels, tmp_path, suffix, kind):
    X = {"paths": paths, "array": pixels, "tensor": list(pixels)}[kind]
    extractor = counting(log)
    expected = extractor.transform(X)
    path = extractor.extract_to(X, str(tmp_path / f"features{suffix}"))
    assert path == tmp_path / f"features{suffix}"
    assert read(path).dtype == np.float32
    np.testing.assert_allclose(read(path), expected, rtol=1e-5)
    notes = [f"{path.name}.json"] if suffix == ".npy" else []
    assert contents(tmp_path) == [path.name, *notes, "log"]


def test_parquet_is_a_frame_that_an_estimator_can_be_fitted_to(log, paths, tmp_path):
    extractor = counting(log)
    path = extractor.extract_to(paths, tmp_path / "features.parquet")
    frame = pd.read_parquet(path)
    assert frame.index.name == "image"
    assert frame.index.tolist() == paths
    assert list(frame.columns) == list(extractor.get_feature_names_out())
    fitted = LogisticRegression().fit(frame, np.arange(N) % 2)
    assert list(fitted.feature_names_in_) == list(frame.columns)


def test_parquet_reads_back_in_parts(log, paths, tmp_path):
    path = counting(log).extract_to(paths, tmp_path / "features.parquet")
    name = "countingnet_neck_000"
    file = pyarrow.parquet.ParquetFile(path)
    assert file.schema_arrow.names[:2] == ["image", name]
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [7, 7, 7, 7, 2]
    frame = pd.read_parquet(path)
    part = pyarrow.dataset.dataset(path).to_table(
        columns=["image", name],
        filter=pyarrow.dataset.field("image") == paths[9],
    )
    assert part.to_pydict() == {"image": [paths[9]], name: [frame.loc[paths[9], name]]}
    lazy = pl.scan_parquet(path).filter(pl.col("image") == paths[9]).select(name)
    assert lazy.collect().item() == frame.loc[paths[9], name]


def test_npy_maps_and_says_what_its_columns_are(log, paths, tmp_path):
    extractor = counting(log)
    path = extractor.extract_to(paths, tmp_path / "features.npy")
    mapped = np.load(path, mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == (N, N_FEATURES)
    notes = json.loads((tmp_path / "features.npy.json").read_text())
    assert notes["feature_names"] == list(extractor.get_feature_names_out())


def test_zarr_reads_back_in_chunks(log, paths, tmp_path):
    extractor = counting(log)
    path = extractor.extract_to(paths, tmp_path / "features.zarr")
    array = zarr.open(str(path), mode="r")
    assert (array.shape, array.chunks) == ((N, N_FEATURES), (7, N_FEATURES))
    assert array.attrs["feature_names"] == list(extractor.get_feature_names_out())
    np.testing.assert_array_equal(array[12:14], extractor.transform(paths[12:14]))


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        ("pixels", list(range(N))),
        ("paths and others", [None, "0", "1"]),
        ("broken names", ["0", "1", "1"]),
    ],
)
def test_the_image_column(log, paths, pixels, tmp_path, X, expected):
    zero, one = paths[:2]
    X = {
        "pixels": pixels,
        "paths and others": [pixels[0], zero, one],
        "broken names": pd.Series([zero, one, one]),
    }[X]
    expected = [{"0": zero, "1": one}.get(name, name) for name in expected]
    path = counting(log).extract_to(X, tmp_path / "features.parquet")
    assert pl.read_parquet(path)["image"].to_list() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the name")
def test_a_name_that_is_not_text(log, paths, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path / "images") + b"-\xff.png")
    os.link(paths[0], name)
    path = counting(log).extract_to([name], tmp_path / "features.parquet")
    assert pd.read_parquet(path).index[0].endswith(r"images-\xff.png")


def test_several_layers_stand_side_by_side(tmp_path, paths):
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3))
    extractor = PretrainedFeatureExtractor(
        net, layer=["0", "1"], image_size=16, cache=None
    )
    path = extractor.extract_to(paths, tmp_path / "features.parquet")
    frame = pd.read_parquet(path)
    assert list(frame.columns) == list(extractor.get_feature_names_out())
    np.testing.assert_allclose(frame, extractor.transform(paths), rtol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_finished_file_is_left_as_it_is(log, paths, tmp_path, suffix):
    path = counting(log).extract_to(paths, tmp_path / f"features{suffix}")
    before = {file: os.stat(file).st_mtime_ns for file in tmp_path.rglob("f*")}
    log.unlink()
    for parameters in [{}, {"batch_size": 3, "verbose": 1}]:
        assert counting(log, **parameters).extract_to(pd.Series(paths), path) == path
    assert rows_counted(log) == 0
    assert before == {file: os.stat(file).st_mtime_ns for file in tmp_path.rglob("f*")}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("changed", ["X", "content", "network", "parameter"])
def test_what_another_call_wrote_is_only_replaced_when_asked(
    log, paths, pixels, tmp_path, suffix, changed
):
    X = [*paths[:-1], str(tmp_path / "last.png")]
    Image.fromarray(pixels[0]).save(X[-1])
    path = counting(log).extract_to(X, tmp_path / f"features{suffix}")
    before, extractor, what = read(path), counting(log), "images"
    if changed == "X":
        X = X[:-1]
    elif changed == "content":
        Image.fromarray(pixels[1]).save(X[-1])
    elif changed == "network":
        extractor.model.conv.bias.data += 1
        what = "network"
    else:
        extractor.set_params(image_size=20)
        what = "network"
    with pytest.raises(FileExistsError, match=f"differs in: {what}.*overwrite=True"):
        extractor.extract_to(X, path)
    np.testing.assert_array_equal(read(path), before)
    extractor.extract_to(X, path, overwrite=True)
    np.testing.assert_allclose(read(path), extractor.transform(X), rtol=1e-5)
    assert not any(name.endswith("partial") for name in contents(tmp_path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_another_program(log, paths, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    foreign = np.zeros((N, N_FEATURES), np.float32)
    if suffix == ".parquet":
        pd.DataFrame(foreign).rename(columns=str).to_parquet(path)
    elif suffix == ".npy":
        counting(log).extract_to(paths, path)
        np.save(path, foreign)  # which no longer matches its notes
    else:
        zarr.create_array(str(path), data=foreign)
    with pytest.raises(FileExistsError, match="not written by extract_to"):
        counting(log).extract_to(paths, path)
    np.testing.assert_array_equal(read(path), foreign)
    counting(log).extract_to(paths, path, overwrite=True)
    assert (read(path) != foreign).any()


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_no_such_file_at_all_is_never_removed(log, paths, tmp_path, suffix):
    path = tmp_path / f"features{suffix}"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    for overwrite in [False, True]:
        with pytest.raises(FileExistsError, match="will not be replaced: remove it"):
            counting(log).extract_to(paths, path, overwrite=overwrite)
    assert contents(path) == ["thesis.txt"]
    assert rows_counted(log) == 0


@pytest.mark.parametrize(
    "damage",
    [{"job": [1]}, {"job": None}, {"failures": None}, {"failures": [1]}],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_damaged_notes_are_not_ours(log, paths, tmp_path, suffix, damage):
    path = counting(log).extract_to(paths, tmp_path / f"features{suffix}")
    file = tmp_path / "features.npy.json" if suffix == ".npy" else path / "zarr.json"
    notes = json.loads(file.read_text())
    (notes if suffix == ".npy" else notes["attributes"]["skdeepfeat"]).update(damage)
    file.write_text(json.dumps(notes))
    with pytest.raises(FileExistsError, match="no .npy of feat|not written by extract"):
        counting(log).extract_to(paths, path)


@pytest.mark.parametrize("lost", ["c", "c/0", "c/2/0", "c/4"])
def test_a_store_that_lost_chunks_is_not_finished(log, paths, tmp_path, lost):
    path = counting(log).extract_to(paths, tmp_path / "features.zarr")
    expected = read(path)
    if (path / lost).is_dir():
        shutil.rmtree(path / lost)
    else:
        (path / lost).unlink()
    assert np.isnan(read(path)).any()
    with pytest.raises(FileExistsError, match="changed since.*overwrite=True"):
        counting(log).extract_to(paths, path)
    counting(log).extract_to(paths, path, overwrite=True)
    np.testing.assert_allclose(read(path), expected, rtol=1e-5)


def test_a_store_that_claims_many_chunks_is_not_searched_for_them(log, paths, tmp_path):
    path = counting(log).extract_to(paths, tmp_path / "features.zarr")
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["shape"][0] = 10**15
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        counting(log).extract_to(paths, path)


def test_a_store_of_nothing_is_finished(paths, tmp_path):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x.mean((2, 3)))

    extractor = PretrainedFeatureExtractor(
        Constant(), image_size=16, cache=None, on_error="nan"
    )
    path = extractor.extract_to(paths, tmp_path / "features.zarr")
    assert extractor.extract_to(paths, path) == path
    np.testing.assert_array_equal(read(path), np.zeros((N, 3)))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("there", ["folder", "file", "link to nothing"])
def test_what_is_no_half_of_ours_is_never_removed(log, paths, tmp_path, suffix, there):
    folder = tmp_path / f"features{suffix}.partial"
    if there == "folder":
        folder.mkdir()
        (folder / "thesis.txt").write_text("years of work")
        (folder / "lock").touch()
    elif there == "file":
        folder.write_text("years of work")
    else:
        folder.symlink_to("nowhere")
    before = contents(tmp_path)
    for overwrite in [False, True]:
        with pytest.raises(FileExistsError, match="'path' .*partial' .*: move it, or"):
            counting(log).extract_to(
                [*paths, "missing"], tmp_path / f"features{suffix}", overwrite=overwrite
            )
    assert contents(tmp_path) == before
    assert there != "folder" or contents(folder) == ["lock", "thesis.txt"]


@pytest.mark.parametrize(
    "name", ["lock", "rows.npy", "sums", ".job.json.0123456789abcdef"]
)
def test_what_a_kill_left_is_ours(log, paths, tmp_path, name):
    folder = tmp_path / "features.npy.partial"
    folder.mkdir()
    (folder / name).touch()
    counting(log).extract_to(paths, tmp_path / "features.npy")
    assert not folder.exists()


def test_notes_of_another_program_are_not_overwritten(log, paths, tmp_path):
    (tmp_path / "features.npy.json").write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match="next to it"):
        counting(log).extract_to(paths, tmp_path / "features.npy")


def test_each_image_goes_through_the_network_once(log, pixels, tmp_path):
    X = np.concatenate([pixels[:10], pixels[:10], pixels[5:15]])
    path = counting(log).extract_to(X, tmp_path / "features.npy")
    assert rows_counted(log) == 15
    features = np.load(path)
    np.testing.assert_array_equal(features[:10], features[10:20])
    np.testing.assert_array_equal(features[5:10], features[20:25])


def test_workers_of_joblib_share_the_rows_out(log, paths, tmp_path):
    X = paths + paths[::-1]
    with parallel_config(backend="threading", n_jobs=2):
        path = counting(log).extract_to(X, tmp_path / "features.npy")
    assert rows_counted(log) == N
    expected = counting(log).transform(X)
    np.testing.assert_allclose(np.load(path), expected, rtol=1e-4, atol=1e-5)


def test_other_layers_go_to_the_cache_only(paths, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3))
    extractor = PretrainedFeatureExtractor(
        net, layer="0", cache_layers=["0", "1"], image_size=16, cache=tmp_path / "cache"
    )
    path = extractor.extract_to(paths, tmp_path / "features.npy")
    assert np.load(path).shape == (N, 5)
    assert FeatureCache(tmp_path / "cache").info().n_rows == 2 * N


def test_rows_are_kept_in_the_cache_and_taken_from_it(log, paths, tmp_path):
    extractor = counting(log, cache=tmp_path / "cache")
    expected = extractor.transform(paths[3:12])
    path = extractor.extract_to(paths, tmp_path / "features.npy")
    assert rows_counted(log) == N
    np.testing.assert_array_equal(np.load(path)[3:12], expected)
    np.testing.assert_array_equal(extractor.transform(paths), np.load(path))
    extractor.extract_to(paths[::-1], tmp_path / "other.parquet")
    assert rows_counted(log) == N


@pytest.fixture
def broken(paths, tmp_path):
    """Return paths of which rows 2, 9, 20 and 29 cannot be read."""
    X = list(paths)
    X[2] = str(tmp_path / "missing.png")
    for row in [9, 20, 29]:
        X[row] = str(tmp_path / f"broken{row % 20}.png")
        with open(X[row], "wb") as file:
            file.write(b"not an image %d" % (row % 20))
    return X


@pytest.mark.parametrize("suffix", FORMATS)
def test_broken_images_are_nan_and_listed_once(log, paths, broken, tmp_path, suffix):
    extractor = counting(log, on_error="nan")
    for _ in range(2):
        with pytest.warns(BadImageWarning) as caught:
            path = extractor.extract_to(broken, tmp_path / f"features{suffix}")
        [warning] = caught
        assert [one.index for one in warning.message.failures] == [2, 9, 20, 29]
        assert warning.message.failures[1].origin == broken[9]
        assert os.path.samefile(warning.filename, __file__)
    assert rows_counted(log) == N - 4  # the second time there was nothing to do
    features = read(path)
    bad = np.isin(np.arange(N), [2, 9, 20, 29])
    assert np.isnan(features[bad]).all()
    expected = counting(log).transform(paths)
    np.testing.assert_allclose(features[~bad], expected[~bad], rtol=1e-5)
    with pytest.raises(BadImageError, match="index 2"):
        counting(log).extract_to(broken, path)


def test_raise_names_the_row_and_keeps_what_was_computed(log, paths, broken, tmp_path):
    X, path = [*broken[:2], paths[2], *broken[3:]], tmp_path / "features.parquet"
    for _ in range(2):
        with pytest.raises(BadImageError, match="index 9, .*broken9.png"):
            counting(log).extract_to(X, path)
    assert "features.parquet" not in contents(tmp_path)
    done = rows_counted(log)
    assert 9 <= done < N
    # `on_error` does not matter for the other images: their features are reused.
    with pytest.warns(BadImageWarning):
        counting(log, on_error="nan").extract_to(X, path)
    assert rows_counted(log) == N - 3


def test_a_finished_file_with_broken_rows_raises_when_asked_to(log, broken, tmp_path):
    X, path = broken[3:], tmp_path / "features.npy"
    with pytest.warns(BadImageWarning):
        counting(log, on_error="nan").extract_to(X, path)
    with pytest.raises(BadImageError, match="index 6, .*broken9.png"):
        counting(log).extract_to(X, path)


def test_one_progress_bar_for_all_of_X(log, paths, tmp_path, capsys):
    counting(log).extract_to(paths, tmp_path / "quiet.npy")
    assert capsys.readouterr().err == ""
    counting(log, verbose=1, cache=tmp_path / "cache").transform(paths[:9])
    capsys.readouterr()
    extractor = counting(log, verbose=1, cache=tmp_path / "cache")
    extractor.extract_to(paths, tmp_path / "features.npy")
    shown = capsys.readouterr().err.replace("\n", "\r").split("\r")
    assert all(f"/{N}" in line for line in shown if line.strip())
    assert f"{N}/{N}" in shown[-2] + shown[-1]


def test_memory_maps_are_not_loaded(log, tmp_path):
    shape = (200, 256, 256, 3)  # 39 MB, of which the file system stores nothing
    X = np.memmap(tmp_path / "images", np.uint8, "w+", shape=shape)
    tracemalloc.start()
    try:
        counting(log).extract_to(X, tmp_path / "features.npy")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 4


@pytest.mark.parametrize(
    ("path", "overwrite", "error", "message"),
    [
        ("features.csv", False, ValueError, r"'path'.* end in .parquet, .npy, .zarr"),
        ("features", False, ValueError, "Got .*features' instead"),
        (
            "no/features.npy",
            False,
            FileNotFoundError,
            "'path'.* folder .*create it first",
        ),
        (3, False, TypeError, "'path' parameter must be the path .* Got 3 instead"),
        (b"features.npy", False, TypeError, "'path'"),
        ("features.npy", "yes", TypeError, "'overwrite' .* Got 'yes' instead"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_computed(
    log, paths, tmp_path, path, overwrite, error, message
):
    path = tmp_path / path if isinstance(path, str) else path
    with pytest.raises(error, match=message):
        counting(log).extract_to(paths, path, overwrite=overwrite)
    assert contents(tmp_path) == []


def test_an_address_is_no_place_to_write(log, paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="local disk: .*upload.*'s3://bucket/a.npy'"):
        counting(log).extract_to(paths, "s3://bucket/a.npy")
    with pytest.raises(ValueError, match="must be the path of a file. Got '' instead"):
        counting(log).extract_to(paths, "")
    assert contents(tmp_path) == []


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_to(log, pixels, tmp_path):
    mine, theirs = tmp_path / "features.npy", tmp_path / "theirs.npy"
    started = tmp_path / "started" / "features.npy"

    def extract():
        counting(log).extract_to(pixels, mine)
        folder = started.parent / "features.npy.partial"
        folder.mkdir(parents=True)
        forbid_writing(tmp_path)
        for path, overwrite in [(theirs, False), (mine, True), (started, False)]:
            message = "'path' .*: choose another 'path'"
            with pytest.raises(PermissionError, match=message):
                # What cannot be read is not looked at.
                counting(log).extract_to(["missing.png"], path, overwrite=overwrite)

    in_child(extract)
    # What is finished needs no permission.
    assert counting(log).extract_to(pixels, mine) == mine


@pytest.mark.parametrize("suffix", [".parquet", ".zarr"])
def test_a_missing_package_is_said_at_once(log, paths, tmp_path, suffix, monkeypatch):
    package = {".parquet": "pyarrow", ".zarr": "zarr"}[suffix]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'skdeepfeat\[{suffix[1:]}\]'"):
        counting(log).extract_to(paths, tmp_path / f"features{suffix}")
    assert contents(tmp_path) == []


def test_a_network_that_fails_at_once_leaves_nothing_behind(paths, tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            if x.device.type != "meta" and len(x) > 1:
                raise RuntimeError("no such operator")
            return x.mean((2, 3))

    extractor = PretrainedFeatureExtractor(Broken(), image_size=16, cache=None)
    with pytest.raises(RuntimeError, match="no such operator"):
        extractor.extract_to(paths, tmp_path / "features.npy")
    assert contents(tmp_path) == []


def test_no_images_at_all(log, tmp_path):
    with pytest.raises(ValueError, match="0 sample"):
        counting(log).extract_to([], tmp_path / "features.npy")


def test_no_warning_of_any_library_reaches_the_user(log, paths, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix in FORMATS:
            written = counting(log).extract_to(paths, tmp_path / f"features{suffix}")
            assert written.exists()
