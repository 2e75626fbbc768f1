"""The same `fit` under ``torchrun``: every process ends where one alone would."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks._forks import run_python

SCRIPT = """
import json, os, sys
import numpy as np
import torch
from torch import nn
from skdeepfeat import FineTuneClassifier

torch.set_num_threads(1)
with torch.random.fork_rng():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )
rng = np.random.default_rng(0)
X = rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
y = np.where(X[..., 0].mean((1, 2)) > X[..., 1].mean((1, 2)), "red", "green")
clf = FineTuneClassifier(
    network,
    preprocessing={"resize": 16, "crop": (16, 16)},
    max_epochs=3, batch_size=7, learning_rate=0.01, random_state=0,
    cache=sys.argv[1], early_stopping=True, device="cpu",
).fit(X, y, X_probe=X[:3])
rank = os.environ.get("RANK", "alone")
history = clf.history_.drop(columns="seconds").fillna(-1).values[:, 1:].tolist()
with open(os.path.join(sys.argv[2], rank + ".json"), "w") as file:
    probes = clf.probe_predictions_.reshape(len(history), -1)
    json.dump([history, [*clf.predict_proba(X).tolist(), *probes.tolist()]], file)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_reach_what_one_reaches(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    arguments = [str(script), str(tmp_path / "cache"), str(tmp_path)]
    root = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone = run_python(arguments, env=environment)
    assert alone.returncode == 0, alone.stderr
    command = [sys.executable, *launch, *arguments]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    history, probabilities = json.loads((tmp_path / "alone.json").read_text())
    for rank in "01":
        found, others = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == len(history) == 4
        for row, wanted in zip(found, history, strict=True):
            assert row == pytest.approx(wanted, abs=1e-3)
        for row, wanted in zip(others, probabilities, strict=True):
            assert row == pytest.approx(wanted, abs=1e-3)
