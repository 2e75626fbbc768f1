"""Build the sdist and the wheel, look into them, and try the wheel in new environments.

    python .ci/check_release.py --pythons python3.11 python3.12 python3.13

Each interpreter gets an environment of its own, into which the wheel that was built
from the sdist is installed with its dependencies and nothing else. There `pip check`
must find no conflict, the default network must give features without a connection,
each missing extra must be an error that names it, and the import time is measured.
"""

import argparse
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What an environment is asked. It has no extra.
TRIAL = """
import importlib.metadata, subprocess, sys, time
import numpy as np

import skdeepfeat
from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

X = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
assert extractor.fit_transform(X).shape == (4, 1280)
tuned = FineTuneClassifier(image_size=32, max_epochs=1, cache=None).fit(X, [0, 1, 0, 1])

def plot():
    from skdeepfeat.plotting import FineTuneHistoryDisplay
    FineTuneHistoryDisplay.from_estimator(tuned)

calls = {
    "plot": plot,
    "embedded": PretrainedFeatureExtractor("efficientnet_lite1", cache=None).fit,
    "openvino": lambda X: tuned.to_openvino("clf.xml"),
    "onnx": lambda X: tuned.to_onnx("clf.onnx"),
    "int8": lambda X: tuned.to_onnx("clf.onnx", dtype="int8", X_calibration=X),
    "parquet": lambda X: extractor.extract_to(X, "rows.parquet"),
    "zarr": lambda X: extractor.extract_to(X, "rows.zarr"),
    "text": lambda X: skdeepfeat.text.WordVectorFeatures().fit(["a"]),
    "remote": lambda X: PretrainedFeatureExtractor(
        storage_options={}, cache=None
    ).transform(["https://127.0.0.1:9/a.jpg"]),
}
for extra, call in calls.items():
    try:
        call() if call is plot else call(X)
    except Exception as error:
        assert f"skdeepfeat[{extra}]" in str(error), (extra, error)
    else:
        raise AssertionError(f"nothing was missing without [{extra}]")

def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start

start = min(seconds("pass") for _ in range(3))
for code in ("import skdeepfeat", "from skdeepfeat import PretrainedFeatureExtractor"):
    print(f"{min(seconds(code) for _ in range(3)) - start:6.2f} s  {code}")
print("torch", importlib.metadata.version("torch"))
"""


def check_wheel(path):
    """Raise if a wheel has other files than the package, or lacks some.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    list of str
        The names of its files.
    """
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        text = wheel.read(metadata).decode()
    tracked = set(run("git", "ls-files", "skdeepfeat", cwd=ROOT).split())
    info = metadata.rpartition("/")[0]
    own = {name for name in names if not name.startswith(f"{info}/")}
    if own != tracked:
        raise ValueError(
            f"The wheel has other files than skdeepfeat/: {sorted(own ^ tracked)[:20]}"
        )
    wanted = {"licenses/LICENSE", "METADATA", "RECORD", "WHEEL", "entry_points.txt"}
    found = {name.removeprefix(f"{info}/") for name in names} - own
    if found - {"top_level.txt"} != wanted:
        raise ValueError(f"The metadata of the wheel are {sorted(found)}.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = text.splitlines()
    for line in (
        f"Version: {project['version']}",
        f"License-Expression: {project['license']}",
        f"Requires-Python: {project['requires-python']}",
    ):
        if line not in lines:
            raise ValueError(f"The metadata of the wheel lack {line!r}.")
    return names


def check_sdist(path):
    """Raise if an sdist lacks what is needed to build, test or read the package."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        *("pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"),
        *("CITATION.cff", "skdeepfeat/py.typed", "skdeepfeat/__init__.py"),
        *("tests/conftest.py", "docs/conf.py", "examples/_photographs.py"),
    }
    if missing := wanted - names:
        raise ValueError(f"The sdist lacks {sorted(missing)}.")


def run(*command, **options):
    """Return what a command writes to stdout; stop if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:200]} failed:\n{done.stdout}")
    return done.stdout


def build(folder):
    """Build the sdist, and the wheel from it; return their paths."""
    command = (sys.executable, "-m", "build", "--outdir", folder, ROOT)
    run(*command, stderr=subprocess.STDOUT)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def try_wheel(wheel, python, folder):
    """Install a wheel into a new environment, and use it there."""
    environment = folder / "environment"
    run(python, "-m", "venv", "--clear", environment)
    inside = environment / "bin" / "python"
    run(inside, "-m", "pip", "install", "--quiet", wheel)
    print(run(inside, "--version").strip(), flush=True)
    print(run(inside, "-m", "pip", "check").strip())
    print(run(inside, "-c", TRIAL, cwd=folder), flush=True)


def main(argv=None):
    """Build, check, and try with each interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", nargs="*", default=[], help="interpreters")
    pythons = parser.parse_args(argv).pythons
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sdist, wheel = build(folder)
        check_sdist(sdist)
        n_files = len(check_wheel(wheel))
        print(f"{wheel.name}: {n_files} files, {wheel.stat().st_size / 1e6:.2f} MB")
        for python in pythons:
            try_wheel(wheel, python, folder)


if __name__ == "__main__":
    main()
