"""The error about features that a network computed as NaN or infinite values.

NaN does not mark an image that could not be read: failures are returned next to the
features. Features that are not finite are never stored or returned.
"""

import logging

from ..exceptions import NonFiniteOutputError

__all__ = ["GIVE_UP_AFTER", "non_finite_error"]

logger = logging.getLogger(__name__)

# Number of images without a single finite feature row after which the network counts
# as broken. The remaining images are not computed just to be listed in the error.
GIVE_UP_AFTER = 32


def non_finite_error(neck, precision, indices):
    """Return the error about images whose features are NaN or infinite.

    Parameters
    ----------
    neck : networks.Neck
    precision : str
    indices : sequence of int
        Into X, in ascending order.

    Returns
    -------
    NonFiniteOutputError
    """
    return NonFiniteOutputError(_likely_cause(neck, precision), indices)


def _likely_cause(neck, precision):
    try:
        names = neck.non_finite_weights()
    except Exception as error:  # the error to come matters more than its cause
        logger.debug("the weights could not be examined", exc_info=error)
        names = []
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (
            f"The cause is its weights: {names[0]!r}{more} are NaN or infinite. "
            "Check the file that they come from, or the training that produced them."
        )
    if precision == "float16" or neck.has_float16_weights():
        return (
            "The likely cause is that float16 has no values above 65504. Choose "
            "precision='bfloat16' or 'float32', and convert a network of your own "
            "whose weights are float16 with its method float()."
        )
    return (
        "Its weights are finite, so the likely cause is its own arithmetic on these "
        "images, such as a division by zero or the logarithm of a negative value. "
        "Leave these images out, choose another 'layer' or 'model', or correct the "
        "network."
    )
