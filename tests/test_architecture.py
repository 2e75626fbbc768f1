"""The package is as docs/architecture.md draws it: imports point downwards only."""

import ast
import pathlib

import skdeepfeat

PACKAGE = pathlib.Path(skdeepfeat.__file__).parent

# Packages and modules of one level do not import each other, only lower levels.
FLOORS = {
    "_forks": -1,
    "_address": 0,
    "_printable": -1,
    "_errors": 0,
    "_optional": 0,
    "_preprocessing": 0,
    "_fingerprint": 0,
    "_device": 0,
    "_filestat": 0,
    "_atomic_file": 0,
    "_plain_file": 0,
    "_random": 0,
    "_image_input": 0,
    "_targets": 0,
    "_views": 0,
    "_threads": 0,
    "_shown": 0,
    "_stacklevel": 0,
    "_tensor_file": 1,
    "images": 1,
    "necks": 1,
    "cache": 2,
    "training": 2,
    "extraction": 3,
    "_handed_out": 3,
    "_onnx": 3,
    "_saved_values": 2,
    "_saving": 3,
    "_feature_extractor": 4,
    "_phases": 4,
    "_feature_mapper": 5,
    "_fine_tune": 5,
    "_fine_tune_classifier": 6,
    "_fine_tune_regressor": 6,
    "_trial": 6,
    "_range_test": 7,
    "_learning_check": 7,
    "plotting": 8,
    "__init__": 9,
    "cli": 10,
    "__main__": 11,
}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Return the rooms that a file imports, and the line of each."""
    package = ["skdeepfeat", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        for name in names:
            if name[0] == "skdeepfeat":
                known = len(name) > 1 and name[1] in FLOORS
                found.append((name[1] if known else "__init__", node.lineno))
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} == set(FLOORS)


def test_imports_point_downwards():
    faults = [
        f"{path}:{line} is on floor {FLOORS[room]} ({room}) and imports {other} on "
        f"floor {FLOORS[other]}"
        for path in FILES
        for room in [room_of(path)]
        for other, line in imported_rooms(path)
        if other != room and FLOORS[other] >= FLOORS[room]
    ]
    assert not faults, "\n".join(faults)
