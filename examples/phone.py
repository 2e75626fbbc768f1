"""From photographs to a network of less than 2 MB that runs without torch.

    python examples/phone.py [FOLDER] [--image-size 128] [--output phone]

FOLDER has a folder of photographs for each class. Without it, parts of photographs that
scikit-image brings are told apart.

A pretrained network is fine-tuned, made smaller by low rank and pruning until its
weights fit, trained further, and quantized to 8 bits. The file is then run by ONNX
Runtime alone, in a process that has no torch. A picture shows the scores and sizes of
the networks on the way.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np
from _photographs import make_views

from skdeepfeat import FineTuneClassifier, load_image_folder
from skdeepfeat.compression import compress, export_report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skdeepfeat.plotting import CompressionDisplay

MAX_BYTES = 2_000_000

# Around the points in the picture. Unlike names, they may lie on top of each other, as
# times in float32 and float16 are alike.
MARKERS = {"float32": "o", "float16": "s", "int8": "D"}

# What a phone or a small server does, without torch and without this package. How
# images are to be prepared is in the file.
ON_THE_PHONE = """
import json, sys
import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
notes = session.get_modelmeta().custom_metadata_map
classes = json.loads(notes["classes"])
geometry = json.loads(notes["preprocessing"])
height, width = geometry["crop"]

def prepare(path):
    image = Image.open(path).convert("RGB")
    ratio = geometry["resize"] / min(image.size)
    size = [round(side * ratio) for side in image.size]
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(image.crop((left, top, left + width, top + height)))

n_right = 0
photographs = json.load(sys.stdin)
for path, label in photographs:
    images = prepare(path)[None]
    [[probabilities]] = session.run(["probabilities"], {"images": images})
    n_right += classes[probabilities.argmax()] == label
assert not {"torch", "skdeepfeat"} & set(sys.modules)
print(n_right / len(photographs))
"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--n-photographs", type=int, default=320)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "int8"])
    parser.add_argument("--output", type=pathlib.Path, default="phone")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)

    folder = arguments.folder
    if folder is None:
        folder = arguments.output / "photographs"
        write_photographs(folder, arguments.n_photographs)
    data = load_image_folder(folder)
    X, y = data.filenames, np.array(data.target_names)[data.target]
    order = np.random.default_rng(0).permutation(len(y))
    n_train = len(y) * 5 // 8
    X, X_test = X[order[:n_train]], X[order[n_train:]]
    y, y_test = y[order[:n_train]], y[order[n_train:]]

    full = FineTuneClassifier(
        image_size=arguments.image_size, unfreeze="all", max_epochs=2, random_state=0
    ).fit(X, y)
    # In int8 a parameter takes a byte, and tables of the file take some more.
    small = compress(
        full,
        X,
        y,
        method=["low_rank", "prune"],
        max_score_drop=0.03,
        max_bytes=int(0.8 * 4 * MAX_BYTES),
        fine_tune_epochs=min(2, arguments.epochs),
        runtimes=["torch"],  # the files are timed below
        random_state=0,
    )
    small.set_params(warm_start=True, max_epochs=arguments.epochs).fit(X, y)

    paths = []
    for name, clf in (("full", full), ("small", small)):
        for dtype in arguments.dtypes:
            paths.append(arguments.output / f"{name}_{dtype}.onnx")
            clf.to_onnx(paths[-1], dtype=dtype, X_calibration=X)
    # All in one report, so that they take turns when they are timed. The first row is
    # the estimator.
    report = export_report(full, paths, X_test, y_test)[1:].reset_index(drop=True)
    report["file"] = [path.name for path in paths]
    # "none" is the network as it is, in the picture.
    report["method"] = np.repeat(["none", "compressed"], len(arguments.dtypes))
    columns = ["file", "score", "same_labels", "bytes", "ms_per_image_1"]
    print(report[columns].round(3).to_string(index=False))

    path = arguments.output / "small_int8.onnx"
    accuracy = run_without_torch(path, X_test, y_test)
    print(
        f"accuracy of the full network {report['score'][0]:.3f}, of the file without "
        f"torch {accuracy:.3f}; {path.stat().st_size} bytes"
    )
    draw(report, arguments.output / "phone.png")


def write_photographs(folder, n):
    images, labels, names = make_views(n)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def run_without_torch(path, X, y):
    """Return the accuracy of a file, in a process of its own."""
    photographs = [(str(one), str(label)) for one, label in zip(X, y, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_PHONE, str(path)],
        input=json.dumps(photographs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def draw(report, path):
    curve = report.rename(columns={"ms_per_image_1": "ms_per_image_onnxruntime_1"})
    curve = curve.drop(columns="ms_per_image_32")
    dtype = curve["file"].str.extract(r"_(\w+)\.onnx", expand=False)
    costs = {"bytes": curve["bytes"] / 1e6, "time": curve["ms_per_image_onnxruntime_1"]}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for ax, (against, cost) in zip(axes, costs.items(), strict=True):
        CompressionDisplay(curve=curve).plot(ax, against=against)
        handles, _ = ax.get_legend_handles_labels()
        for name, rows in curve.groupby(dtype, sort=False):
            handles += ax.plot(
                cost[rows.index],
                rows["score"],
                color="0.5",
                fillstyle="none",
                linestyle="none",
                marker=MARKERS[name],
                markersize=13,
                label=name,
            )
        ax.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=3,
            frameon=False,
        )
        ax.set_xlim(0, 1.15 * ax.get_xlim()[1])
        ax.margins(y=0.2)
    axes[0].axvline(MAX_BYTES / 1e6, color="0.75", linestyle=":")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
