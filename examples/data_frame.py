"""Images as one column of a data frame, beside ordinary columns.

A table of goods: a photograph of the surface (a path), a weight and a supplier. A
ColumnTransformer sends each column to what it needs; the photograph goes through two
layers of the network at once. Run: python examples/data_frame.py
"""

import pathlib
import tempfile

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdeepfeat import PretrainedFeatureExtractor


def make_table(folder, n_per_class=30, seed=0):
    """Cut patches out of three photographs and invent the other columns."""
    rng = np.random.default_rng(seed)
    records = []
    for kind in ("brick", "grass", "gravel"):
        photograph = getattr(skimage.data, kind)()
        for i in range(n_per_class):
            top, left = rng.integers(0, 512 - 64, 2)
            path = folder / f"{kind}_{i:02d}.png"
            Image.fromarray(photograph[top : top + 64, left : left + 64]).save(path)
            weight = rng.normal({"brick": 3.5, "grass": 1.0, "gravel": 2.5}[kind], 1.0)
            supplier = rng.choice(["north", "south", "west"])
            records.append((str(path), weight, supplier, kind))
    return pd.DataFrame(records, columns=["photo", "weight", "supplier", "kind"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        table = make_table(pathlib.Path(folder))
        tabular = [
            ("weight", StandardScaler(), ["weight"]),
            ("supplier", OneHotEncoder(sparse_output=False), ["supplier"]),
        ]
        photo = Pipeline(
            [
                ("feat", PretrainedFeatureExtractor(layer=["blocks.4", "neck"])),
                ("scale", StandardScaler()),
            ]
        )
        for name, columns in {
            "weight and supplier": tabular,
            "with the photograph": [*tabular, ("photo", photo, "photo")],
        }.items():
            model = Pipeline(
                [
                    ("columns", ColumnTransformer(columns)),
                    ("clf", LogisticRegression(max_iter=2000)),
                ]
            )
            scores = cross_val_score(model, table, table["kind"], cv=5)
            print(f"{name:20s} accuracy {scores.mean():.3f}")
        features = ColumnTransformer([("photo", photo, "photo")])
        features.set_output(transform="pandas")
        print(features.fit_transform(table.head(3)).iloc[:, [0, 1, -1]].round(2))


if __name__ == "__main__":
    main()
