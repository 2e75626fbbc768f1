"""What exported files score, weigh and take."""

import numpy as np
import pytest
from sklearn.metrics import log_loss
from torch import nn

from skdeepfeat import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from skdeepfeat.compression import export_report
from skdeepfeat.exceptions import BadImageError, BadImageWarning

SIZE = 32


def network():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (60, 4, 4, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def estimator(kind=FineTuneClassifier, **parameters):
    defaults = {
        "unfreeze": None,
        "device": "cpu",
        "cache": None,
        "random_state": 0,
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
    }
    return kind(network(), **{**defaults, **parameters})


def assert_report_of_float32(fitted, images, y, tmp_path, scoring=None):
    """In float32, the file scores as the estimator, by every scorer."""
    path = tmp_path / "f.onnx"
    fitted.to_onnx(path)
    report = export_report(fitted, path, images, y, scoring=scoring)
    assert report["file"].tolist() == ["-", str(path)]
    assert report["runtime"].tolist() == ["torch", "onnxruntime"]
    assert report["mean_difference"][0] == 0
    assert report["mean_difference"][1] < 1e-4
    assert report["bytes"][1] == path.stat().st_size
    assert (report[["ms_per_image_1", "ms_per_image_32"]] > 0).all(axis=None)
    return report["score"].tolist()


@pytest.mark.slow
def test_a_classifier(images, tmp_path):
    y = np.array(["a", "b", "c"])[images.mean((1, 2)).argmax(1)]
    fitted = estimator().fit(images[:40], y[:40])
    X, y = images[40:], y[40:]
    scores = assert_report_of_float32(fitted, X, y, tmp_path)
    assert scores == [fitted.score(X, y)] * 2
    scores = assert_report_of_float32(fitted, X, y, tmp_path, "neg_log_loss")
    wanted = -log_loss(y, fitted.predict_proba(X))
    np.testing.assert_allclose(scores, wanted, atol=1e-4)


@pytest.mark.slow
def test_files_of_both_runtimes(images, tmp_path):
    pytest.importorskip("openvino")
    y = images.mean((1, 2)).argmax(1)
    fitted = estimator().fit(images, y)
    onnx, xml = str(tmp_path / "f.onnx"), str(tmp_path / "f.xml")
    fitted.to_onnx(onnx, "int8", images)
    fitted.to_openvino(xml, "float16")
    report = export_report(fitted, [onnx, xml], images, y)
    assert report["runtime"].tolist() == ["torch", "onnxruntime", "openvino"]
    assert (report["same_labels"] > 0.9).all()
    assert report["same_labels"][0] == 1
    assert report["bytes"][2] > (tmp_path / "f.bin").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["binary", "multilabel", "hinge", "hinge 3", "regressor"]
)
def test_other_results(kind, images, tmp_path):
    means = images.mean((1, 2))
    y = {
        "binary": means[:, 0] > means[:, 1],
        "multilabel": (means > 128).astype(int),
        "hinge": means[:, 0] > means[:, 1],
        "hinge 3": means.argmax(1),
        "regressor": means[:, :2] + 1000,
    }[kind]
    if kind == "regressor":
        fitted = estimator(FineTuneRegressor)
    else:
        fitted = estimator(loss="hinge" if "hinge" in kind else "cross_entropy")
    fitted.fit(images, y)
    scores = assert_report_of_float32(fitted, images, y, tmp_path)
    np.testing.assert_allclose(scores, fitted.score(images, y), atol=1e-6)


def test_bad_input(images, tmp_path):
    y = np.arange(60) % 3
    fitted = estimator().fit(images, y)
    path = tmp_path / "f.onnx"
    fitted.to_onnx(path)
    with pytest.raises(TypeError, match="'estimator'.*PretrainedFeatureExtractor"):
        export_report(PretrainedFeatureExtractor(), path, images, y)
    for wrong in (None, [3]):
        with pytest.raises(TypeError, match="'paths'"):
            export_report(fitted, wrong, images, y)
    with pytest.raises(ValueError, match=r"'paths'.*Got f\.bin"):
        export_report(fitted, "f.bin", images, y)
    with pytest.raises(ValueError, match=r"'paths'.*no file g\.onnx"):
        export_report(fitted, "g.onnx", images, y)
    other = estimator().fit(images, y % 2)
    with pytest.raises(ValueError, match=r"'paths'.*shape \(60, 3\)"):
        export_report(other, path, images, y % 2)
    larger = estimator(preprocessing={"resize": 40, "crop": (40, 40)}).fit(images, y)
    with pytest.raises(ValueError, match="'paths'.*cannot be run"):
        export_report(larger, path, images, y)
    with pytest.raises(ValueError, match="'scoring'.*one number"):
        export_report(fitted, path, images, y, scoring=["accuracy"])
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"'paths'.*bad\.onnx"):
        export_report(fitted, tmp_path / "bad.onnx", images, y)


@pytest.mark.slow
def test_images_that_cannot_be_read(images, tmp_path):
    y = np.arange(60) % 3
    fitted = estimator().fit(images, y)
    fitted.to_onnx(tmp_path / "f.onnx")
    X = [*images[:20], "missing.jpg"]
    with pytest.raises(BadImageError, match=r"missing\.jpg"):
        export_report(fitted, tmp_path / "f.onnx", X, y[:21])
    fitted.set_params(on_error="nan")
    report = export_report(fitted, tmp_path / "f.onnx", X, y[:21])
    with pytest.warns(BadImageWarning):
        probabilities = fitted.predict_proba(X)[:20]
    wanted = (probabilities.argmax(1) == y[:20]).mean()
    assert report["score"].tolist() == [wanted, wanted]
    with pytest.raises(ValueError, match="no image of X"):
        export_report(fitted, tmp_path / "f.onnx", X[20:], y[:1])
