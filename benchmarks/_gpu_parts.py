"""What `gpu.sh` runs: each part as a process with a time limit, and one report."""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from _common import (
    HERE,
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)

# Seconds that a part may take: 8 minutes in all.
LIMITS = {"tests": 110, "rates": 310, "memory": 60}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--parts", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    add("--device", default="cuda")
    add("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    add("--patience", type=float, default=1, help="factor of the time limits (1)")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def commands_of(arguments):
    """Return for each part the command that runs it."""
    python, device = sys.executable, ["--device", arguments.device]
    quick = ["--quick"] if arguments.quick else []
    memory = [python, str(HERE / "search_memory.py"), *device, "--searches", "frozen"]
    memory += ["--folds", "3"]
    memory += ["--n-images", "60" if arguments.quick else "1000", *quick]
    tests = str(HERE.parent / "tests" / "test_gpu.py")
    return {
        "tests": [python, "-m", "pytest", "-q", "-m", "gpu", "-n", "0", tests],
        "rates": [python, str(HERE / "_gpu_rates.py"), *device, *quick],
        "memory": memory,
    }


def run_part(command, limit, folder):
    """Run a command for at most `limit` seconds, and everything that it starts.

    Returns
    -------
    dict
        ``state``, ``seconds``, the end of its ``log``, and its ``results``: what its
        JSON files hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, start, state = folder / "log.txt", time.perf_counter(), "done"
    if "pytest" not in command:
        command = [*command, "--output", str(folder)]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if process.wait(limit):
                state = f"failed, exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            state = f"stopped after {limit:g} s"
        finally:
            # Workers that were left behind, too.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return {
        "state": state,
        "seconds": round(time.perf_counter() - start, 1),
        "log": log.read_text(encoding="utf-8", errors="replace")[-20_000:],
        "results": {
            file.stem: json.loads(file.read_text(encoding="utf-8"))
            for file in sorted(folder.glob("*.json"))
        },
    }


def report(document, folder):
    """Return what became of each part, and the tables of those that are done."""
    rows = [
        [name, part["state"], part["seconds"], _last_line(part["log"])]
        for name, part in document["parts"].items()
    ]
    texts = [markdown_table(["part", "state", "seconds", "last line"], rows)]
    for name in document["parts"]:
        for table in sorted((folder / name).glob("*.md")):
            texts.append(table.read_text(encoding="utf-8").strip())
    return "\n\n".join([*texts, machine_line(document["machine"])])


def _last_line(log):
    lines = log.strip().splitlines()
    return lines[-1].replace("|", "/")[:80] if lines else ""


def describe_gpu(device):
    """Return the name of the GPU, or None without one."""
    if device == "cpu":
        return None  # importing torch takes as long as a part of the quick form
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def main(argv=None):
    arguments = parse_arguments(argv)
    document = {
        "machine": describe_machine(),
        "gpu": describe_gpu(arguments.device),
        "parts": {},
    }
    commands = commands_of(arguments)
    with watch_others(document["machine"]):
        for name in arguments.parts:
            limit = arguments.patience * LIMITS[name]
            print(f"{name}: at most {limit:g} s", flush=True)
            document["parts"][name] = run_part(
                commands[name], limit, arguments.output / name
            )
    text = report(document, arguments.output)
    path = write_results(arguments.output, "gpu", document, text)
    print(f"{text}\n\nGPU: {document['gpu']}. All single results: {path}")


if __name__ == "__main__":
    main()
