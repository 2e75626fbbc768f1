"""Searches in several processes: one computes, the others wait and load nothing.

Everything here runs in processes of its own, as users' scripts do.
"""

import json
import os
import pathlib
import subprocess
import sys

import joblib
import pytest

from benchmarks._forks import run_python

ROOT = pathlib.Path(__file__).parents[2]

# What the workers themselves say is asked by a scorer, because that is called there.
SEARCH = """
import json, os, sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skdeepfeat import PretrainedFeatureExtractor

def n_loaded(estimator, X, y):
    from skdeepfeat.networks.running import _loaded_networks as _store
    return sum(entry.network is not None for entry in _store._entries.values())

def pid(estimator, X, y):
    return os.getpid()

X = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
y = np.arange(40) % 2
pipe = make_pipeline(
    PretrainedFeatureExtractor(image_size=32), LogisticRegression(tol=10.0)
)
results = []
# The first one is of this process; the workers of the second one know nothing.
for n_jobs in (1, 2):
    search = GridSearchCV(
        pipe, {"logisticregression__C": [0.1, 1.0]}, cv=4, n_jobs=n_jobs, refit=False,
        scoring={"n_loaded": n_loaded, "pid": pid}, error_score="raise",
    ).fit(X, y)
    def values(name):
        found = search.cv_results_
        keys = [f"split{i}_test_{name}" for i in range(4)]
        return sorted({int(value) for key in keys for value in found[key]})
    results.append({"n_loaded": values("n_loaded"), "pid": values("pid")})
print(json.dumps(results))
"""

# Two candidates for `model`, and the layers of each, at the same moment.
MODELS = """
import sys
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from skdeepfeat import PretrainedFeatureExtractor
from networks import AloneNet

print(torch.get_num_threads())
X = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
pipe = Pipeline([
    ("feat", PretrainedFeatureExtractor(image_size=32, batch_size=4)),
    ("clf", LogisticRegression(tol=10.0)),
])
grid = {
    "feat__model": [AloneNet(sys.argv[1], n_features=n) for n in (4, 5)],
    "feat__layer": ["conv", "neck"],
}
search = GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise")
search.fit(X, np.arange(24) % 2)
"""


def run(script, *arguments):
    """Run a script as from a shell without settings for the number of threads."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests/support"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_warm_workers_load_nothing():
    done = run_python(["-c", SEARCH], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["n_loaded"][-1] == 1  # the counter counts
    assert second["n_loaded"] == [0]
    assert not set(first["pid"]) & set(second["pid"])


@pytest.mark.slow
def test_one_process_at_a_time_runs_a_network_and_with_all_cores(tmp_path):
    log = tmp_path / "log"
    n_threads_alone = int(run(MODELS, log))
    lines = [line.split() for line in log.read_text().splitlines()]
    # Two networks, two layers, every image once for each.
    assert sum(int(n_images) for n_images, *_ in lines) == 2 * 2 * 24
    assert {n_others for *_, n_others, _ in lines} == {"0"}
    assert {int(n_threads) for *_, n_threads in lines} <= {
        joblib.cpu_count(),
        # the process that refits is not a worker of a pool
        n_threads_alone,
    }
