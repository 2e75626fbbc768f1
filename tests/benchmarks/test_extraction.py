"""`make bench` runs, and the rows it reports are counted ones. No times are tested."""

import json
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Run `make bench` in its smallest form; return its JSON and its printed report."""
    pytest.importorskip("embetter", reason="the extra [bench] is not installed")
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    output = tmp_path_factory.mktemp("bench_output")
    script = REPOSITORY / "benchmarks" / "extraction.py"
    command = [sys.executable, str(script), "--quick", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads((output / "extraction.json").read_text(encoding="utf-8"))
    return document, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_contender_computes_the_same_rows(quick_run):
    document, _ = quick_run
    results = document["extraction"]["efficientnet_lite0"]
    assert len(results) == 7
    for name, (turn,) in results.items():
        assert turn["rows"] == (0 if name == "skdeepfeat, warm" else 8), name
        assert turn["peak_mb"] > 100, name
        if name != "embetter as it is":
            assert turn["difference"] < 1e-4, name
    # In training mode batch norm normalises every image by itself: other features.
    assert results["embetter as it is"][0]["difference"] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_passes_every_image_once(quick_run):
    document, _ = quick_run
    rows = {name: result["rows"] for name, result in document["search"].items()}
    n_images = 10
    assert rows == {
        "no cache": 61 * n_images,
        "Pipeline(memory=...)": 17 * n_images,
        "skdeepfeat": n_images,
        "skdeepfeat, the same script again": 0,
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_known_rows_are_not_computed_again(quick_run):
    document, _ = quick_run
    sizes = [500, 1000]
    for result, n_rows in zip(document["known"].values(), sizes, strict=True):
        assert result["fill"]["rows"] == n_rows
        assert result["fill"]["shape"] == [n_rows, 1280]
        for turn in result["read"]:
            assert turn["rows"] == 0
            assert turn["shape"] == [n_rows, 1280]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_report_names_machine_and_versions(quick_run):
    document, printed = quick_run
    packages = document["machine"]["packages"]
    for name in ("torch", "timm", "embetter", "scikit-learn"):
        assert f"{name} {packages[name]}" in printed
    assert printed.count("rows through the neck") == 3
