"""Soft targets: what a small network learns from a large one, or from a forest.

A few CIFAR-10 images have labels, and the others have none. The default network is
tuned on those with labels. A student with fewer than a fifth of its parameters, from
random weights, is trained on the same labels: alone, taught by the tuned network about
all images, and taught by a random forest on frozen features. All students make the same
number of steps. Writes `distillation.json` after each fit and `distillation.md` at the
end. See `benchmarks/README.md`.
"""

import argparse
import logging
import pathlib
import time

import numpy as np
import torch
from _common import HERE, load_cifar10, markdown_table, run_seeds, spread
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"


class Student(nn.Sequential):
    """Five convolutions, a mean and a linear layer."""

    def __init__(self, seed):
        layers, n_inputs = [], 3
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for n_outputs, stride in [(24, 2), (48, 1), (96, 2), (96, 1), (160, 2)]:
                layers += [
                    nn.Conv2d(n_inputs, n_outputs, 3, stride, 1, bias=False),
                    # Without running statistics, which random weights do not have.
                    nn.GroupNorm(8, n_outputs),
                    nn.ReLU(inplace=True),
                ]
                n_inputs = n_outputs
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_inputs, 10)]
        super().__init__(*layers)


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=pathlib.Path, default=DATA, help=".npz")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--n-labeled", type=int, default=500, help="images with labels (500)")
    add("--n-unlabeled", type=int, default=4500, help="images without (4,500)")
    add("--teacher-size", type=int, default=48, help="pixels (48)")
    add("--student-size", type=int, default=32, help="pixels (32)")
    add("--epochs", type=int, default=15, help="over all images (15)")
    add("--device", default="cpu")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def make_student(seed, n_epochs, arguments, **parameters):
    """Return a small network to be trained from random weights."""
    size = (arguments.student_size, arguments.student_size)
    return FineTuneClassifier(
        Student(seed),
        preprocessing={"resize": size, "crop": size},
        layer_decay=1.0,
        learning_rate=2e-3,
        max_epochs=n_epochs,
        device=arguments.device,
        random_state=seed,
        **parameters,
    )


def n_parameters(estimator):
    """Return the number of parameters of a body, without its old head, and its head."""
    *_, old_head = [
        one for one in estimator.body_.modules() if isinstance(one, nn.Linear)
    ]
    total = sum(p.numel() for p in estimator.body_.parameters())
    total -= sum(p.numel() for p in old_head.parameters())
    return total + sum(p.numel() for p in estimator.head_.parameters())


def run_seed(images, labels, tests, seed, arguments):
    """Yield one record per fit."""
    n_labeled, n_unlabeled = arguments.n_labeled, arguments.n_unlabeled
    rest, few = train_test_split(
        np.arange(len(labels)), test_size=n_labeled, stratify=labels, random_state=seed
    )
    X, y, X_unlabeled = images[few], labels[few], images[rest[:n_unlabeled]]

    def fit(name, estimator, unlabeled=None):
        start = time.perf_counter()
        more = {} if unlabeled is None else {"X_unlabeled": unlabeled}
        estimator.fit(X, y, **more)
        return {
            "seed": seed,
            "name": name,
            "parameters": n_parameters(estimator)
            if hasattr(estimator, "body_")
            else None,
            "unlabeled": 0 if unlabeled is None else len(unlabeled),
            "score": estimator.score(*tests),
            "seconds": time.perf_counter() - start,
        }

    tuned = FineTuneClassifier(
        image_size=arguments.teacher_size, device=arguments.device, random_state=seed
    )
    yield fit("the tuned network", tuned)
    forest = make_pipeline(
        PretrainedFeatureExtractor(
            image_size=arguments.teacher_size, device=arguments.device
        ),
        RandomForestClassifier(500, random_state=seed),
    )
    yield fit("a forest on frozen features", forest)
    n_epochs = arguments.epochs
    # As many steps as with the images without labels.
    n_alone = n_epochs * (n_labeled + len(X_unlabeled)) // n_labeled
    yield fit("student, alone", make_student(seed, n_alone, arguments))
    for name, teacher, temperature in [
        ("the tuned network", tuned, 2.0),
        # The votes of many trees are soft as they are.
        ("the forest", forest, 1.0),
    ]:
        student = make_student(
            seed, n_epochs, arguments, teacher=teacher, distill_temperature=temperature
        )
        yield fit(f"student, taught by {name}", student, X_unlabeled)


def report(records):
    """Return a table with one row for each network."""
    rows = []
    for name in dict.fromkeys(record["name"] for record in records):
        of_name = [record for record in records if record["name"] == name]
        n = of_name[0]["parameters"]
        rows.append(
            [
                name,
                "-" if n is None else f"{n:,}",
                f"{of_name[0]['unlabeled']:,}",
                spread([100 * record["score"] for record in of_name]),
                spread([record["seconds"] for record in of_name], digits=0),
            ]
        )
    header = ["", "parameters", "unlabeled images", "accuracy in %", "seconds"]
    return markdown_table(header, rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images, labels, *tests = load_cifar10(arguments.cifar10)
    run_seeds(
        "distillation",
        arguments,
        lambda seed: run_seed(images, labels, tests, seed, arguments),
        report,
    )


if __name__ == "__main__":
    main()
