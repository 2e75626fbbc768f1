"""`export_report`: what exported files score, weigh and take."""

import os
import pathlib

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring

from .._utils._optional import import_optional
from .._utils._parameter_errors import choice_error, first_line
from .._utils._public_function import public_function
from .._utils._shown import shown_path
from ..fine_tuning import FittedEstimator
from ..networks import import_openvino
from ._subjects import as_score
from ._timing import BATCH_SIZES, best_times

# Images per batch of a runtime.
_BATCH = 32


@public_function
def export_report(estimator, paths, X, y, *, scoring=None):
    """Compare exported files with the estimator that they come from.

    This shows the score before and after quantization, the sizes, and the times in the
    runtimes of the files.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.

    paths : path-like or list of path-like
        Files of its `to_onnx` (``".onnx"``) and `to_openvino` (``".xml"``).

    X : array-like of images
        Images that were not used for training or calibration.

    y : array-like
        As for `fit` of the estimator. With ``on_error="nan"``, images that cannot be
        read are left out.

    scoring : str, callable or None, default=None
        A scorer of scikit-learn. None uses the `score` of the estimator.

    Returns
    -------
    report : DataFrame
        One row for the estimator itself (file is ``"-"``, runtime ``"torch"``), in
        float32, and one for each file. Columns:

        * file, runtime, score;
        * same_labels: the share of images with the same label as from the estimator,
          for classifiers with one label per image;
        * mean_difference: the mean absolute difference from the results of the
          estimator;
        * bytes: the size on disk (for OpenVINO, of both files), and for the estimator,
          the size of its weights;
        * ms_per_image_1, ms_per_image_32: milliseconds per image at these batch sizes,
          from decoded pixels to results, measured in turn after a warm-up, with the
          runtime's own number of threads. The smallest time counts.

    Raises
    ------
    ImportError
        If the runtime of a file is not installed (extra ``[int8]`` or
        ``[openvino]``).
    TypeError
        If `estimator` is not a fine-tuning estimator.
    ValueError
        If a file is missing, has another extension, or comes from a network with
        another input or output.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.compression import export_report
    >>> digits = load_digits()
    >>> X, y = digits.images[:60] / 16, digits.target[:60] > 4
    >>> clf = FineTuneClassifier(image_size=32, unfreeze=None, random_state=0)
    >>> clf.fit(X[:40], y[:40]).to_onnx("digits.onnx", "int8", X[:40])
    >>> export_report(clf, "digits.onnx", X[40:], y[40:])["file"].tolist()
    ['-', 'digits.onnx']
    """
    fitted = FittedEstimator(estimator, "export_report")
    if isinstance(paths, str) or hasattr(paths, "__fspath__"):
        paths = [paths]
    try:
        paths = [pathlib.Path(path) for path in paths]
    except TypeError:
        raise choice_error(
            "paths", "a path or a list of paths", paths, error=TypeError
        ) from None
    network, output_name, _ = fitted.pixels_to_result()

    @torch.inference_mode()
    def in_torch(pixels):
        return network(torch.from_numpy(pixels)).numpy()

    runs = [in_torch, *(_run_of(path, output_name) for path in paths)]
    y = fitted.checked_targets(X, y)
    pixels, indices = fitted.decode(X)
    if len(indices) == 0:
        raise ValueError("There is nothing to score: no image of X can be read.")
    y = y[indices]
    names = ["-", *map(str, paths)]
    results = [
        _results(run, pixels, name) for run, name in zip(runs, names, strict=True)
    ]
    for name, found in zip(names[1:], results[1:], strict=True):
        if found.shape != results[0].shape:
            raise ValueError(
                "The 'paths' parameter of export_report must name files of this "
                f"estimator. The results of {name} have shape {found.shape} instead of "
                f"{results[0].shape}."
            )
    scorer = check_scoring(estimator, scoring)
    known = [fitted.with_results(one) for one in results]
    positions = np.arange(len(y))
    report = pd.DataFrame(
        {
            "file": names,
            "runtime": ["torch", *(_RUNTIMES[path.suffix][0] for path in paths)],
            "score": [as_score(scorer(one, positions, y)) for one in known],
        }
    )
    if is_classifier(estimator) and not estimator.multilabel_:
        labels = [one.predict(positions) for one in known]
        report["same_labels"] = [float((one == labels[0]).mean()) for one in labels]
    report["mean_difference"] = [
        float(np.abs(one - results[0]).mean()) for one in results
    ]
    weights = [*network.parameters(), *network.buffers()]
    n_bytes = sum(one.numel() * one.element_size() for one in weights)
    report["bytes"] = [n_bytes, *map(_bytes_of, paths)]
    for n_images in BATCH_SIZES:
        batch = np.resize(pixels, (n_images, *pixels.shape[1:]))
        report[f"ms_per_image_{n_images}"] = best_times(runs, batch)
    return report


def _results(run, pixels, name):
    parts = [pixels[k : k + _BATCH] for k in range(0, len(pixels), _BATCH)]
    try:
        return np.concatenate([run(np.ascontiguousarray(part)) for part in parts])
    except Exception as error:  # each runtime has its own
        raise ValueError(
            "The 'paths' parameter of export_report must name files of this estimator. "
            f"{name} cannot be run on its images: {first_line(error)}"
        ) from error


def _run_of(path, output_name):
    if path.suffix not in _RUNTIMES:
        raise ValueError(
            "The 'paths' parameter of export_report must name files that end in "
            f"{' or '.join(map(repr, _RUNTIMES))}. Got {shown_path(path)}."
        )
    if not path.is_file():
        raise ValueError(
            "The 'paths' parameter of export_report must name existing files. There is "
            f"no file {shown_path(path)}."
        )
    _, open_file = _RUNTIMES[path.suffix]
    try:
        return open_file(path, output_name)
    except ImportError:
        raise
    except Exception as error:  # each runtime has its own
        raise ValueError(
            "The 'paths' parameter of export_report must name files of this estimator. "
            f"{shown_path(path)} cannot be read: {first_line(error)}"
        ) from error


def _onnx_run(path, output_name):
    onnxruntime = import_optional(
        "onnxruntime", extra="int8", purpose="export_report of an ONNX file"
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run([output_name], {"images": pixels})[0]


def _openvino_run(path, output_name):
    openvino = import_openvino(purpose="export_report of an OpenVINO file")
    settings = {"PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda pixels: compiled({"images": pixels})[output_name]


_RUNTIMES = {
    ".onnx": ("onnxruntime", _onnx_run),
    ".xml": ("openvino", _openvino_run),
}


def _bytes_of(path):
    n_bytes = os.path.getsize(path)
    if path.suffix == ".xml":
        n_bytes += os.path.getsize(path.with_suffix(".bin"))
    return n_bytes
