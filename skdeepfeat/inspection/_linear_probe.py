"""linear_probe: how well a linear model does on each layer of a network."""

import numbers
import time

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import cross_validate
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.multiclass import type_of_target

from .._utils._folds import check_number_of_folds, split_into_folds, standard_error
from .._utils._linear_model import linear_model
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._shown import shown
from .._utils._tensors import without_tensors
from ..feature_extraction import extract_layers
from ._extractor_parameter import split_extractor
from ._labels import check_targets


@public_function
@validate_params(
    layers=[StrOptions({"stages"}), list, tuple],
    estimator=[HasMethods(["fit", "predict"]), None],
    cv=["cv_object"],
    scoring=[StrOptions(set(get_scorer_names())), callable, None],
    n_jobs=[numbers.Integral, None],
)
def linear_probe(
    extractor,
    X,
    y,
    layers="stages",
    estimator=None,
    cv=5,
    *,
    groups=None,
    scoring=None,
    n_jobs=None,
):
    """Score a linear model on each layer of a network, by cross-validation.

    The scores show how general each stage of the network is: how much of `y` can be
    read linearly from its features [1]_. If an earlier layer than the last scores best,
    the images differ from those that the network was trained with.

    All layers are computed in one pass over the images, with or without a cache, and
    all are scored on the same folds.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor or Pipeline
        The network and how it is run. The `layer` of the extractor is ignored, but its
        `pooling` is used. In a Pipeline that begins with an extractor, the other steps
        are the `estimator`.
    X : array-like of images, shape (n_samples,)
        As for the `transform` of the extractor.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Targets.
    layers : "stages" or list of str and int, default="stages"
        The layers, as for the parameter `layer` of an extractor. ``"stages"`` means all
        stages and the neck.
    estimator : estimator or None, default=None
        The model on the features. None standardizes them and fits

        * for class labels, a `LogisticRegression` with ``C = 10 / n_features``, so that
          narrow and wide layers are regularized equally;
        * for targets of real numbers, a `RidgeCV` over the powers of 10 from 0.1 to
          100,000.

        Integers are class labels. For a regression on integers, pass an estimator.
    cv : int, cross-validation generator or iterable, default=5
        As in `sklearn.model_selection.cross_validate`. An integer means stratified
        folds for a classifier.
    groups : array-like, shape (n_samples,), or None, default=None
        The groups for `cv`, such as the patient of each image.
    scoring : str, callable or None, default=None
        A scorer of scikit-learn. None uses the estimator's `score`: the accuracy or the
        R^2.
    n_jobs : int or None, default=None
        The number of processes that fit the folds of a layer.

    Returns
    -------
    pandas.DataFrame
        One row for each layer, in the order of `layers`, with the columns

        - ``layer``: the name of the layer;
        - ``depth``: the share of the network's floating-point operations, from 0 to 1,
          that is needed to compute it;
        - ``n_features``: the number of features;
        - ``score``: the mean score of the folds;
        - ``standard_error``: the standard deviation of the folds' scores over the
          square root of their number. It is too small by tens of percent, because folds
          share training images [2]_. NaN for a single fold;
        - ``fit_seconds``: the time of all fits, in seconds;
        - ``split0_score``, ``split1_score``, ...: the score of each fold.

        Its `attrs` have ``extract_seconds``, the time of the pass over the images, and
        ``scoring``, the name of the score.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong, if there are fewer images than folds, or if there is
        only one class. No image has been read by then, except for an error about
        `layers`.
    BadImageError
        If an image cannot be read and the extractor has ``on_error="raise"``. With
        ``"nan"``, such images are left out of their folds.

    See Also
    --------
    skdeepfeat.plotting.LayerProbeDisplay : Plot the scores over the depth.

    References
    ----------
    .. [1] Alain and Bengio, "Understanding intermediate layers using linear classifier
       probes", ICLR workshop 2017.
    .. [2] Bengio and Grandvalet, "No unbiased estimator of the variance of k-fold
       cross-validation", JMLR 2004.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import linear_probe
    >>> digits = load_digits()
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> probe = linear_probe(
    ...     extractor, digits.images[:100] / 16, digits.target[:100], cv=3
    ... )
    >>> probe["layer"].tolist()
    ['blocks.0', 'blocks.1', 'blocks.2', 'blocks.4', 'blocks.6', 'neck']
    """
    extractor, rest = split_extractor(extractor, "linear_probe")
    if rest is not None and estimator is not None:
        raise ValueError(
            "The 'estimator' parameter of linear_probe must be None if the 'extractor' "
            "is a Pipeline that continues with an estimator. Pass the extractor alone."
        )
    estimator = rest if estimator is None else estimator
    y = check_targets(y, "y", "linear_probe")
    check_consistent_length(X, y)
    classifies = _is_classification(estimator, y)
    groups = without_tensors(groups, "groups")
    splits = _make_splits(cv, y, groups, classifies)

    start = time.perf_counter()
    found = extract_layers(extractor, X, layers)
    extract_seconds = time.perf_counter() - start
    splits = [
        (train[~found.failed[train]], test[~found.failed[test]])
        for train, test in splits
    ]
    if not all(len(train) and len(test) for train, test in splits):
        raise ValueError(
            "Too few images could be read: a fold is empty. "
            f"{found.failed.sum()} of {len(y)} images could not be read."
        )
    settings = {"cv": splits, "scoring": scoring, "n_jobs": n_jobs}
    records = []
    for name, depth, features in zip(
        found.names, found.depths, found.features, strict=True
    ):
        n_features = features.shape[1]
        default = linear_model(classifies, n_features)
        model = default if estimator is None else estimator
        folds = cross_validate(model, features, y, error_score="raise", **settings)
        scores = folds["test_score"]
        records.append(
            {
                "layer": name,
                "depth": depth,
                "n_features": n_features,
                "score": scores.mean(),
                "standard_error": standard_error(scores),
                "fit_seconds": folds["fit_time"].sum(),
                **{f"split{i}_score": score for i, score in enumerate(scores)},
            }
        )
    probe = pd.DataFrame(records)
    probe.attrs["extract_seconds"] = extract_seconds
    probe.attrs["scoring"] = score_name(scoring, classifies)
    return probe


