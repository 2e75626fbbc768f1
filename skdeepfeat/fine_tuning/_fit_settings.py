"""What a fit is given: how to train, on what, and from where."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from .._utils._settings import Settings
from ._targets import Targets
from ._teachers import Teachers


@dataclass(frozen=True, kw_only=True)
class BodySettings(Settings):
    """How to train a body: parameters of an estimator.

    Their meaning is documented with the estimators. Those with a default are not
    parameters of all of them.
    """

    unfreeze: str | int | tuple | None
    freeze_batch_norm: bool
    max_epochs: int | str
    batch_size: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    ema_decay: float
    augment: str | Callable | None
    precision: str
    checkpoint: object
    verbose: int
    optimizer: str = "adamw"
    optimizer_params: dict | None = None
    schedule: str = "one_cycle"
    warmup: float = 0.0
    max_grad_norm: float | None = 1.0
    mixup: float = 0.0
    activation_l1: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FitSettings(BodySettings):
    """How to train head and body: the parameters of an estimator that its fit reads."""

    hidden_layer_sizes: tuple
    dropout: float
    head_init: str
    head_epochs: int
    loss: str
    n_views: int | None
    early_stopping: bool
    scoring: str | Callable | None
    validation_fraction: float
    n_iter_no_change: int
    label_smoothing: float = 0.0
    distill_weight: float = 0.0
    distill_temperature: float = 1.0

    @property
    def trains_body(self):
        """Whether there is a phase two."""
        return self.unfreeze not in (None, 0) and self.max_epochs != 0

    @property
    def names_parts(self):
        """Whether `unfreeze` names layers or stages, which a network may not have."""
        return isinstance(self.unfreeze, (str, tuple, list)) and self.unfreeze not in (
            "all",
            "gradual",
        )

    @property
    def patience(self):
        """Epochs without a better score before training stops, or None: never."""
        return self.n_iter_no_change if self.early_stopping else None


@dataclass(frozen=True)
class FitData:
    """What to train on, and the other images that were given to `fit`, if any.

    Attributes
    ----------
    X, X_val, X_probe, X_unlabeled : images, as `_check_images` returned them
    targets, targets_val : Targets
    weights : ndarray of float64, shape (n_samples,)
    teachers : Teachers or None
    """

    X: object
    targets: Targets
    weights: np.ndarray
    X_val: object = None
    targets_val: Targets | None = None
    X_probe: object = None
    X_unlabeled: object = None
    teachers: Teachers | None = None


@dataclass
class FitResult:
    """What a fit results in, and what another fit continues.

    Attributes
    ----------
    head, body : Module or None
        `body` is None if it was not trained.
    history : list of dict
        Of all epochs, with those of the fits that this one continues.
    n_epochs : int
        Number of epochs of phase two in the history.
    best_epoch, best_score : int, float or None
    probes : list of ndarray of float32, shape (n_images, n_outputs)
        Predictions for `X_probe` after each epoch.
    """

    head: nn.Module | None = None
    body: nn.Module | None = None
    history: list = field(default_factory=list)
    n_epochs: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    probes: list = field(default_factory=list)

    def after(self, history, probes, **changes):
        """Return the result after more epochs, with other values that have changed."""
        return replace(
            self,
            history=[*self.history, *history],
            probes=[*self.probes, *probes],
            **changes,
        )
