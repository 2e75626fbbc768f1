"""One grid search, 5 folds x 12 candidates and the refit, with three kinds of memory.

The rows that go through the neck are counted in the process that runs the search, so
`n_jobs` is 1 here; what happens with several processes is a test of the package.
"""

import pathlib
import time

from _common import count_rows, serve

# Small images: the number of rows does not depend on their size, the time does.
IMAGE_SIZE = 96
QUICK_SIZE = 32
N_FOLDS = 5
CANDIDATES = {
    "rf__max_depth": [2, 4, None],
    "rf__max_features": ["sqrt", 0.1],
    "rf__min_samples_leaf": [1, 3],
}
QUICK_CANDIDATES = {"rf__max_depth": [2, 4, None]}


def search(job):
    """Run the search; `job["memory"]` is none, pipeline or skdeepfeat."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

    from skdeepfeat import PretrainedFeatureExtractor

    kind, folder = job["memory"], pathlib.Path(job["folder"])
    extractor = PretrainedFeatureExtractor(
        image_size=QUICK_SIZE if job["quick"] else IMAGE_SIZE,
        cache=folder / "cache" if kind == "skdeepfeat" else None,
        device=job["device"],
    )
    forest = RandomForestClassifier(2 if job["quick"] else 10, random_state=0)
    pipe = Pipeline(
        [("feat", extractor), ("rf", forest)],
        memory=str(folder / "memory") if kind == "pipeline" else None,
    )
    paths = job["paths"]
    labels = [i % 2 for i in range(len(paths))]
    with count_rows() as batches:
        start = time.perf_counter()
        grid = QUICK_CANDIDATES if job["quick"] else CANDIDATES
        found = GridSearchCV(pipe, grid, cv=N_FOLDS).fit(paths, labels)
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "rows": sum(batches),
        "n_images": len(paths),
        "n_candidates": len(found.cv_results_["params"]),
    }


if __name__ == "__main__":
    serve({"search": search})
