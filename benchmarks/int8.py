"""What 8-bit integers would bring to the extraction of features.

A linear head is fitted to the features of a frozen network. The network is then run by
OpenVINO in float32, in bfloat16 where the processor computes in it, and in int8
(quantized by NNCF), and by ONNX Runtime in float32 and int8. Each form takes turns at
batches of 32 decoded images, with one thread. The least CPU time counts, which other
processes disturb little. Scores are those of images that neither the head nor the
quantization has seen. Decoding and resizing takes its time in any case, so it is
measured as well.

    python benchmarks/int8.py [FOLDER] [--image-size 224] [--repeats 20]

FOLDER has a folder of photographs for each class. The default is parts of photographs
that scikit-image brings.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np
import onnxruntime
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from sklearn.model_selection import train_test_split

from skdeepfeat import FineTuneClassifier, load_image_folder
from skdeepfeat.feature_extraction import ExtractionSettings, load_pixels
from skdeepfeat.fine_tuning import FittedEstimator
from skdeepfeat.networks import import_openvino

BATCH = 32


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--n-images", type=int, default=400)
    parser.add_argument("--n-calibration", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def load_images(folder, n_images):
    """Return photographs and labels; of a large folder a random part."""
    if folder is None:
        examples = pathlib.Path(__file__).resolve().parents[1] / "examples"
        sys.path.insert(0, str(examples))
        from _photographs import make_views

        images, labels, _ = make_views(n_images)
        return np.array(images, dtype=object), np.array(labels)
    data = load_image_folder(folder)
    chosen = np.random.default_rng(0).permutation(len(data.target))[:n_images]
    return data.data[chosen], data.target[chosen]


def write_files(clf, folder, calibration):
    """Return functions from pixels to probabilities, and seconds to make them."""
    openvino = import_openvino()
    core = openvino.Core()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runs, seconds = {}, {}
    for dtype in ("float32", "int8"):
        start = time.perf_counter()
        clf.to_openvino(folder / f"{dtype}.xml", dtype, calibration)
        hints = {"float32": ["f32", "bf16"], "int8": ["f32"]}[dtype]
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            hints = ["f32"]
        for hint in hints:
            settings = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": 1,
                "PERFORMANCE_HINT": "LATENCY",
            }
            compiled = core.compile_model(folder / f"{dtype}.xml", "CPU", settings)
            name = f"OpenVINO, {'bfloat16' if hint == 'bf16' else dtype}"
            runs[name] = lambda pixels, run=compiled: run([pixels])[0]
            seconds[name] = time.perf_counter() - start
        start = time.perf_counter()
        clf.to_onnx(folder / f"{dtype}.onnx", dtype, calibration)
        session = onnxruntime.InferenceSession(folder / f"{dtype}.onnx", options)
        name = f"ONNX Runtime, {dtype}"
        runs[name] = lambda pixels, run=session: run.run(None, {"images": pixels})[0]
        seconds[name] = time.perf_counter() - start
    return runs, seconds


def measure(arguments):
    """Return a record for each form, and the milliseconds of decoding an image."""
    X, y = load_images(arguments.folder, arguments.n_images)
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=0.5, stratify=y, random_state=0
    )
    clf = FineTuneClassifier(
        arguments.model,
        weights="random" if arguments.random_weights else "default",
        image_size=arguments.image_size,
        unfreeze=None,
        device="cpu",
        random_state=0,
    ).fit(X, y)
    geometry = FittedEstimator(clf).neck.preprocessing
    before = time.process_time()
    pixels, _, _ = load_pixels(X_test, geometry, ExtractionSettings())
    decoding = 1000 * (time.process_time() - before) / len(pixels)
    with tempfile.TemporaryDirectory() as folder:
        calibration = X[: arguments.n_calibration]
        runs, seconds = write_files(clf, pathlib.Path(folder), calibration)
        best = {name: np.inf for name in runs}
        batch = np.ascontiguousarray(np.resize(pixels, (BATCH, *pixels.shape[1:])))
        for _ in range(2 + arguments.repeats):
            for name, run in runs.items():
                before = time.process_time()
                run(batch)
                best[name] = min(best[name], time.process_time() - before)
        results = {name: _in_batches(run, pixels) for name, run in runs.items()}
    reference = results["OpenVINO, float32"]
    records = [
        {
            "form": name,
            "seconds_to_make": seconds[name],
            "ms_per_image": 1000 * best[name] / BATCH,
            "accuracy": float((clf.classes_[found.argmax(1)] == y_test).mean()),
            "same_labels": float((found.argmax(1) == reference.argmax(1)).mean()),
            "mean_difference": float(np.abs(found - reference).mean()),
        }
        for name, found in results.items()
    ]
    return records, decoding


def _in_batches(run, pixels):
    parts = [
        run(np.ascontiguousarray(pixels[k : k + BATCH]))
        for k in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts)


def main(argv=None):
    arguments = parse_arguments(argv)
    machine = describe_machine()
    with watch_others(machine):
        records, decoding = measure(arguments)
    header = [
        "form", "ms/image", "with decoding", "accuracy", "same labels",
        "mean difference", "s to make",
    ]  # fmt: skip
    rows = [
        [
            one["form"],
            f"{one['ms_per_image']:.2f}",
            f"{one['ms_per_image'] + decoding:.2f}",
            f"{one['accuracy']:.3f}",
            f"{one['same_labels']:.3f}",
            f"{one['mean_difference']:.4f}",
            f"{one['seconds_to_make']:.1f}",
        ]
        for one in records
    ]
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    print(text)
    record = {"machine": machine, "results": records, "decoding": decoding}
    write_results(pathlib.Path(arguments.output), "int8", record, text)


if __name__ == "__main__":
    main()
