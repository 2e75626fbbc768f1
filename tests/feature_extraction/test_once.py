"""An image goes through the neck once: across folds, candidates, processes and kills.

Everything here runs in processes of its own, as users' scripts do; the network counts
the images that reach it in a file that all of them append to.
"""

import os
import pathlib
import signal

import numpy as np
import pytest
from networks import CountingNet, rows_counted
from PIL import Image

from benchmarks._forks import start_python
from skdeepfeat import FeatureCache, PretrainedFeatureExtractor

N = 60
ROOT = pathlib.Path(__file__).parents[2]

SEARCH = """
import sys
from pathlib import Path
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from skdeepfeat import PretrainedFeatureExtractor
from networks import CountingNet

folder, log = sys.argv[1:]
paths = sorted(map(str, Path(folder).glob("*.png")))
net = CountingNet(log)
pipe = Pipeline([
    ("feat", PretrainedFeatureExtractor(net, image_size=32, batch_size=8)),
    ("rf", RandomForestClassifier(random_state=0)),
])
grid = {"rf__max_depth": [1, 2, 3], "rf__n_estimators": [2, 3, 4, 5]}
search = GridSearchCV(pipe, grid, cv=5, n_jobs=2, error_score="raise")
search.fit(paths, [i % 2 for i in range(len(paths))])
print(len(search.cv_results_["params"]))
"""

EXTRACT = """
import os, signal, sys
from pathlib import Path
import numpy as np
from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.cache import _fetch
from networks import CountingNet, rows_counted

folder, log, *dies = sys.argv[1:]
_fetch._COMMIT_INTERVAL = 0  # what a kill costs is counted in batches, not seconds

class Net(CountingNet):
    def forward(self, x):
        if dies and x.device.type != "meta" and rows_counted(self.log) >= 28:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

paths = sorted(map(str, Path(folder).glob("*.png")))
extractor = PretrainedFeatureExtractor(Net(log), image_size=32, batch_size=4)
rows = extractor.transform(paths)
sys.stdout.write(rows.tobytes().hex())
"""

# Reports every file of weights that is opened and every network that is built.
WARM = """
import sys
opened = []
sys.addaudithook(
    lambda event, args: opened.append(str(args[0]))
    if event == "open" and str(args[0]).endswith((".pth", ".pt", ".safetensors"))
    else None
)
from pathlib import Path
from skdeepfeat import PretrainedFeatureExtractor
paths = sorted(map(str, Path(sys.argv[1]).glob("*.png")))[:3]
PretrainedFeatureExtractor(image_size=32).fit_transform(paths)
print(opened)
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(N):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def python():
    """Start scripts; whatever still runs at the end of the test is killed."""
    started = []

    def start(script, *arguments):
        process = start_python(
            ["-c", script, *arguments],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/tests/support"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_grid_search_computes_every_image_once(python, folder, tmp_path):
    log = tmp_path / "log"
    assert finish(python(SEARCH, folder, log)).strip() == "12"
    assert rows_counted(log) == N
    pids = {line.split()[1] for line in log.read_text().splitlines()}
    assert pids.isdisjoint({str(os.getpid())})
    log.unlink()
    finish(python(SEARCH, folder, log))
    assert rows_counted(log) == 0


@pytest.mark.slow
def test_two_scripts_started_together_share_the_work(
    python, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("SECONDS_AN_IMAGE", "0.01")
    log = tmp_path / "log"
    both = [python(EXTRACT, folder, log) for _ in range(2)]
    first, second = [finish(process) for process in both]
    assert first == second
    assert rows_counted(log) == N


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_stored(python, folder, tmp_path, monkeypatch):
    log = tmp_path / "log"
    process = python(EXTRACT, folder, log, "dies")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = rows_counted(log)
    assert 28 <= before < N
    stored = FeatureCache().info().n_rows
    # The network may be three batches ahead of what has been committed.
    assert before - 12 <= stored <= before
    resumed = finish(python(EXTRACT, folder, log))
    assert rows_counted(log) == before + N - stored
    assert FeatureCache().check().ok
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(tmp_path / "other"))
    paths = sorted(map(str, folder.glob("*.png")))
    extractor = PretrainedFeatureExtractor(CountingNet(log), image_size=32)
    assert extractor.transform(paths).tobytes().hex() == resumed


@pytest.mark.slow
def test_a_warm_process_does_not_open_the_weights(python, folder):
    assert "efficientnet" in finish(python(WARM, folder))
    assert finish(python(WARM, folder)).strip() == "[]"
