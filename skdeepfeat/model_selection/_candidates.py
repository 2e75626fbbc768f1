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
        The linear head, a key of `OTHER_HEADS`, or ``"fine-tuned"``.
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


def make_head(name, problem, n_features):
    """Return a head for features, not fitted.

    Parameters
    ----------
    name : str
    problem : Problem
    n_features : int
    """
    if name in OTHER_HEADS:
        return OTHER_HEADS[name](problem)
    return linear_model(problem.classifies, n_features)


def _svm(problem):
    model = SVC(C=10)
    if not problem.classifies:
        # The width of the tube, epsilon, is in units of y.
        model = TransformedTargetRegressor(SVR(C=10), transformer=StandardScaler())
    return make_pipeline(StandardScaler(), model)


def _forest(problem):
    if problem.classifies:
        return make_pipeline(RandomForestClassifier(random_state=problem.seed))
    return make_pipeline(
        RandomForestRegressor(max_features="sqrt", random_state=problem.seed)
    )


# The heads that are compared with the linear one.
OTHER_HEADS = {"RBF SVM": _svm, "random forest": _forest}


def make_pipeline_of(candidate, problem, n_features):
    """Return the Pipeline of a candidate that is not tuned, not fitted."""
    layer = None if candidate.layer == "neck" else candidate.layer
    extractor = clone(candidate.network.extractor).set_params(layer=layer)
    head = make_head(candidate.head, problem, n_features)
    return Pipeline([("extractor", extractor), *head.steps])


def make_tuned(candidate, problem, max_epochs="auto"):
    """Return the FineTune estimator of a candidate, not fitted."""
    params = candidate.network.extractor.get_params(deep=False)
    device = params["device"]
    kind = FineTuneClassifier if problem.classifies else FineTuneRegressor
    return kind(
        **{name: params[name] for name in _SHARED},
        # They train on one device.
        device=device[0] if isinstance(device, (list, tuple)) else device,
        cache=params["cache"],
        unfreeze=candidate.unfreeze,
        max_epochs=max_epochs,
        random_state=problem.seed,
    )
