"""What can be recommended: a head on a layer of a network, or fine-tuning it."""

from dataclasses import dataclass

from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from .._utils._linear_model import linear_model
from ..fine_tuning import FineTuneClassifier, FineTuneRegressor
from ._networks import Network

# Parameters that mean the same for an extractor and a FineTune estimator.
_SHARED = (
    "model",
    "weights",
    "image_size",
    "preprocessing",
    "precision",
    "on_error",
    "flat_image_shape",
    "max_pixels",
    "storage_options",
)


@dataclass(frozen=True)
class Candidate:
    """What can be recommended.

    Attributes
    ----------
    network : Network
    layer : str
        As in `list_layers`, or ``"neck"``.
    head : str
        A key of the heads below, or ``"fine-tuned"``.
    unfreeze : {"all"}, int, tuple or None
        What fine-tuning trains.
    """

    network: Network
    layer: str = "neck"
    head: str = "fine-tuned"
    unfreeze: object = None

    @property
    def is_tuned(self):
        """Whether the network is trained."""
        return self.head == "fine-tuned"

    def __str__(self):
        if self.is_tuned:
            return f"{self.network.name}, unfreeze={self.unfreeze!r}"
        return f"{self.network.name}, {self.layer}, {self.head}"


def linear_head(classifies):
    """Return the name of the linear head."""
    return "logistic" if classifies else "ridge"


def other_heads(classifies):
    """Return the names of the heads that are compared with the linear one."""
    return [name for name in _HEADS[classifies] if name != linear_head(classifies)]


def make_head(name, classifies, n_features, seed):
    """Return a head for features, not fitted.

    Parameters
    ----------
    name : str
    classifies : bool
    n_features : int
    seed : int
    """
    return _HEADS[classifies][name](n_features, seed)


def _logistic(n_features, seed):
    return linear_model(True, n_features)


def _svm(n_features, seed):
    return make_pipeline(StandardScaler(), SVC(C=10))


def _forest(n_features, seed):
    return make_pipeline(RandomForestClassifier(random_state=seed))


def _ridge(n_features, seed):
    return linear_model(False, n_features)


def _svm_regressor(n_features, seed):
    # The width of the tube, epsilon, is in units of y.
    model = TransformedTargetRegressor(SVR(C=10), transformer=StandardScaler())
    return make_pipeline(StandardScaler(), model)


def _forest_regressor(n_features, seed):
    model = RandomForestRegressor(max_features="sqrt", random_state=seed)
    return make_pipeline(model)


_HEADS = {
    True: {"logistic": _logistic, "RBF SVM": _svm, "random forest": _forest},
    False: {
        "ridge": _ridge,
        "RBF SVM": _svm_regressor,
        "random forest": _forest_regressor,
    },
}


def make_pipeline_of(candidate, classifies, n_features, seed):
    """Return the Pipeline of a candidate that is not tuned, not fitted."""
    layer = None if candidate.layer == "neck" else candidate.layer
    extractor = clone(candidate.network.extractor).set_params(layer=layer)
    head = make_head(candidate.head, classifies, n_features, seed)
    return Pipeline([("extractor", extractor), *head.steps])


def make_tuned(candidate, classifies, seed, max_epochs="auto"):
    """Return the FineTune estimator of a candidate, not fitted."""
    params = candidate.network.extractor.get_params(deep=False)
    device = params["device"]
    kind = FineTuneClassifier if classifies else FineTuneRegressor
    return kind(
        **{name: params[name] for name in _SHARED},
        # They train on one device.
        device=device[0] if isinstance(device, (list, tuple)) else device,
        cache=params["cache"],
        unfreeze=candidate.unfreeze,
        max_epochs=max_epochs,
        random_state=seed,
    )
