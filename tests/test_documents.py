"""The code in README.md and the documents runs as it stands there.

Only what needs a connection or minutes is replaced. The code of docs/scaling.md, which
needs clusters, is tested in tests/feature_extraction/test_clusters.py and by the
examples.
"""

import pathlib
import re

import fsspec
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "docs/any_module.md",
    "docs/cache.md",
    "docs/compression.md",
    "docs/fine_tuning.md",
    "docs/guide.md",
    "docs/inspection.md",
    "docs/neighbors.md",
    "docs/text.md",
    "docs/which_network.md",
    "docs/without_labels.md",
]
REPLACED = {
    "max_score_drop=": 'fine_tune_epochs=0, runtimes=["torch"], max_score_drop=',
    "steps=2, fine": 'runtimes=["torch"], steps=2, fine',
    "max_relative_error=0.2, ": 'max_relative_error=0.2, runtimes=["torch"], ',
    "TransferAdvisor(": 'TransferAdvisor(["efficientnet_lite0"], cv=2, extractor='
    "PretrainedFeatureExtractor(image_size=32), ",
    'FineTuneClassifier("resnet50")': "FineTuneClassifier(image_size=32, max_epochs=1)",
    'Extractor("resnet50"': 'Extractor("efficientnet_lite0"',
    '"layer3", "layer4"': '"blocks.4", "blocks.6"',
    "s3://": "memory://",
    '{"anon": True}': "{}",
}
# What the text around the code, or what is usual, has imported and loaded.
BEFORE = """
import warnings
import matplotlib; matplotlib.use("agg")
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skdeepfeat import PretrainedFeatureExtractor, load_image_folder
paths, labels = load_image_folder("photos", return_X_y=True)
paths_test, labels_test = X, y = paths, labels
"""


def code_of(document):
    """Return the Python code blocks of a document, with the line of each."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        code = block[1]
        for old, new in REPLACED.items():
            code = code.replace(old, new)
        yield text[: block.start()].count("\n") + 2, code


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Make the folders that the documents speak of, and work among them."""
    monkeypatch.chdir(tmp_path)
    # Workers of an earlier test are in another folder.
    get_reusable_executor().shutdown(wait=True)
    rng = np.random.default_rng(0)
    memory = fsspec.filesystem("memory")
    for label, light in [("cat", 60), ("dog", 160)]:
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(light, light + 90, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    Image.fromarray(pixels).save(tmp_path / "unknown.jpg")
    memory.put(str(tmp_path / "photos") + "/", "/bucket/train/", recursive=True)
    yield
    get_reusable_executor().shutdown(wait=True)
    memory.rm("/bucket", recursive=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # some train and compress several networks
@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.filterwarnings("default")
def test_the_code_runs(document, photos):
    namespace = {}
    blocks = list(code_of(document))
    assert blocks
    for line, code in blocks:
        exec(BEFORE, namespace)  # X may be another block's
        exec(compile("\n" * (line - 1) + code, document, "exec"), namespace)
