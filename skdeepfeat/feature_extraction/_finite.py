"""Handling of rows that a network computed as NaN or infinite values.

Such a row does not mark an image that could not be read: failures are returned next to
the rows. It is never stored or returned, and always an error.
"""

import logging

import numpy as np

from ..exceptions import NonFiniteOutputError

__all__ = ["FiniteRows", "non_finite_error"]

logger = logging.getLogger(__name__)

# A network that has computed this many images and no finite row is broken. The others
# are not computed for the error to list them.
_GIVE_UP_AFTER = 32


class FiniteRows:
    """Sorts out what a network computes: rows that are finite, and the others.

    Parameters
    ----------
    n_wanted : int
        How many of the network's outputs are returned. The others are computed for the
        cache only, and are no reason for an error.

    Attributes
    ----------
    refused : list of int
        The rows so far with values that are not finite.
    """

    def __init__(self, n_wanted):
        self.refused = []
        self._n_wanted = n_wanted
        self._n_seen = 0

    def keep(self, rows, outputs):
        """Return the rows and outputs of a batch without those that are not finite.

        Parameters
        ----------
        rows : ndarray of int
        outputs : list of ndarray of float32, shape (len(rows), n_features)

        Returns
        -------
        rows, outputs
        """
        self._n_seen += len(rows)
        finite = np.ones(len(rows), dtype=bool)
        if len(rows):
            for block in outputs[: self._n_wanted]:
                finite &= np.isfinite(block).all(axis=1)
        if finite.all():
            return rows, outputs
        self.refused += rows[~finite].tolist()
        return rows[finite], [block[finite] for block in outputs]

    @property
    def is_hopeless(self):
        """Whether it is not worth computing the other images."""
        return len(self.refused) == self._n_seen >= _GIVE_UP_AFTER


def non_finite_error(neck, precision, rows):
    """Return the error about rows that a network computed as NaN or infinite values.

    Parameters
    ----------
    neck : networks.Neck
    precision : str
    rows : sequence of int
        Of X, in ascending order.

    Returns
    -------
    NonFiniteOutputError
    """
    return NonFiniteOutputError(_likely_cause(neck, precision), rows)


def _likely_cause(neck, precision):
    try:
        unsound = neck.non_finite_weights()
    except Exception as error:  # the error to come matters more than its cause
        logger.debug("the weights could not be examined", exc_info=error)
        unsound = []
    if unsound:
        more = f" and {len(unsound) - 1} more" if len(unsound) > 1 else ""
        return (
            f"The cause is its weights: {unsound[0]!r}{more} are NaN or infinite. "
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
