"""The linear model that judges features."""

from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_ALPHAS = tuple(10.0**power for power in range(-1, 6))


def linear_model(classifies, n_features):
    """Return a model that regularizes narrow and wide features alike.

    Parameters
    ----------
    classifies : bool
        Whether it is a classifier; else a regressor.
    n_features : int
    """
    if classifies:
        model = LogisticRegression(C=10 / n_features, max_iter=1000)
    else:
        model = RidgeCV(_ALPHAS)
    return make_pipeline(StandardScaler(), model)
