"""What `TransferAdvisor` leaves to its `best_estimator_`."""

from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._utils._tensors import without_tensors


def _delegates(method):
    """Return a check whether the best estimator has a method."""

    def check(self):
        if not hasattr(self, "results_"):
            return True  # calling it raises NotFittedError
        self._require_best_estimator(method)
        getattr(self.best_estimator_, method)
        return True

    return check


class DelegatesMixin:
    """Methods and attributes of `best_estimator_`, which may be missing after `fit`."""

    def _require_best_estimator(self, method):
        check_is_fitted(self, "results_")
        if not hasattr(self, "best_estimator_"):
            reason = (
                "the decision was interrupted" if self.refit else "it has refit=False"
            )
            raise AttributeError(
                f"This {type(self).__name__} has no best_estimator_ for {method}, "
                f"because {reason}. Fit its recommended_estimator_."
            )

    def _best(self):
        check_is_fitted(self)
        return self.best_estimator_

    @available_if(_delegates("predict"))
    def predict(self, X):
        """Return the predictions of the best estimator.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        y : ndarray, shape (n_samples,) or (n_samples, n_outputs)
            One row per image.
        """
        return self._best().predict(X)

    @available_if(_delegates("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Only available if the best estimator has this method.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        probabilities : ndarray, shape (n_samples, n_classes)
            One row per image, which sums to one for labels that exclude each other.
        """
        return self._best().predict_proba(X)

    @available_if(_delegates("predict_log_proba"))
    def predict_log_proba(self, X):
        """Return the logarithms of the probabilities of the classes.

        Only available if the best estimator has this method.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        log_probabilities : ndarray, shape (n_samples, n_classes)
            One row per image.
        """
        return self._best().predict_log_proba(X)

    @available_if(_delegates("decision_function"))
    def decision_function(self, X):
        """Return the scores of the classes.

        Only available if the best estimator has this method.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        scores : ndarray, shape (n_samples,) or (n_samples, n_classes)
            One row per image.
        """
        return self._best().decision_function(X)

    @available_if(_delegates("transform"))
    def transform(self, X):
        """Return the features of the tuned network.

        Only available if the best estimator has this method, as the FineTune estimators
        do.

        Parameters
        ----------
        X : array-like of images
            The images.

        Returns
        -------
        features : ndarray of float32, shape (n_samples, n_features)
            Row i belongs to image i.
        """
        return self._best().transform(X)

    def score(self, X, y):
        """Return the score of the best estimator, by `scoring`.

        Parameters
        ----------
        X : array-like of images
            The images.
        y : array-like
            The targets.

        Returns
        -------
        score : float
            By default, the mean accuracy, or R² of a regression.
        """
        check_is_fitted(self)
        self._require_best_estimator("score")
        return self.scorer_(self.best_estimator_, X, without_tensors(y, "y"))

    @property
    def classes_(self):
        """The labels, of a classifier."""
        self._require_best_estimator("classes_")
        return self.best_estimator_.classes_

    @property
    def n_features_in_(self):
        """Number of columns seen in `fit`."""
        self._require_best_estimator("n_features_in_")
        return self.best_estimator_.n_features_in_
