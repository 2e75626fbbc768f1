"""A photograph, a description and a price in one table.

Offers of a shop: what is it made of? Each column goes to its own transformer: the
photograph to a pretrained network, the description to word vectors, the price to a
scaler. A grid search over 12 candidates in 5 folds sends each photograph through the
network once. The cells of the photographs are data URIs, as exports of notebooks and
JSON hold images; paths and bytes do as well. Install: pip install
'skdeepfeat[demo,text]'. Run: python examples/photo_and_text_table.py
"""

import base64
import io

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.text import WordVectorFeatures

# Each offer has one of its kind's words and four that say nothing about it. The
# photograph of gravel and that of grass look alike when they are small.
WORDS = {
    "brick": "wall house chimney mason clay kiln facade builder red oven".split(),
    "grass": "lawn meadow garden green mower sheep seed turf field plant".split(),
    "gravel": "path road stones driveway quarry crushed drainage pebbles rock".split(),
}
OTHER_WORDS = "cheap new order today delivery offer best price free large small".split()


def make_table(n_per_class=24, seed=0):
    """Cut patches out of three photographs and invent the other columns."""
    rng = np.random.default_rng(seed)
    records = []
    for kind, words in WORDS.items():
        photograph = getattr(skimage.data, kind)()
        for _ in range(n_per_class):
            top, left = rng.integers(0, 512 - 20, 2)
            patch = photograph[top : top + 20, left : left + 20]
            chosen = [*rng.choice(words, 1), *rng.choice(OTHER_WORDS, 4)]
            price = rng.normal({"brick": 35, "grass": 10, "gravel": 25}[kind], 12)
            records.append((as_data_uri(patch), " ".join(chosen), price, kind))
    return pd.DataFrame(records, columns=["photo", "description", "price", "kind"])


def as_data_uri(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def main():
    table = make_table()
    photo = make_pipeline(PretrainedFeatureExtractor(image_size=64), StandardScaler())
    text = make_pipeline(WordVectorFeatures(), StandardScaler())
    columns = [
        ("price", StandardScaler(), ["price"]),
        ("description", text, "description"),
        ("photo", photo, "photo"),
    ]
    for n in (1, 2, 3):
        model = make_model(columns[:n])
        scores = cross_val_score(model, table, table["kind"], cv=5)
        names = ", ".join(name for name, *_ in columns[:n])
        print(f"{names:28s} accuracy {scores.mean():.3f}")
    grid = {
        "columns__description__wordvectorfeatures__pooling": ["mean", "max", "tfidf"],
        "clf__C": [0.0001, 0.001, 0.01, 0.1],
    }
    search = GridSearchCV(make_model(columns), grid, cv=5)
    search.fit(table, table["kind"])
    print(f"best of {len(search.cv_results_['params'])}: {search.best_score_:.3f}")
    print(search.best_params_)


def make_model(columns):
    classifier = LogisticRegression(C=0.01, max_iter=2000)
    return Pipeline([("columns", ColumnTransformer(columns)), ("clf", classifier)])


if __name__ == "__main__":
    main()
