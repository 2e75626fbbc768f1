"""Pairs of our work and a plain form of the same, taking turns in one process.

Processor time counts, not the time that passes: it depends less on what else a machine
does. Each task returns the quotients of its pairs, ours to the plain form's.
"""

import os
import pathlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time

import numpy as np
from _common import serve
from _images import write_natural_images, write_tiny_images

# The plain form of a process that only reads known rows.
_IMPORTS = "import sklearn, torch"
_FIRST_CALL = """
import sys
from skdeepfeat import PretrainedFeatureExtractor
paths = open(sys.argv[1]).read().split("\\n")
PretrainedFeatureExtractor(image_size=8, cache=sys.argv[2]).transform(paths)
"""


def _quotients(ours, plain, n_pairs):
    """Return the quotients of the processor time of two functions, in turns."""
    ours(), plain()
    pairs = []
    for _ in range(n_pairs):
        seconds = []
        for function in (ours, plain):
            start = time.process_time()
            function()
            seconds.append(time.process_time() - start)
        pairs.append(seconds[0] / seconds[1])
    return pairs


def cold(job):
    """Extract the features of JPEG files, beside a loop over them."""
    import torch
    from _contenders import ImageFiles
    from torchvision.transforms import v2

    from skdeepfeat import PretrainedFeatureExtractor
    from skdeepfeat.networks import resolve_neck

    paths = write_natural_images(pathlib.Path(job["folder"]), job["n_images"])
    body = resolve_neck().trainable().eval().to(memory_format=torch.contiguous_format)
    body._memory_format = torch.contiguous_format
    steps = [v2.PILToTensor(), v2.Resize(256, antialias=True), v2.CenterCrop(224)]
    transform = v2.Compose(steps)
    extractor = PretrainedFeatureExtractor(cache=None, device="cpu", runtime="torch")

    def plain():
        loader = torch.utils.data.DataLoader(ImageFiles(paths, transform), 32)
        with torch.no_grad():
            return [body(batch) for batch in loader]

    return {"pairs": _quotients(lambda: extractor.transform(paths), plain, job["n"])}


def beside_the_network(job):
    """Extract the features of JPEG files, beside the network alone on ready batches.

    Both in OpenVINO, loaded and converted before: what is left is reading, decoding,
    resizing and handing over.
    """
    from skdeepfeat import PretrainedFeatureExtractor
    from skdeepfeat._utils._device import resolve_device
    from skdeepfeat.networks import resolve_neck

    paths = write_natural_images(pathlib.Path(job["folder"]), job["n_images"])
    extractor = PretrainedFeatureExtractor(cache=None, device="cpu", runtime="openvino")
    neck, device = resolve_neck(), resolve_device("cpu")
    size = min(len(paths), neck.suggested_batch_size(device, "openvino"))
    shape = (size, *neck.preprocessing.crop, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    with neck.loaded(device, "float32", "openvino") as run:

        def network_alone():
            for _ in range(len(paths) // size):
                run(batch)

        pairs = _quotients(lambda: extractor.transform(paths), network_alone, job["n"])
    return {"pairs": pairs}


def _settle(job):
    """Wait, as younger files are hashed each time, see extraction.py."""
    if job["n"] > 1:  # the quick form measures nothing
        time.sleep(2.5)


def warm(job):
    """Read known rows of files, beside os.stat of each and a plain SQLite table."""
    from skdeepfeat import PretrainedFeatureExtractor

    folder = pathlib.Path(job["folder"])
    paths = write_tiny_images(folder / "tiny", job["n_images"])
    _settle(job)
    extractor = PretrainedFeatureExtractor(
        image_size=8, cache=folder / "cache", device="cpu"
    )
    rows = extractor.transform(paths)
    connection = sqlite3.connect(folder / "plain.db")
    connection.execute("create table rows (path text primary key, value blob)")
    with connection:
        connection.executemany(
            "insert into rows values (?, ?)",
            ((path, row.tobytes()) for path, row in zip(paths, rows, strict=True)),
        )

    def plain():
        found = np.empty_like(rows)
        for i, path in enumerate(paths):
            os.stat(path)
            query = "select value from rows where path = ?"
            (value,) = connection.execute(query, (path,)).fetchone()
            found[i] = np.frombuffer(value, np.float32)
        return found

    return {"pairs": _quotients(lambda: extractor.transform(paths), plain, job["n"])}


def first_call(job):
    """Read known rows in a new process, beside one that imports torch and sklearn."""
    from skdeepfeat import PretrainedFeatureExtractor

    folder = pathlib.Path(job["folder"])
    paths = write_tiny_images(folder / "tiny", job["n_images"])
    listed = folder / "paths.txt"
    listed.write_text("\n".join(paths), encoding="utf-8")
    _settle(job)
    cache = str(folder / "cache")
    PretrainedFeatureExtractor(image_size=8, cache=cache).transform(paths)

    def seconds_of(*arguments):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", *arguments], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def seconds_of_a_pair():
        return seconds_of(_FIRST_CALL, str(listed), cache) / seconds_of(_IMPORTS)

    return {"pairs": [seconds_of_a_pair() for _ in range(job["n"])]}


def tuning(job):
    """Fine-tune, beside a plain loop; `unfreeze` and `n_views` are the job's."""
    import _tuning_rates

    settings = {
        "network": "efficientnet_lite0",
        "image_size": 64,
        "n_images": job["n_images"],
        "batch_size": 32,
        "epochs": 3,
        "device": "cpu",
        "precision": "float32",
        "unfreeze": job["unfreeze"],
        "n_views": job.get("n_views"),
    }
    pairs = []
    for _ in range(job["n"]):
        ours = _tuning_rates.ours(settings)["cpu_seconds"]
        plain = _tuning_rates.plain_loop(settings)["cpu_seconds"]
        # What happens once is in the first epoch.
        pairs.append(min(ours[1:]) / min(plain[1:]))
    return {"pairs": pairs}


def _in_a_folder(task):
    def run(job):
        with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder:
            return task({**job, "folder": folder})

    return run


if __name__ == "__main__":
    tasks = {
        "cold": cold,
        "beside_the_network": beside_the_network,
        "warm": warm,
        "first_call": first_call,
        "tuning": tuning,
    }
    serve({name: _in_a_folder(task) for name, task in tasks.items()})
