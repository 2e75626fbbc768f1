"""transfer_scores: estimates of how well features would transfer, without a probe."""

import numpy as np
import scipy.linalg
from sklearn.covariance import ledoit_wolf
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from .._utils._columns import check_table
from .._utils._public_function import public_function
from ._labels import check_targets

# The shape and rate of both Gamma priors, as in BayesianRidge.
_PRIOR = 1e-6
_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-9  # of the evidence per sample
_ROW_SUM_TOLERANCE = 1e-3


@public_function
def transfer_scores(F, y, P_source=None):
    """Return scores that are meant to rank networks by how well they transfer.

    Parameters
    ----------
    F : array-like, shape (n_samples, n_features)
        Features of the images, from one network.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Class labels, or targets of real numbers.
    P_source : array-like, shape (n_samples, n_source_classes), or None, default=None
        The probabilities of the classes that the network was trained with, such as the
        softmax of an extractor with ``layer="output"``. Needed for LEEP and NCE.

    Returns
    -------
    dict of str to float
        Higher is better. Scores that do not apply are NaN.

        - ``"logme"``: the log evidence of a Bayesian linear regression of each class
          indicator or target on F, per sample, averaged over the classes [1]_. It
          equals the score of scikit-learn's `BayesianRidge` with
          ``fit_intercept=False``.
        - ``"h_score"``: the trace of the covariance of the class means over that of F,
          with Ledoit-Wolf shrinkage [2]_, [3]_. Classes only.
        - ``"leep"``: the mean log probability of the labels, predicted from the source
          classes by their joint distribution with `y` [4]_. Classes only.
        - ``"nce"``: the negative conditional entropy of `y` given the most likely
          source class, in nats [5]_. Classes only.

    Raises
    ------
    ValueError
        If a parameter is wrong, or if there is only one class.

    Warnings
    --------
    On the standard benchmark of such scores, sorting the networks by size ranks them
    better than any score [6]_. The scores of two networks have no common scale: "10
    points better" means nothing. `linear_probe` measures the accuracy itself, from the
    same features.

    References
    ----------
    .. [1] You et al., "LogME: practical assessment of pre-trained models for transfer
       learning", ICML 2021.
    .. [2] Bao et al., "An information-theoretic approach to transferability in task
       transfer learning", ICIP 2019.
    .. [3] Ibrahim, Ponomareva and Mazumder, "Newer is not always better: rethinking
       transferability metrics, their peculiarities, stability and performance", ECML
       PKDD 2022.
    .. [4] Nguyen et al., "LEEP: a new measure to evaluate transferability of learned
       representations", ICML 2020.
    .. [5] Tran, Nguyen and Hassner, "Transferability and hardness of supervised
       classification tasks", ICCV 2019.
    .. [6] Singh, Hess and Vanschoren, arXiv:2510.06448.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat.inspection import transfer_scores
    >>> X, y = load_digits(return_X_y=True)
    >>> scores = transfer_scores(X, y)
    >>> round(scores["logme"], 2), round(scores["h_score"], 2)
    (0.27, 5.85)
    """
    F = check_table(F, "F", dtype=np.float64, ensure_min_samples=2)
    y = check_targets(y, "y", "transfer_scores")
    check_consistent_length(F, y)
    kind = type_of_target(y, input_name="y")
    scores = dict.fromkeys(("logme", "h_score", "leep", "nce"), np.nan)
    if kind.startswith("continuous"):
        targets = y.astype(np.float64).reshape(len(y), -1)
        if P_source is not None:
            raise ValueError(
                "The 'P_source' parameter of transfer_scores must be None for targets "
                "of real numbers: LEEP and NCE are for classes."
            )
        scores["logme"] = _logme(F, targets)
        return scores
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            "The 'y' parameter of transfer_scores must be class labels or real "
            f"numbers. Got targets of the type {kind!r}."
        )
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "The 'y' parameter of transfer_scores must have at least two classes. Got "
            f"only {classes.tolist()[0]!r}."
        )
    indicators = np.eye(len(classes))[labels]
    scores["logme"] = _logme(F, indicators)
    scores["h_score"] = _h_score(F, indicators)
    if P_source is not None:
        P_source = _check_probabilities(P_source, len(F))
        scores["leep"] = _leep(P_source, indicators)
        most_likely = np.eye(P_source.shape[1])[P_source.argmax(axis=1)]
        # With certain source classes, LEEP is the negative conditional entropy.
        scores["nce"] = _leep(most_likely, indicators)
    return scores


