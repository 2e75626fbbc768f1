"""The parameter `target`: which score a map explains."""

import numpy as np

from .._utils._parameter_errors import choice_error


class Targets:
    """From the parameter `target` to one column of the scores for each image.

    Parameters
    ----------
    target : "predicted", a class, the index of an output, or one for each image
    classes : sequence or None
        None for a regressor.
    n_images : int

    Attributes
    ----------
    columns : ndarray of int, shape (n_images,)
        -1 until `choose` has been called for an image.
    """

    def __init__(self, target, classes, n_images):
        self._classes = None if classes is None else np.asarray(classes).tolist()
        self.columns = np.full(n_images, -1)
        # None for those that are predicted.
        self._wanted = None
        if not isinstance(target, str) and np.ndim(target) == 1:
            self._wanted = np.asarray(target).tolist()
            if len(self._wanted) != n_images:
                wanted = f"one class, or one for each of the {n_images} images of X"
                raise choice_error("target", wanted, target)
        elif not (isinstance(target, str) and target == "predicted"):
            self._wanted = [target] * n_images

    def choose(self, scores, indices):
        """Return the columns of the scores of some images, and keep them.

        Parameters
        ----------
        scores : ndarray of float, shape (len(indices), n_columns)
        indices : ndarray of int
            Which images.

        Raises
        ------
        ValueError
            If the target is not a class, or not an output.
        """
        n_columns = scores.shape[1]
        classes = self._classes
        if classes is None:
            classes = list(range(n_columns))
        elif len(classes) != n_columns:
            raise ValueError(
                "The 'estimator' parameter must have one score for each class. It has "
                f"{len(classes)} classes and {n_columns} scores. One that compares "
                "pairs of classes or has several outputs can be wrapped in "
                "OneVsRestClassifier."
            )
        if self._wanted is not None:
            columns = [self._column(self._wanted[i], classes) for i in indices.tolist()]
        elif self._classes is None and n_columns > 1:
            raise choice_error(
                "target",
                f"the index of an output, from 0 to {n_columns - 1}, because the "
                "estimator predicts several",
                "predicted",
            )
        else:
            columns = scores.argmax(axis=1)
        self.columns[indices] = columns
        return np.asarray(columns)

    def labels(self):
        """Return the class, or the index of the output, of each image.

        Returns
        -------
        list
            None for images that have not been chosen for.
        """
        names = self._classes or range(self.columns.max() + 1)
        return [None if column < 0 else names[column] for column in self.columns]

    def _column(self, label, classes):
        try:
            return classes.index(label)
        except ValueError:
            pass
        names = [name for name in classes if isinstance(name, str)]
        what = "an output's index" if self._classes is None else "a class"
        listed = ", ".join(map(repr, classes[:10])) + (", ..." * (len(classes) > 10))
        wanted = f"'predicted', {what} ({listed}), or one for each image"
        raise choice_error("target", wanted, label, names)
