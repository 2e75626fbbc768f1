"""What other packages need to look into the network of an estimator."""


def inspected(estimator, X):
    """Return what is needed to look into the network of an estimator.

    Parameters
    ----------
    estimator : PretrainedFeatureExtractor, FineTuneClassifier or FineTuneRegressor
        The last two fitted.
    X : images in any form, or None
        None if only the network matters.

    Returns
    -------
    X
        With its form checked.
    neck : networks.Neck
    settings : ExtractionSettings
    """
    return estimator._inspected(X)
