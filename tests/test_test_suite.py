"""The tests leave their own process alone, and none measures time."""

import ast
import importlib
import pathlib
import sys

from child import in_child, limit_files

TESTS = pathlib.Path(__file__).parent
# Names of calls, with what to write instead.
REFUSED = {
    **dict.fromkeys(
        ["setrlimit", "seteuid", "setuid", "umask", "fork", "_exit"],
        "harm a child: child.in_child, child.limit_files, child.drop_privileges",
    ),
    **dict.fromkeys(
        ["setitimer", "alarm"], "raise KeyboardInterrupt in a counted call"
    ),
    **dict.fromkeys(["perf_counter", "process_time", "thread_time"], "count steps"),
}


def calls(node, depth=0):
    """Return the functions that are called, and the line of each.

    What a function within a function calls is left out: `in_child` is given these.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            if depth == 0:
                yield from calls(child, depth + 1)
            continue
        if isinstance(child, ast.Call):
            function = child.func
            name = getattr(function, "attr", getattr(function, "id", None))
            yield name, child.lineno
        yield from calls(child, depth)


def test_faults_are_made_to_children_and_steps_are_counted():
    faults = [
        f"{path}:{line} calls {name}: {REFUSED[name]}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name != "child.py"
        for name, line in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name in REFUSED
    ]
    assert not faults, "\n".join(faults)


def test_no_half_of_a_bytecode_file_is_left(tmp_path):
    """A module that is imported while files may not grow can be imported again."""
    lines = "".join(f"name_{i} = 'text {i}'\n" for i in range(500))
    (tmp_path / "large.py").write_text(lines, encoding="utf-8")

    def import_it():
        sys.dont_write_bytecode = False
        limit_files(4096)
        sys.path.insert(0, str(tmp_path))
        importlib.import_module("large")

    in_child(import_it)
    assert not [*tmp_path.rglob("*.pyc*")]
