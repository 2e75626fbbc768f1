"""Features as a column of a Hugging Face data set, and a classifier on top.

`FeatureMapper` is a function of batches. datasets remembers what it has mapped, so the
second run of this script computes nothing.

Run: python examples/hf_datasets.py [--out FOLDER]   (needs pip install datasets)
"""

import argparse
import pathlib

from _photographs import make_views
from datasets import ClassLabel, Dataset, Features, Image, load_from_disk
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FeatureMapper, PretrainedFeatureExtractor


def make_dataset(folder):
    """Return views of a few photographs as a data set on the disk, encoded."""
    path = pathlib.Path(folder) / "views"
    if not path.exists():
        images, labels, names = make_views(60)
        columns = {
            "image": [{"bytes": image, "path": None} for image in images],
            "label": labels,
        }
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        Dataset.from_dict(columns, features=features).save_to_disk(path)
    return load_from_disk(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="hf_datasets_output")
    data = make_dataset(parser.parse_args().out)
    # Left encoded: the mapper decodes in threads, and Arrow writes no image anew.
    data = data.cast_column("image", Image(decode=False))
    mapper = FeatureMapper(PretrainedFeatureExtractor(image_size=96, cache=None))
    data = data.map(mapper, batched=True, batch_size=64)
    parts = data.train_test_split(0.5, seed=0, stratify_by_column="label")
    train, test = (parts[name].with_format("numpy") for name in ("train", "test"))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(train["features"][:], train["label"][:])
    accuracy = model.score(test["features"][:], test["label"][:])
    print(f"{len(train)} views to learn from, {len(test)} to test: {accuracy:.3f}")


if __name__ == "__main__":
    main()
