"""The parameter `extractor` of functions that look at the layers of a network."""

from sklearn.pipeline import Pipeline

from .._utils._shown import shown
from ..feature_extraction import PretrainedFeatureExtractor


def split_extractor(extractor, function, parameter="extractor"):
    """Return the extractor, and the steps of its pipeline that follow it.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor, or Pipeline that begins with one
    function : str
        The function that has this parameter, for the error.
    parameter : str, default="extractor"
        The name of the parameter, for the error.

    Returns
    -------
    extractor : PretrainedFeatureExtractor
    rest : Pipeline or None
        None if nothing follows.

    Raises
    ------
    TypeError
        If it is something else.
    """
    first, rest = extractor, None
    if isinstance(extractor, Pipeline) and extractor.steps:
        first = extractor.steps[0][1]
        if len(extractor.steps) > 1:
            rest = Pipeline(extractor.steps[1:])
    if not isinstance(first, PretrainedFeatureExtractor):
        raise TypeError(
            f"The {parameter!r} parameter of {function} must be a "
            "PretrainedFeatureExtractor, or a Pipeline that begins with one. For a "
            "fine-tuned network, use PretrainedFeatureExtractor(estimator.body_). Got "
            f"{shown(extractor)} instead."
        )
    return first, rest
