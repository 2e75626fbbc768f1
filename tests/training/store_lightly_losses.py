"""Store the values of lightly's losses, which the tests compare ours with.

    pip install --no-deps --target FOLDER lightly==1.6.0
    PYTHONPATH=FOLDER python tests/training/store_lightly_losses.py

lightly is no part of the extra [test], because it brings PyTorch Lightning and hydra.
Its losses need neither. It writes `lightly_losses.json` beside this file.
"""

import json
import pathlib

import lightly
import numpy as np
import torch
from lightly.loss import (
    BarlowTwinsLoss,
    NegativeCosineSimilarity,
    NTXentLoss,
    VICRegLoss,
)
from lightly.loss.hypersphere_loss import HypersphereLoss

# By our names. lightly's own defaults differ in the temperatures of two.
LOSSES = {
    "simclr": NTXentLoss(temperature=0.5),
    "vicreg": VICRegLoss(),
    "barlow": BarlowTwinsLoss(),
    "align_uniform": HypersphereLoss(t=2.0),
    "byol": lambda first, second: 2 + 2 * NegativeCosineSimilarity()(first, second),
}
SHAPES = [(5, 3), (7, 5), (16, 40)]


def main():
    cases = []
    for seed, (n, d) in enumerate(SHAPES):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=(n, d)).round(3) + 1
        second = first + 0.4 * rng.normal(size=(n, d)).round(3)
        tensors = torch.from_numpy(first), torch.from_numpy(second)
        values = {name: float(loss(*tensors)) for name, loss in LOSSES.items()}
        cases.append(
            {"first": first.tolist(), "second": second.tolist(), "losses": values}
        )
    path = pathlib.Path(__file__).with_name("lightly_losses.json")
    document = {"lightly": lightly.__version__, "cases": cases}
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
