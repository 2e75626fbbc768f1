"""What other packages need of the network of an estimator."""

from ._pixels import load_readable


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


def neck_of(extractor):
    """Return the `Neck` of an extractor."""
    return inspected(extractor, None)[1]


def decode_for(extractor, X):
    """Return the images of X as the network of an extractor takes them.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3)
        Without the images that cannot be read.
    """
    X, neck, settings = inspected(extractor, X)
    pixels, indices = load_readable(X, neck.preprocessing, settings, warns=False)
    return pixels if len(indices) == len(pixels) else pixels[indices]


def with_network(extractor, network):
    """Return an extractor like another one, with a network of the user's own.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        It is not changed.
    network : Module
        With the same layers.

    Returns
    -------
    PretrainedFeatureExtractor
        Fitted if `extractor` is.
    """
    new = object.__new__(type(extractor))
    vars(new).update(
        vars(extractor),
        model=network,
        weights="default",
        image_size=None,
        preprocessing=neck_of(extractor).preprocessing,
    )
    return new
