"""Images, texts and numbers in one table, as pandas, polars and skrub hold it."""

import base64
import io

import numpy as np
import pandas as pd
import polars as pl
import pytest
from item_networks import TextNet, with_mask
from networks import CountingNet, rows_counted
from numpy.testing import assert_allclose
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor, TorchFeatureExtractor
from skdeepfeat.text import WordVectorFeatures

N = 20
VECTORS = {"red": [1.0, 0.0], "green": [0.0, 1.0]}
CELLS = {
    "path": lambda data, path: path,
    "bytes": lambda data, path: data,
    "base64": lambda data, path: base64.b64encode(data).decode(),
    "data URI": lambda data, path: (
        f"data:image/png;base64,{base64.b64encode(data).decode()}"
    ),
}


@pytest.fixture
def make_table(tmp_path):
    """Return a function that makes a table of photographs, texts and numbers."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 24, 24, 3), dtype=np.uint8)
    images[: N // 2, :, :, 0] = 255

    def make(library, cells="path"):
        photos = []
        for i, image in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            path = tmp_path / f"{i:02d}.png"
            path.write_bytes(buffer.getvalue())
            photos.append(CELLS[cells](buffer.getvalue(), str(path)))
        words = ["red"] * (N // 2) + ["green"] * (N // 2)
        texts = [" ".join([word] * (i + 1)) for i, word in enumerate(words)]
        table = {"photo": photos, "text": texts, "price": rng.normal(size=N)}
        return library.DataFrame(table)

    return make


def labels():
    return np.arange(N) < N // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cells", "library"),
    [("path", pd), ("bytes", pl), ("base64", pl), ("data URI", pd)],
    ids=["path, pandas", "bytes, polars", "base64, polars", "data URI, pandas"],
)
def test_each_cell_goes_through_its_network_once(make_table, tmp_path, library, cells):
    images, texts = tmp_path / "images.log", tmp_path / "texts.log"
    columns = ColumnTransformer(
        [
            (
                "photo",
                PretrainedFeatureExtractor(CountingNet(images), image_size=24),
                "photo",
            ),
            ("text", TorchFeatureExtractor(TextNet(texts), with_mask), ["text"]),
            ("words", WordVectorFeatures(VECTORS), "text"),
            ("price", StandardScaler(), ["price"]),
        ]
    )
    search = GridSearchCV(
        make_pipeline(columns, LogisticRegression()),
        {"logisticregression__C": [0.1, 1, 10], "columntransformer__words__pooling":
         ["mean", "max"]},
        cv=3,
        error_score="raise",
    )  # fmt: skip
    search.fit(make_table(library, cells), labels())
    assert search.best_score_ > 0.9
    assert rows_counted(images) == N
    assert rows_counted(texts) == N + 2  # two run again, to see what the module is


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_frames_come_out(make_table, library):
    columns = ColumnTransformer(
        [
            ("text", TorchFeatureExtractor(TextNet(), with_mask), ["text"]),
            ("price", "passthrough", ["price"]),
        ],
        verbose_feature_names_out=False,
    ).set_output(transform=library.__name__)
    found = columns.fit_transform(make_table(library))
    assert isinstance(found, library.DataFrame)
    assert list(found.columns)[-2:] == ["textnet_neck_011", "price"]


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize("cells", ["path", "data URI"])
def test_skrub(make_table, tmp_path, library, cells):
    skrub = pytest.importorskip("skrub")
    table = make_table(library, cells)
    photo = PretrainedFeatureExtractor(
        CountingNet(tmp_path / "log"), image_size=24, cache=None
    )
    text = TorchFeatureExtractor(TextNet(), with_mask, cache=None)
    words = WordVectorFeatures(VECTORS)
    for transformer, column in ((photo, "photo"), (text, "text"), (words, "text")):
        applied = skrub.ApplyToCols(transformer, cols=column).fit_transform(table)
        wanted = np.asarray(transformer.fit_transform(table[column]))
        assert isinstance(applied, library.DataFrame)
        new = [name for name in applied.columns if name not in table.columns]
        assert_allclose(np.asarray(applied[new]), wanted, atol=1e-6)
    both = skrub.ApplyToCols(words, cols=["text", "title"]).fit_transform(
        library.DataFrame({"text": ["red", "green"], "title": ["green", "red"]})
    )
    assert_allclose(np.asarray(both), [[1, 0, 0, 1], [0, 1, 1, 0]])
    vectorizer = skrub.TableVectorizer(
        cardinality_threshold=N // 2,
        high_cardinality=text,
        specific_transformers=[(photo, ["photo"])],
    )
    found = vectorizer.fit_transform(table)
    assert found.shape == (N, 8 + 12 + 1)
    assert_allclose(found["textnet_neck_003"], text.transform(table["text"])[:, 3])
    model = make_pipeline(vectorizer, LogisticRegression())
    assert model.fit(table, labels()).score(table, labels()) == 1
