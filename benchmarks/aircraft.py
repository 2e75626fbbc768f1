"""Transport or military? Fine-tuning against frozen features on 400 photographs.

A folder with a folder of photographs a class, half of them to train on. Whatever has to
be chosen for the frozen features is chosen by cross-validation within the training
photographs; FineTuneClassifier has its default settings. Writes `aircraft.json` and
`.md` into the output folder. See `benchmarks/README.md`.
"""

import argparse
import pathlib
import time

from _common import (
    HERE,
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor, load_image_folder

DEFAULT_DATA = HERE.parents[1] / "shared" / "data" / "aircraft"


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=DEFAULT_DATA, help="class-per-folder tree")
    add("--seeds", type=int, nargs="+", default=[0], help="one split each (0)")
    add("--device", default="auto")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        raise SystemExit(f"--data: there is no folder {str(arguments.data)!r}.")
    return arguments


def run(arguments, document):
    """Fit both ways on the same half and score on the other, once a seed."""
    photos = load_image_folder(arguments.data)
    names = photos.target_names
    labels = [names[i] for i in photos.target]
    ways = {
        "logistic regression on frozen features": lambda seed: GridSearchCV(
            make_pipeline(
                PretrainedFeatureExtractor(device=arguments.device),
                StandardScaler(),
                LogisticRegression(max_iter=2000),
            ),
            {"logisticregression__C": [0.0001, 0.001, 0.01, 0.1]},
        ),
        "FineTuneClassifier, default settings": lambda seed: FineTuneClassifier(
            device=arguments.device, random_state=seed
        ),
    }
    document["results"] = []
    for seed in arguments.seeds:
        X, X_test, y, y_test = train_test_split(
            photos.data, labels, test_size=0.5, stratify=labels, random_state=seed
        )
        for name, make in ways.items():
            start = time.perf_counter()
            model = make(seed).fit(X, y)
            seconds = time.perf_counter() - start
            document["results"].append(
                {
                    "way": name,
                    "seed": seed,
                    "n_train": len(X),
                    "n_test": len(X_test),
                    "accuracy": float(model.score(X_test, y_test)),
                    "seconds": seconds,
                }
            )


def report(document):
    rows = [
        [
            result["way"],
            result["seed"],
            f"{result['accuracy']:.4f}",
            f"{result['seconds']:.0f}",
        ]
        for result in document["results"]
    ]
    first = document["results"][0]
    header = [
        f"{first['n_train']} photographs to train, {first['n_test']} to test",
        "split",
        "test accuracy",
        "seconds",
    ]
    return "\n\n".join(
        [markdown_table(header, rows), machine_line(document["machine"])]
    )


def main(argv=None):
    arguments = parse_arguments(argv)
    document = {"machine": describe_machine()}
    with watch_others(document["machine"]):
        run(arguments, document)
    text = report(document)
    path = write_results(arguments.output, "aircraft", document, text)
    print(f"{text}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
