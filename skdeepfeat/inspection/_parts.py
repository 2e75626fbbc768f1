"""An estimator taken apart: its network, and what computes scores from features."""

from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._utils._shown import shown
from ..feature_extraction import ExtractionSettings, ImageEstimatorMixin, inspected
from ..fine_tuning import FineTuneClassifier, FineTuneRegressor
from ..networks import Neck
from ._ends import NetworkEnd, StepsEnd


@dataclass
class Parts:
    """The parts of an estimator.

    Attributes
    ----------
    X
        The images, after the steps before the network.
    neck : networks.Neck
    settings : ExtractionSettings
    cache
        The parameter `cache` of the estimator that holds the network.
    end : NetworkEnd, StepsEnd or None
        None for a transformer without further steps.
    """

    X: Any
    neck: Neck
    settings: ExtractionSettings
    cache: Any
    end: NetworkEnd | StepsEnd | None


def take_apart(estimator, X):
    """Return the `Parts` of a fitted estimator, or None if no step has a network.

    Parameters
    ----------
    estimator : estimator
        The best one of a search is used. Pipelines may be inside each other.
    X : images in any form, or None
        None if only the network matters.

    Raises
    ------
    NotFittedError
    """
    if not hasattr(estimator, "fit"):
        raise TypeError(
            "The 'estimator' parameter must be an estimator of scikit-learn or of this "
            "package. A network is one as PretrainedFeatureExtractor(network). Got "
            f"{shown(estimator)} instead."
        )
    check_is_fitted(estimator)
    steps = _steps_of(estimator)
    place = [isinstance(step, ImageEstimatorMixin) for step in steps]
    if True not in place:
        return None
    at = place.index(True)
    if X is not None:
        for step in steps[:at]:
            X = step.transform(X)
    holder, later = steps[at], steps[at + 1 :]
    X, neck, settings = inspected(holder, X)
    end = None
    if later:
        end = StepsEnd(later)
    elif isinstance(holder, (FineTuneClassifier, FineTuneRegressor)):
        end = NetworkEnd(holder)
    return Parts(X, neck, settings, holder.cache, end)


def network_parts(estimator, X=None):
    """Return the `Parts` of an estimator that must have a network.

    Parameters and errors are those of `take_apart`.
    """
    parts = take_apart(estimator, X)
    if parts is None:
        raise ValueError(
            "The 'estimator' parameter must be a PretrainedFeatureExtractor, a "
            "FineTuneClassifier, a FineTuneRegressor or a Pipeline with one of these. "
            f"Got {type(estimator).__name__} instead."
        )
    return parts


def _steps_of(estimator):
    """Return the steps of an estimator in order, without those that do nothing."""
    if hasattr(estimator, "best_estimator_"):
        return _steps_of(estimator.best_estimator_)
    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [
        inner
        for _, step in estimator.steps
        if step is not None and step != "passthrough"
        for inner in _steps_of(step)
    ]
