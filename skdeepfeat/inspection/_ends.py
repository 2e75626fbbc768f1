"""What comes after the network: from features to the scores of classes or outputs."""

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier, is_regressor

from ..fine_tuning import score_modules

# Number of features at which a head is evaluated: the one where it is linearized, and
# others, to check whether it is linear there as well.
_N_TRIED = 16
_TOLERANCE = 1e-4
# Rows at once, so that 100,000 flattened features need 0.4 GB and not 80.
_N_ROWS = 512


class NotLinearError(ValueError):
    """The scores are not a linear function of the features."""


class StepsEnd:
    """The steps of a pipeline after the extractor.

    Parameters
    ----------
    steps : list of estimator
        Fitted; the last one is a classifier or regressor.

    Attributes
    ----------
    classes : ndarray or None
        None for a regressor.
    """

    def __init__(self, steps):
        self._steps = steps
        self._final = steps[-1]
        self.classes = getattr(self._final, "classes_", None)
        self.name = type(self._final).__name__

    def results(self, rows):
        """Return probabilities if there are any; see `results_of`.

        Parameters
        ----------
        rows : ndarray of float, shape (n_images, n_features)

        Returns
        -------
        ndarray of float64, shape (n_images, n_classes or n_outputs)
        """
        return results_of(self._final, self._transformed(rows))

    def scores(self, rows):
        """Return the scores of the classes, or the outputs of a regressor.

        Parameters and return value are those of `results`.

        Raises
        ------
        NotLinearError
            If there is no `decision_function`, which every linear classifier has.
        """
        if is_regressor(self._final):
            scores = self._final.predict(self._transformed(rows))
        elif hasattr(self._final, "decision_function") and is_classifier(self._final):
            scores = self._final.decision_function(self._transformed(rows))
        else:
            raise NotLinearError
        return _two_dimensional(scores, self.classes)

    def gradient(self, rows, columns):
        """Return the derivative of one score for each image by its features.

        Parameters
        ----------
        rows : ndarray of float, shape (n_images, n_features)
        columns : ndarray of int, shape (n_images,)

        Returns
        -------
        ndarray of float64, shape (n_images, n_features)

        Raises
        ------
        NotLinearError
        """
        return linear_form(self, rows)[0][columns]

    def _transformed(self, rows):
        names = getattr(self._steps[0], "feature_names_in_", None)
        if names is not None:  # the extractor returns a frame
            rows = pd.DataFrame(rows, columns=names)
        for step in self._steps[:-1]:
            rows = step.transform(rows)
        return rows


class NetworkEnd:
    """The head of a fine-tuned network. Its methods are those of `StepsEnd`.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.
    """

    def __init__(self, estimator):
        self._scores, self._results = score_modules(estimator)
        self.classes = getattr(estimator, "classes_", None)
        self.name = f"{type(estimator).__name__} with hidden layers"

    def results(self, rows):
        """Return probabilities if there are any."""
        return self._computed(self._results, rows)

    def scores(self, rows):
        """Return the scores of the classes, or the outputs of a regressor."""
        return self._computed(self._scores, rows)

    def gradient(self, rows, columns):
        """Return the derivative of one score for each image by its features."""
        rows = torch.as_tensor(rows, dtype=torch.float64).requires_grad_()
        with torch.enable_grad():
            scores = _two_dimensional(self._scores(rows), self.classes)
            chosen = scores[torch.arange(len(rows)), torch.as_tensor(columns)]
            [gradient] = torch.autograd.grad(chosen.sum(), rows)
        return gradient.numpy()

    def _computed(self, module, rows):
        with torch.no_grad():
            found = module(torch.as_tensor(rows, dtype=torch.float64))
        return _two_dimensional(found, self.classes).numpy()


def linear_form(end, rows):
    """Return the coefficients and intercepts of an end that is linear.

    They are measured, so that scalers, PCA and any linear model are covered: its scores
    change by a coefficient if a feature changes by 1.

    Parameters
    ----------
    end : StepsEnd or NetworkEnd
    rows : ndarray of float, shape (n_images, n_features)
        Typical features.

    Returns
    -------
    coefficients : ndarray of float64, shape (n_classes or n_outputs, n_features)
    intercepts : ndarray of float64, shape (n_classes or n_outputs,)

    Raises
    ------
    NotLinearError
        If the scores of other features are not what these predict.
    """
    rows = np.asarray(rows, np.float64)
    middle = rows.mean(axis=0)
    steps = 0.1 * (np.abs(middle) + np.abs(middle).mean())
    steps[steps == 0] = 1.0
    at_middle = end.scores(middle[None])
    coefficients = np.empty((at_middle.shape[1], len(middle)))
    for start in range(0, len(middle), _N_ROWS):
        part = np.arange(start, min(start + _N_ROWS, len(middle)))
        moved = np.repeat(middle[None], len(part), axis=0)
        moved[np.arange(len(part)), part] += steps[part]
        change = end.scores(moved) - at_middle
        coefficients[:, part] = (change / steps[part, None]).T
    intercepts = at_middle[0] - coefficients @ middle
    rng = np.random.default_rng(0)
    # Not below 0 if features are not: there, steps such as a square root are undefined.
    scales, shifts = rng.random((2, _N_TRIED, len(middle)))
    others = 3 * scales * middle + 10 * shifts * steps
    tried = np.concatenate([others, rows[:_N_TRIED]])
    expected, found = tried @ coefficients.T + intercepts, end.scores(tried)
    size = np.abs(found - at_middle).max() + np.abs(found).max()
    if not np.abs(found - expected).max() <= _TOLERANCE * max(size, 1e-12):
        raise NotLinearError
    return coefficients, intercepts


def results_of(estimator, X):
    """Return what an estimator says of each image, in its most graded form.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted.
    X : what it takes

    Returns
    -------
    ndarray of float64, shape (n_images, n_classes or n_outputs)
        Probabilities; or else scores; or else 1 for the predicted class. Of a
        regressor, its outputs.
    """
    classes = getattr(estimator, "classes_", None)
    for name in ("predict_proba", "decision_function"):
        if classes is not None and hasattr(estimator, name):
            return _two_dimensional(getattr(estimator, name)(X), classes)
    predicted = np.asarray(estimator.predict(X))
    if classes is not None:
        return (predicted[:, None] == np.asarray(classes)).astype(np.float64)
    return _two_dimensional(predicted, None)


def _two_dimensional(scores, classes):
    """Return scores with one column for each class or output.

    For two classes there may be only the score of the second. That of the first is its
    negative.
    """
    if not isinstance(scores, torch.Tensor):
        scores = np.asarray(scores, np.float64)
    scores = scores.reshape(len(scores), -1)
    if classes is not None and len(classes) == 2 and scores.shape[1] == 1:
        scores = scores[:, [0, 0]]
        scores[:, 0] *= -1
    return scores
