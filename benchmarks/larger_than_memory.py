"""Memory of `extract_to`: it stays the same while the number of images grows.

The same network writes the features of more and more image files, each time in a
process of its own. The images are small (64 x 64 pixels, computed at 32), because
neither their size nor the speed of the network matters here; the rows are the embedded
network's own 1,280 floats. `transform`, which returns all of them, is measured too.

    python benchmarks/larger_than_memory.py [--n-images 2000 20000] [--formats ...]
        [--runtime torch] [--quick]
"""

import argparse
import pathlib
import sys
import tempfile
import time

from _common import (
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    serve,
    watch_others,
    write_results,
)

IMAGE_SIZE = 32
FORMATS = ("parquet", "npy", "zarr", "transform")


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-images", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--device", default="auto")
    # By itself, the extraction would take torch for few images and OpenVINO, with a
    # hundred MB of its own, for many.
    parser.add_argument(
        "--runtime", choices=("torch", "openvino", "auto"), default="torch"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run; its figures mean nothing"
    )
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def write_images(folder, n_images):
    """Write JPEG files of 64 x 64 pixels, no two alike, and return their paths."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for i in range(n_images):
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64)).save(path, quality=85)
        paths.append(str(path))
    return paths


def extract(job):
    """Write, or return, the features of the first images of a folder."""
    from skdeepfeat import PretrainedFeatureExtractor

    paths = sorted(map(str, pathlib.Path(job["images"]).rglob("*.jpg")))
    paths = paths[: job["n_images"]]
    extractor = PretrainedFeatureExtractor(
        job["model"],
        image_size=IMAGE_SIZE,
        device=job["device"],
        runtime=job["runtime"],
        cache=None,
    )
    start = time.perf_counter()
    if job["format"] == "transform":
        size = extractor.transform(paths).nbytes
    else:
        path = pathlib.Path(job["folder"], f"features.{job['format']}")
        path = extractor.extract_to(paths, path)
        files = path.rglob("*") if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
    return {"seconds": time.perf_counter() - start, "size_mb": size / 1e6}


def measure(arguments):
    results = []
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as images:
        write_images(pathlib.Path(images), max(arguments.n_images))
        for form in arguments.formats:
            for n_images in arguments.n_images:
                with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder:
                    job = {
                        "task": "extract",
                        "images": images,
                        "folder": folder,
                        "format": form,
                        "n_images": n_images,
                        "model": arguments.model,
                        "device": arguments.device,
                        "runtime": arguments.runtime,
                    }
                    result = run_worker("larger_than_memory.py", job)
                results.append({"format": form, "n_images": n_images, **result})
    return results


def report(results):
    """Return the results as a Markdown table."""
    rows, first = [], {}
    for result in results:
        peak = first.setdefault(result["format"], result["peak_mb"])
        rows.append(
            [
                result["format"],
                result["n_images"],
                f"{result['peak_mb']:.0f}",
                f"{result['peak_mb'] / peak:.2f}",
                f"{result['size_mb']:.0f}",
                f"{result['n_images'] / result['seconds']:.0f}",
            ]
        )
    header = [
        "written to",
        "images",
        "peak memory, MB",
        "x the first",
        "features, MB",
        "images/s",
    ]
    return markdown_table(header, rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.quick:
        be_quick()
    machine = describe_machine()
    with watch_others(machine):
        results = measure(arguments)
    text = f"{report(results)}\n\n{machine_line(machine)}"
    print(text)
    document = {"machine": machine, "results": results}
    write_results(pathlib.Path(arguments.output), "larger_than_memory", document, text)


if __name__ == "__main__":
    # `run_worker` starts this file again with two files' names.
    if len(sys.argv) == 3 and pathlib.Path(sys.argv[1]).name == "job":
        serve({"extract": extract})
    else:
        main()
