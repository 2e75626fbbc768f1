"""Two grid searches in two processes, for `search_memory.py`."""

import time

from _common import serve
from _images import make_tiny_images

N_CLASSES = 4


def search(job):
    """Run the search that `job["kind"]` names, with `job["n_folds"]` folds."""
    import numpy as np
    from sklearn.model_selection import GridSearchCV

    images = make_tiny_images(job["n_images"])
    estimator, grid = _KINDS[job["kind"]](job)
    found = GridSearchCV(
        estimator,
        grid,
        cv=job["n_folds"],
        n_jobs=job["n_jobs"],
        scoring={"accuracy": "accuracy", "device_mb": peak_device_memory},
        refit="accuracy",
        error_score="raise",
    )
    labels = np.arange(len(images)) % N_CLASSES
    start = time.perf_counter()
    found.fit(images, labels)
    seconds = time.perf_counter() - start
    splits = [f"split{i}_test_device_mb" for i in range(job["n_folds"])]
    return {
        "seconds": seconds,
        "n_fits": len(found.cv_results_["params"]) * job["n_folds"] + 1,
        "peak_device_mb": float(max(found.cv_results_[name].max() for name in splits)),
    }


def peak_device_memory(estimator, X, y):
    """Return what torch held at most on this process's GPU, in 10^6 bytes.

    A scorer, because it is asked in the worker that did the fit.
    """
    import torch

    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0


def _frozen(job):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from skdeepfeat import PretrainedFeatureExtractor

    extractor = PretrainedFeatureExtractor(
        job["model"], weights=job["weights"], image_size=32, device=job["device"]
    )
    # How well it does is not in question, so it may stop early.
    pipe = make_pipeline(extractor, LogisticRegression(tol=1.0))
    return pipe, {"logisticregression__C": [0.01, 1.0]}


def _tuned(job):
    from skdeepfeat import FineTuneClassifier

    estimator = FineTuneClassifier(
        job["model"],
        weights=job["weights"],
        image_size=32,
        max_epochs=1,
        device=job["device"],
        random_state=0,
    )
    return estimator, {"unfreeze": [1, "all"], "learning_rate": [1e-4, 1e-3]}


_KINDS = {"frozen": _frozen, "tuned": _tuned}


if __name__ == "__main__":
    serve({"search": search})