def _logme(F, targets):
    """Return the mean log evidence per sample of the columns of `targets`."""
    U, s, _ = scipy.linalg.svd(F, full_matrices=False)
    evidences = [_evidence(U.T @ t, s**2, t) for t in targets.T]
    return float(np.mean(evidences) / len(F))


def _evidence(z, eigenvalues, target):
    """Return the log evidence of `BayesianRidge`, at the maximum over its parameters.

    One decomposition of F serves all targets, which `BayesianRidge` would repeat.

    Parameters
    ----------
    z : ndarray, shape (n_components,)
        The target in the basis of F's left singular vectors.
    eigenvalues : ndarray, shape (n_components,)
        F's squared singular values.
    target : ndarray, shape (n_samples,)
    """
    n = len(target)
    outside = max(target @ target - z @ z, 0.0)  # cannot be explained by weights
    alpha = 1 / (target.var() + np.finfo(np.float64).eps)  # precision of the noise
    lambda_ = 1.0  # precision of the weights
    best = -np.inf
    for _ in range(_MAX_ITERATIONS):
        precision = lambda_ + alpha * eigenvalues
        error = ((z * lambda_ / precision) ** 2).sum() + outside
        norm = (eigenvalues * (z * alpha / precision) ** 2).sum()  # of the weights
        evidence = (
            (np.log(lambda_) - np.log(precision)).sum()
            + n * np.log(alpha / (2 * np.pi))
            - alpha * error
            - lambda_ * norm
        ) / 2 + _PRIOR * (np.log(lambda_) - lambda_ + np.log(alpha) - alpha)
        if evidence - best < _TOLERANCE * n:
            break
        best = evidence
        gamma = (alpha * eigenvalues / precision).sum()
        lambda_ = (gamma + 2 * _PRIOR) / (norm + 2 * _PRIOR)
        alpha = (n - gamma + 2 * _PRIOR) / (error + 2 * _PRIOR)
    return evidence


def _h_score(F, indicators):
    covariance, shrinkage = ledoit_wolf(F)
    counts = indicators.sum(axis=0)
    means = (indicators.T @ F) / counts[:, None] - F.mean(axis=0)
    weighted = np.sqrt(counts / len(F))[:, None] * means
    solved = np.linalg.lstsq(covariance, weighted.T, rcond=None)[0]
    return float((1 - shrinkage) * np.vdot(weighted.T, solved))


def _leep(P_source, indicators):
    joint = P_source.T @ indicators / len(indicators)
    marginal = joint.sum(axis=1, keepdims=True)
    # A source class that no image has is not used for any image either.
    conditional = np.divide(joint, marginal, where=marginal > 0, out=0 * joint)
    predicted = ((P_source @ conditional) * indicators).sum(axis=1)
    return float(np.log(predicted).mean())


def _check_probabilities(P_source, n_samples):
    P = check_table(P_source, "P_source", dtype=np.float64)
    if len(P) != n_samples:
        raise ValueError(
            "The 'P_source' parameter of transfer_scores must have a row for each of "
            f"the {n_samples} samples. Got {len(P)} rows."
        )
    sums = P.sum(axis=1)
    if P.min() < 0 or np.abs(sums - 1).max() > _ROW_SUM_TOLERANCE:
        raise ValueError(
            "The 'P_source' parameter of transfer_scores must have rows of "
            "probabilities. Apply scipy.special.softmax(..., axis=1) to the output of "
            f"a network. Got values from {P.min():.3g} to {P.max():.3g} and row sums "
            f"from {sums.min():.3g} to {sums.max():.3g}."
        )
    return P