def _is_classification(estimator, y):
    """Return whether the scores are those of a classifier; check y for it."""
    kind = type_of_target(y, input_name="y")
    if estimator is not None:
        classifies = is_classifier(estimator)
    elif kind in ("binary", "multiclass"):
        classifies = True
    elif kind in ("continuous", "continuous-multioutput"):
        classifies = False
    else:
        raise ValueError(
            "The 'estimator' parameter of linear_probe must be an estimator for "
            f"targets of the type {kind!r}. Got None instead."
        )
    if classifies and y.ndim == 1 and len(classes := np.unique(y)) < 2:
        raise ValueError(
            "The 'y' parameter of linear_probe must have at least two classes. Got "
            f"only {classes.tolist()[0]!r}."
        )
    return classifies


def _make_splits(cv, y, groups, classifies):
    """Return the folds, the same for all layers, before any image is read."""
    if isinstance(cv, numbers.Integral):
        check_number_of_folds("linear_probe", cv, y, classifies)
    splits = split_into_folds("linear_probe", cv, y, groups, classifies)
    if classifies and y.ndim == 1:
        n_classes = min(len(np.unique(y[train])) for train, _ in splits)
        if n_classes < 2:
            raise ValueError(
                "The 'cv' parameter of linear_probe must leave at least two classes "
                "in each training set. Use another splitter or more images of each "
                f"class. Got {shown(cv)}."
            )
    return splits


def score_name(scoring, classifies):
    """Return the name of the score in words, for a parameter `scoring`."""
    if scoring is None:
        return "accuracy" if classifies else "R²"
    if isinstance(scoring, str):
        return scoring.replace("_", " ")
    name = getattr(scoring, "__name__", "score")
    return name if name.isidentifier() else "score"  # not <lambda>
