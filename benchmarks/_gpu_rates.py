"""Rates on one GPU, all in one process: starting one takes longer than measuring.

The network alone, in each precision and as a CUDA graph; the same from images in
memory; decoding alone and extraction from JPEG files; fine-tuning, compared with a
plain loop with automatic mixed precision. Failures are noted and skipped. Results are
written after each rate, so that nothing is lost when the time is up.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time
import traceback

from _common import markdown_table, n_usable_cpus, write_results

BFLOAT16 = {"precision": "bfloat16", "runtime": "torch"}

# The most important one first.
FORMS = {
    "bfloat16": BFLOAT16,
    "tf32": {"precision": "tf32", "runtime": "torch"},
    "float16": {"precision": "float16", "runtime": "torch"},
    "float32": {"precision": "float32", "runtime": "torch"},
    "bfloat16, compiled": {"precision": "bfloat16", "runtime": "compile"},
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--device", default="cuda")
    add("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    arguments.network = "efficientnet_lite0" if arguments.quick else "resnet50"
    # A network with few layers, for three ways to train it.
    arguments.trained_network = (
        "timm/test_efficientnet" if arguments.quick else "resnet50"
    )
    # Two are enough to see that they run.
    arguments.n_forms = 2 if arguments.quick else len(FORMS)
    arguments.n_files = 8 if arguments.quick else 8192
    arguments.n_images = 8 if arguments.quick else 16_384
    arguments.n_trained = 4 if arguments.quick else 4096
    return arguments


def measurements(arguments, scratch):
    """Yield the names of figures, and functions that return them.

    A function returns images/s, or a dict of them by further words of the name.
    """
    import _limits
    from _images import write_natural_images
    from _networks import write_network

    paths = write_natural_images(scratch / "natural", arguments.n_files)
    write_network({"network": arguments.network, "folder": str(scratch)})
    job = {"network": arguments.network, "folder": str(scratch), "paths": paths}
    job |= {"device": arguments.device, "n_images": arguments.n_images}

    def in_memory(form):
        # The copies of what torch.compile makes cannot be captured.
        has_graph = form["runtime"] == "torch" and arguments.device != "cpu"
        rates = _limits.run_alone({**job, **form}, has_graph)
        rates["from memory"] = _limits.from_memory({**job, **form})
        return {name: one["images_per_s"] for name, one in rates.items()}

    yield "in memory, bfloat16", lambda: in_memory(BFLOAT16)
    yield from _of_files(job, paths, arguments)
    yield from _of_fine_tuning(arguments)
    for name, form in list(FORMS.items())[1 : arguments.n_forms]:
        yield f"in memory, {name}", lambda form=form: in_memory(form)


def _of_files(job, paths, arguments):
    import _limits
    from _contenders import prepare_loop, prepare_skdeepfeat

    def rate(prepare, **form):
        def extract(some):
            prepare({**job, "cache": None, **form, "paths": some})()

        extract(paths[: len(paths) // 8])  # loads the network
        start = time.perf_counter()
        extract(paths)
        return len(paths) / (time.perf_counter() - start)

    yield "files, bfloat16", lambda: rate(prepare_skdeepfeat, **BFLOAT16)
    yield "files, bfloat16, decoded by threads", lambda: _in_threads(rate)
    yield "decoding alone, threads", lambda: _limits.decoding_alone(job)["images_per_s"]
    yield (
        "files, DataLoader loop with a worker per core",
        lambda: rate(prepare_loop, num_workers=n_usable_cpus()),
    )


def _in_threads(rate):
    from unittest import mock

    from _contenders import prepare_skdeepfeat

    from skdeepfeat.feature_extraction import _compute

    with mock.patch.object(_compute, "can_decode_in_processes", lambda *_: False):
        return rate(prepare_skdeepfeat, **BFLOAT16)


def _of_fine_tuning(arguments):
    import _tuning_rates

    size = 32 if arguments.quick else 224
    job = {"network": arguments.trained_network, "image_size": size}
    job |= {"n_images": arguments.n_trained, "batch_size": 4 if arguments.quick else 64}
    job |= {"device": arguments.device, "precision": "bfloat16"}
    job["epochs"] = 1 if arguments.quick else 3
    contenders = {
        "plain loop": (_tuning_rates.plain_loop, {}),
        "skdeepfeat": (_tuning_rates.ours, {}),
        "skdeepfeat, n_views=2": (_tuning_rates.ours, {"n_views": 2}),
    }
    for unfreeze in ("all", 1):
        for name, (train, more) in contenders.items():
            if unfreeze == "all" and more:
                continue  # nothing is frozen that views could be kept of
            one = {**job, **more, "unfreeze": unfreeze}
            yield (
                f"fine-tuning, unfreeze={unfreeze!r}, {name}",
                lambda train=train, one=one: train(one)["images_per_s"],
            )


def report(document):
    rows = [[name, f"{rate:.0f}"] for name, rate in document["rates"].items()]
    return markdown_table([document["network"], "images/s"], rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    document = {"network": arguments.network, "rates": {}, "failed": []}
    with (
        tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder,
        contextlib.closing(measurements(arguments, pathlib.Path(folder))) as steps,
    ):
        for name, measure in steps:
            start = time.perf_counter()
            try:
                found = measure()
            except Exception:
                traceback.print_exc()
                document["failed"].append(name)
                found = {}
            if not isinstance(found, dict):
                found = {"": found}
            for words, rate in found.items():
                document["rates"][", ".join(filter(None, [name, words]))] = rate
            write_results(arguments.output, "gpu_rates", document, report(document))
            print(f"{name}: {found} in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
