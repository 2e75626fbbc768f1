"""Autoencoder: a code of few numbers from which rows can be restored."""

import copy
import functools
import math

import numpy as np
import pandas as pd
import torch
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._constraints import NOT_NEGATIVE, POSITIVE_INT
from .._utils._device import resolve_device
from .._utils._html import DocumentationLinkMixin
from .._utils._parameter_errors import check_sizes, choice_error
from .._utils._public_function import public_function
from .._utils._short_errors import ShortErrorsMixin
from ..training import (
    REGRESSION_LOSSES,
    FeatureData,
    LoopSettings,
    TrainingRun,
    make_loss,
    make_optimizer,
)
from ._corruptions import CORRUPTIONS, FeatureRanges, check_level
from ._mirrored_network import ACTIVATIONS, MirroredNetwork, SingleLayer
from ._restoring import (
    CONSTRAINTS,
    check_codes,
    compute_in_parts,
    hold_out,
    make_validate,
)

# max_epochs="auto": enough steps for a few hundred rows, few epochs for a million.
_N_STEPS = 10_000
_AUTO_EPOCHS = (5, 500)

# Rows that go through the network at once outside of training.
_N_ROWS_AT_ONCE = 4096


class Autoencoder(ShortErrorsMixin, DocumentationLinkMixin, LearnedTransformer):
    """A network that squeezes rows into a code and restores them from it.

    X is any numeric data: pixels of small images, one row per image, or the features of
    a neck. `transform` returns the code. With ``activation="identity"``, the network
    finds the subspace of PCA (Baldi and Hornik 1989 [1]_). With a `corruption`, it
    learns to restore clean rows from damaged ones: the denoising autoencoder of Vincent
    et al. (2008) [2]_, which can have more units than features.

    Rows are centered, and divided by one number for all features, before the network
    sees them. So the scale of X does not matter, but the relative scales of its
    features do, as for PCA. If these have no meaning, put a `StandardScaler` before the
    estimator.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(256, 32)
        Number of units of each layer of the encoder. The last is the size of the code.
        The decoder has the same sizes in reverse order.

    activation : {"identity", "logistic", "tanh", "relu"}, default="relu"
        Activation of the hidden layers, except the code.

    code_activation : {"identity", "logistic", "tanh", "relu"}, default="identity"
        Activation of the code. A denoising autoencoder with one hidden layer needs a
        nonlinear one.

    tied_weights : bool, default=False
        Whether each layer of the decoder uses the transposed weights of the encoder,
        which halves the number of weights.

    corruption : {"mask", "gaussian", "salt_pepper"} or None, default=None
        How training damages the inputs, in a new way in each epoch. ``"mask"`` sets
        values to
        0. ``"gaussian"`` adds noise. ``"salt_pepper"`` sets values to the minimum or
        the maximum of their feature.

    corruption_level : float, default=0.3
        For ``"gaussian"``, the standard deviation of the noise, in standard deviations
        of the feature. Otherwise the fraction of the damaged values, in [0, 1].

    layerwise : bool, default=False
        Whether the layers are first trained one after the other, each to restore the
        output of the one before it, for `max_epochs` each. Then all are trained
        together.

    loss : {"squared_error", "absolute_error", "huber", "cross_entropy"}, \
default="squared_error"
        ``"cross_entropy"`` is for values in [0, 1], such as black and white pixels. The
        restored values are then in [0, 1], too.

    max_epochs : int or "auto", default="auto"
        Number of epochs. ``"auto"`` aims at about 10,000 steps, with at least 5 and at
        most 500 epochs.

    batch_size : int, default=32
        Number of rows in a step.

    learning_rate : float, default=5e-3
        Highest learning rate. It rises for 30 % of the steps and then falls to almost 0
        (one-cycle). `partial_fit` keeps it constant.

    weight_decay : float, default=0.0
        Weight decay of AdamW.

    early_stopping : bool, default=False
        Whether to stop when the error of held-out rows has not improved for
        `n_iter_no_change` epochs, and to restore the best weights.

    validation_fraction : float, default=0.1
        Fraction of the rows, in (0, 1), that early stopping holds out.

    n_iter_no_change : int, default=10
        Number of epochs without a smaller error before training stops.

    device : str or torch.device, default="auto"
        ``"auto"`` selects the first of cuda, mps and xpu that is available, and the CPU
        otherwise.

    random_state : int, RandomState instance or None, default=None
        Determines the first weights, the order of the rows, the corruption and the
        held-out rows.

    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU. It works on centered and scaled rows.

    mean_ : ndarray of float32, shape (n_features,)
        The mean of the features, which is subtracted from the rows.

    scale_ : float
        The number that centered rows are divided by: the root of the mean variance of
        the features.

    history_ : DataFrame
        One row per epoch: ``phase`` (``"layer k"`` or ``"network"``), ``epoch``,
        ``train_loss`` and ``validation_loss`` (per centered and scaled value),
        ``learning_rate`` and ``seconds``.

    best_epoch_ : int or None
        With early stopping, the epoch of the last phase whose weights were kept.

    n_features_in_ : int
        Number of features of X.

    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Names of the features of X, if they are all strings.

    See Also
    --------
    sklearn.decomposition.PCA : The linear case, solved exactly.

    Notes
    -----
    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The tasks of `fit` are its phases, and their tasks
    are epochs. A callback whose ``on_fit_task_end`` returns True ends the phase.

    References
    ----------
    .. [1] P. Baldi and K. Hornik, "Neural networks and principal component analysis:
       learning from examples without local minima", Neural Networks 2, 1989.
    .. [2] P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol, "Extracting and
       composing robust features with denoising autoencoders", ICML 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import Autoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> autoencoder = Autoencoder((64, 8), max_epochs=20, random_state=0).fit(X)
    >>> autoencoder.transform(X).shape
    (1797, 8)
    >>> autoencoder.inverse_transform(autoencoder.transform(X)).shape
    (1797, 64)
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "hidden_layer_sizes": ["array-like", POSITIVE_INT],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "code_activation": [StrOptions(set(ACTIVATIONS))],
        "tied_weights": ["boolean"],
        "layerwise": ["boolean"],
        "loss": [StrOptions({*REGRESSION_LOSSES, "cross_entropy"})],
        "batch_size": [POSITIVE_INT],
        "weight_decay": [NOT_NEGATIVE],
        "device": "no_validation",  # resolve_device does
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_layer_sizes=(256, 32),
        *,
        activation="relu",
        code_activation="identity",
        tied_weights=False,
        corruption=None,
        corruption_level=0.3,
        layerwise=False,
        loss="squared_error",
        max_epochs="auto",
        batch_size=32,
        learning_rate=5e-3,
        weight_decay=0.0,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.code_activation = code_activation
        self.tied_weights = tied_weights
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.layerwise = layerwise
        self.loss = loss
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @public_function
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Train on rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The samples.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If X holds NaN or infinity, has fewer than 2 rows, or has values outside of
            [0, 1] with the cross-entropy loss.
        TrainingDivergedError
            If the loss is NaN or infinite. The estimator then has the weights of the
            last good epoch.

        Warns
        -----
        RuntimeWarning
            If the training was interrupted. The estimator then has the weights so far.
        """
        given = X
        X = self._checked_for_training(X, reset=True)
        self._begin(X)
        rows = self._normalized(X)
        indices, others = hold_out(self, np.arange(len(X)), self._seed)
        rows, held_out = rows[indices], None if others is None else rows[others]
        n_layers = len(self.network_.encoder) if self.layerwise else 0
        callbacks = FitCallbacks(self, n_layers + 1, given, y)
        train = functools.partial(self._learn, callbacks, rows=indices)
        interrupted = any(
            self._fit_layer(k, rows, held_out, train) for k in range(n_layers)
        )
        if not interrupted:
            data = self._data(rows, self._ranges)
            self._fit(self.network_, "network", self.loss, data, held_out, train)
        callbacks.close()
        return self

    @public_function
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None):
        """Train for one epoch on rows, which may be a part of the data.

        The first call determines `mean_` and `scale_`. The optimizer continues where
        the last call ended. There is no early stopping and no layer-wise training.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The samples.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted estimator.
        """
        is_first = not hasattr(self, "network_")
        X = self._checked_for_training(X, reset=is_first)
        if is_first:
            self._begin(X)
        if self._has_logits != (self.loss == "cross_entropy"):
            wanted = "the one of the fit, as 'cross_entropy' scales rows differently"
            raise choice_error("loss", wanted, self.loss)
        settings = LoopSettings.of(
            self,
            phase="network",
            n_epochs=1,
            n_iter_no_change=None,
            seed=self._seed,
            first_epoch=len(self.history_),
        )
        data = self._data(self._normalized(X), self._ranges)
        train = functools.partial(self._learn, FitCallbacks(), rows=None)
        run = self._run(self.network_, settings, self.loss, data, None, train)
        self._optimizer_state = _on_cpu(run.optimizer.state_dict())
        return self

    @public_function
    def transform(self, X):
        """Return the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_units)
            One row per sample.
        """
        check_is_fitted(self)
        X = self._checked(X)
        return self._apply(self.network_.encode, self._normalized(X))

    @public_function
    def inverse_transform(self, X):
        """Return the rows that codes decode to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_units)
            Codes, as `transform` returns them.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features)
            One row per sample.
        """
        check_is_fitted(self)
        return self._restored(check_codes(self, X)).astype(np.float32)

    @public_function
    def reconstruction_error(self, X):
        """Return how far restored rows are from the rows themselves.

        Rows that are unlike the training data have large errors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The samples.

        Returns
        -------
        ndarray of float64, shape (n_samples,)
            Mean squared error of each row, in squared units of X.
        """
        check_is_fitted(self)
        X = self._checked(X)
        codes = self._apply(self.network_.encode, self._normalized(X))
        return ((self._restored(codes) - X) ** 2).mean(axis=1)

    @property
    def _n_features_out(self):
        return self.network_.encoder[-1].out_features

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    def _checked(self, X, reset=False):
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32],
            ensure_min_samples=2 if reset else 1,
        )  # fmt: skip

    def _checked_for_training(self, X, reset):
        X = self._checked(X, reset)
        check_level(self.corruption, self.corruption_level)
        if self.loss == "cross_entropy" and (X.min() < 0 or X.max() > 1):
            raise ValueError(
                "X must have values in [0, 1] for loss='cross_entropy'. Scale it with "
                "MinMaxScaler(clip=True), or choose loss='squared_error'. Got values "
                f"from {X.min():g} to {X.max():g}."
            )
        return X

    def _begin(self, X):
        """Set all that is learned to its state before the first epoch."""
        sizes = check_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        resolve_device(self.device)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._optimizer_state = None
        n_features = X.shape[1]
        self.mean_, self.scale_ = np.zeros(n_features), 1.0
        self._has_logits = self.loss == "cross_entropy"
        if not self._has_logits:
            self.mean_ = X.mean(axis=0, dtype=np.float64)
            variances = X.var(axis=0, dtype=np.float64)
            # Constant rows have no scale.
            self.scale_ = math.sqrt(variances.mean()) or 1.0
        self.network_ = MirroredNetwork(
            [n_features, *sizes], self.activation, self.code_activation,
            self.tied_weights, self._seed,
        ).eval()  # fmt: skip
        zero = (-self.mean_ / self.scale_).astype(np.float32)
        self._ranges = FeatureRanges.of(self._normalized(X), zero)
        self.history_ = pd.DataFrame(
            columns=["phase", "epoch", "train_loss", "validation_loss",
                     "learning_rate", "seconds"]
        )  # fmt: skip
        self.best_epoch_ = None

    def _normalized(self, X):
        return ((X - self.mean_) / self.scale_).astype(np.float32)

    def _restored(self, codes):
        """Return rows in the units of X, as float64."""
        rows = self._apply(self.network_.decode, codes)
        if self._has_logits:
            return 1 / (1 + np.exp(-rows.astype(np.float64)))
        return rows * np.float64(self.scale_) + self.mean_

    def _data(self, rows, ranges):
        return _CorruptedData(rows, self.corruption, self.corruption_level, ranges)

    def _fit_layer(self, k, rows, held_out, train):
        """Train one layer to restore what it is given; return whether interrupted."""
        network = self.network_

        def encode(rows):
            return self._apply(lambda part: network.encode(part, k), rows)

        inputs = encode(rows)
        unseen = None if held_out is None else encode(held_out)
        zero = self._ranges.zero if k == 0 else np.zeros(inputs.shape[1], np.float32)
        data = self._data(inputs, FeatureRanges.of(inputs, zero))
        loss = self.loss if k == 0 else "squared_error"
        layer = SingleLayer(network, k)
        return self._fit(layer, f"layer {k + 1}", loss, data, unseen, train)

    def _fit(self, model, phase, loss, data, held_out, train):
        """Train a model for all epochs; return whether it was interrupted."""
        settings = LoopSettings.one_cycle(
            self, len(data), _N_STEPS, _AUTO_EPOCHS,
            phase=phase, seed=self._seed, first_epoch=len(self.history_),
        )  # fmt: skip
        return self._run(model, settings, loss, data, held_out, train).interrupted

    def _run(self, model, settings, loss, data, held_out, train):
        """Train a model by the loop, record its epochs, and tell callbacks of them."""
        device = resolve_device(self.device)
        # The state of the optimizer is loaded to where the weights are.
        optimizer = make_optimizer(
            "adamw",
            [list(model.to(device).named_parameters())],
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        # The binary cross-entropy of each value.
        task = "multilabel" if loss == "cross_entropy" else "regression"
        loss = make_loss(loss, task)
        run = TrainingRun(model, optimizer, loss, settings, device)

        def attributes():
            records = self.history_.to_dict("records") + run.history
            return {
                "network_": copy.deepcopy(self.network_).cpu().eval(),
                "history_": pd.DataFrame(records, columns=self.history_.columns),
                "best_epoch_": run.best_epoch,
            }

        validate = None
        if held_out is not None:
            unseen = torch.from_numpy(held_out)
            validate = make_validate(loss, unseen, _N_ROWS_AT_ONCE, device)
        train(run, data, attributes=attributes, validate=validate)
        return run

    def _apply(self, function, rows):
        """Return a function of rows as an array."""
        rows = torch.from_numpy(np.ascontiguousarray(rows))
        return compute_in_parts(function, rows, _N_ROWS_AT_ONCE).numpy()


class _CorruptedData(FeatureData):
    """Rows whose inputs are corrupted, and whose targets are the rows themselves."""

    def __init__(self, rows, corruption, level, ranges):
        super().__init__(rows, torch.from_numpy(rows), torch.ones(len(rows)))
        self._corrupt = CORRUPTIONS.get(corruption)
        self._level = level
        self._ranges = ranges

    def batch(self, rows, rng, positions, n_total):
        """Return the inputs of some samples."""
        clean = self.inputs[rows]
        if self._corrupt is None:
            return clean
        damaged = self._corrupt(clean.numpy(), self._level, rng, self._ranges)
        return torch.from_numpy(damaged)


def _on_cpu(state):
    """Return the state of an optimizer without tensors of a GPU, to be pickled."""
    moments = {
        index: {name: value.cpu() for name, value in one.items()}
        for index, one in state["state"].items()
    }
    return {**state, "state": moments}
