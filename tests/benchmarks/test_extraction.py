"""`make bench` runs, and the rows it reports are counted ones. No times are tested."""

import importlib
import json
import pathlib

import pytest

from benchmarks import _common
from benchmarks._forks import run_python

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run_quickly(part, output):
    """Run a part of `make bench` in its smallest form; return its JSON."""
    pytest.importorskip("embetter", reason="the extra [bench] is not installed")
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    script = REPOSITORY / "benchmarks" / "extraction.py"
    arguments = [script, "--quick", "--output", output, "--parts", part]
    done = run_python(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads((output / "extraction.json").read_text(encoding="utf-8"))
    packages = document["machine"]["packages"]
    for name in ("torch", "timm", "embetter", "scikit-learn"):
        assert f"{name} {packages[name]}" in done.stdout
    counts_rows = part in ("extraction", "search", "known")
    assert ("rows through the neck" in done.stdout) == counts_rows
    return document


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_contender_computes_the_same_rows(tmp_path):
    document = run_quickly("extraction", tmp_path)
    results = document["extraction"]["efficientnet_lite0"]
    assert len(results) == 9
    for name, (turn,) in results.items():
        assert turn["rows"] == (0 if name == "skdeepfeat, warm" else 8), name
        assert turn["peak_mb"] > 100, name
        if "skdeepfeat" in name:
            # torch's resize rounds otherwise than Pillow's.
            assert turn["difference"] < (0.2 if "bfloat16" in name else 1e-2), name
        elif name != "embetter as it is":
            assert turn["difference"] < 1e-4, name
    # In training mode batch norm normalises every image by itself: other features.
    assert results["embetter as it is"][0]["difference"] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sweeps_are_measured(tmp_path):
    document = run_quickly("sweep", tmp_path)
    settings = [
        (one["image_size"], one["batch_size"], one["runtime"])
        for one in document["sweep"]
    ]
    runtimes = ("torch", "openvino")
    assert settings == [
        *((32, 32, runtime) for runtime in runtimes),
        *((224, 8, runtime) for runtime in runtimes),
    ]
    assert all(one["images_per_s"] > 0 for one in document["sweep"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_growth_is_measured(tmp_path):
    document = run_quickly("growth", tmp_path)
    found = [(one["n_jobs"], one["n_images"]) for one in document["growth"]]
    assert found == [(1, 40), (2, 40)]
    for one in document["growth"]:
        assert one["warm"] > 0 and one["cold"] > 0


def test_the_limits_say_what_is_reached(monkeypatch):
    monkeypatch.syspath_prepend(_common.HERE)
    extraction = importlib.import_module("extraction")

    def rate(value):
        return [{"images_per_s": value}]

    limits = {
        "decoding alone": rate(50.0),
        "network alone, bfloat16": rate(200.0),
    }
    table = extraction.report_limits(
        "net", limits, {"skdeepfeat, bfloat16": rate(45.0)}
    )
    cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    assert ["", "decoding alone", "50.0", "-", ""] in cells
    assert ["", "network alone, bfloat16", "200.0", "0.23", ""] in cells


def test_the_plots_show_every_runtime(tmp_path):
    from benchmarks._plots import plot_sweep

    results = [
        {"image_size": size, "batch_size": batch, "runtime": runtime, "images_per_s": 9}
        for runtime in ("torch", "openvino")
        for size, batch in [(64, 32), (224, 32), (224, 1), (224, 8)]
    ]
    plot_sweep(results, tmp_path / "out")
    for name in ("image_size.png", "batch_size.png"):
        with open(tmp_path / "out" / name, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_passes_every_image_once(tmp_path):
    document = run_quickly("search", tmp_path)
    rows = {name: result["rows"] for name, result in document["search"].items()}
    n_images = 10
    assert rows == {
        # 3 candidates and the refit; the features of a fold are fitted once.
        "no cache": (3 * 5 + 1) * n_images,
        "Pipeline(memory=...)": (4 + 3 + 1) * n_images,
        "skdeepfeat": n_images,
        "skdeepfeat, the same script again": 0,
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_known_rows_are_not_computed_again(tmp_path):
    document = run_quickly("known", tmp_path)
    sizes = [40, 80]
    for result, n_rows in zip(document["known"].values(), sizes, strict=True):
        assert result["fill"]["rows"] == n_rows
        assert result["fill"]["shape"] == [n_rows, 1280]
        for turn in result["read"]:
            assert turn["rows"] == 0
            assert turn["shape"] == [n_rows, 1280]
