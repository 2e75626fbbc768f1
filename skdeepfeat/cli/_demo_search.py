"""A grid search over deep features of real images, run twice to show the cache.

Two tasks on photographs that scikit-image ships: which surface is it (brick, grass or
gravel, 24 x 24 pixel patches) and is it a face (25 x 25 pixels). For each, one
GridSearchCV selects the layer of the network and the classifier, and the same
classifiers are fitted to raw pixels for comparison. The network is installed with
skdeepfeat, so no connection is needed.

``skdeepfeat demo`` and ``make demo`` run this file. It uses only the public interface,
so it can be read, copied and changed as an example.
"""

import pathlib
import time

import click
import numpy as np
import pandas as pd
import skimage.data
from matplotlib.figure import Figure
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor, load_image_folder

PATCH, STEP = 24, 52
LAYERS = [2, 3, 4, "neck"]
CLASSIFIERS = {
    "logistic regression": LogisticRegression(max_iter=2000),
    "random forest": RandomForestClassifier(100, random_state=0),
    "RBF SVM": SVC(),
}


def write_textures(root):
    """Cut the three photographs into patches, in one folder per class."""
    for name in ("brick", "grass", "gravel"):
        photograph = getattr(skimage.data, name)()
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for top in range(0, photograph.shape[0] - PATCH + 1, STEP):
            for left in range(0, photograph.shape[1] - PATCH + 1, STEP):
                patch = photograph[top : top + PATCH, left : left + PATCH]
                Image.fromarray(patch).save(folder / f"{top:03d}_{left:03d}.png")


def load_textures(root):
    """Return the paths of the patches and the names of their surfaces."""
    write_textures(root)
    folder = load_image_folder(root)
    names = np.array(folder.target_names)
    return np.array(folder.data, dtype=object), names[folder.target]


def load_faces():
    """Return 200 gray images in memory and whether each is a face."""
    images = skimage.data.lfw_subset()
    return images.astype(np.float32), np.repeat(["face", "no face"], 100)


def read_pixels(X):
    """Return the raw pixels of paths or arrays, the features of the baseline."""
    images = [np.asarray(Image.open(x)) / 255 if isinstance(x, str) else x for x in X]
    return np.array(images).reshape(len(images), -1)


def search(features, grid, X, y):
    """Run one grid search; return it and its seconds."""
    pipe = Pipeline([("feat", features), ("scale", StandardScaler()), ("clf", SVC())])
    grid = {**grid, "clf": list(CLASSIFIERS.values())}
    start = time.perf_counter()
    found = GridSearchCV(pipe, grid, cv=5, error_score="raise").fit(X, y)
    return found, time.perf_counter() - start


def accuracies(found, feature_name):
    """Return the accuracies: one row per classifier, one column per layer."""
    results = pd.DataFrame(found.cv_results_)
    names = {repr(clf): name for name, clf in CLASSIFIERS.items()}
    results["classifier"] = [names[repr(clf)] for clf in results["param_clf"]]
    results["features"] = (
        [_title(layer) for layer in results["param_feat__layer"]]
        if "param_feat__layer" in results
        else feature_name
    )
    return results.pivot(
        index="classifier", columns="features", values="mean_test_score"
    )


def _title(layer):
    return f"stage {layer}" if isinstance(layer, int) else f"the {layer}"


def run_task(name, X, y, cache):
    """Search over raw pixels and deep features, cold and warm; return the table."""
    click.echo(f"\n{name}: {len(X)} images, classes {', '.join(np.unique(y))}")
    raw, seconds = search(FunctionTransformer(read_pixels), {}, X, y)
    click.echo(f"  raw pixels      {raw.best_score_:.3f}  ({seconds:.1f} s)")
    # One pass of an image through the network gives the features of all candidates.
    extractor = PretrainedFeatureExtractor(cache=cache, cache_layers=LAYERS)
    grid = {"feat__layer": LAYERS}
    for attempt in ("first time", "again"):
        known = cache.info().n_rows
        deep, seconds = search(extractor, grid, X, y)
        new = cache.info().n_rows - known
        click.echo(
            f"  deep features   {deep.best_score_:.3f}  ({seconds:.1f} s {attempt}: "
            f"{len(deep.cv_results_['params'])} candidates x 5 folds, "
            f"{new} rows computed{' in one pass' if new else ''})"
        )
    best = deep.best_params_
    click.echo(f"  best            {_title(best['feat__layer'])}, {best['clf']}")
    return accuracies(raw, "raw pixels").join(accuracies(deep, None))


def draw_task(axes, name, X, y, table):
    """Draw samples of the classes and the accuracies of every combination."""
    classes = np.unique(y)
    rows = [
        np.hstack([np.asarray(_pixels(x)) for x in X[y == label][::11][:6]])
        for label in classes
    ]
    axes[0].imshow(np.vstack(rows), cmap="gray")
    height = len(rows[0])
    axes[0].set_yticks([height * (i + 0.5) for i in range(len(rows))], classes)
    axes[0].set_xticks([])
    axes[0].set_title(f"{name}, {len(X)} images")
    table.T.plot.bar(ax=axes[1], rot=0, width=0.75)
    axes[1].set_ylim(min(0.5, table.min().min() - 0.05), 1.0)
    axes[1].set_ylabel("accuracy, 5-fold cross-validation")
    axes[1].set_xlabel("")
    axes[1].grid(axis="y", alpha=0.4)
    axes[1].set_axisbelow(True)
    axes[1].legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=len(CLASSIFIERS)
    )
    axes[1].set_title("raw pixels against layers of efficientnet_lite0")


def _pixels(x):
    return Image.open(x) if isinstance(x, str) else x


def run_demo(output):
    """Run both tasks; write the tables to stdout, the picture to `output`.

    Parameters
    ----------
    output : str or path-like
        A folder, created if needed. The cache in it makes the next run fast.
    """
    output = pathlib.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    cache = FeatureCache(output / "cache")
    tasks = {"Surfaces": load_textures(output / "textures"), "Faces": load_faces()}
    # Without pyplot, so that no window or backend is selected.
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(len(tasks), 2, width_ratios=[1, 2])
    for (name, (X, y)), row in zip(tasks.items(), axes, strict=True):
        table = run_task(name, X, y, cache)
        click.echo(table.round(3).to_string())
        draw_task(row, name, X, y, table)
    path = output / "demo.png"
    figure.savefig(path, dpi=110)
    click.echo(f"\nThe picture: {path}")
    click.echo(f"The cache:\n{cache.info()}")
