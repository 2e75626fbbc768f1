"""What a fit tells the callbacks of scikit-learn 1.9 and newer.

The tasks of a fit are its phases, and the tasks of a phase are its epochs.
"""

import contextlib

from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import _safe_indexing

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn 1.8 and older have no callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Without callbacks there is nothing to add."""

    def with_callbacks(method):
        """Return the method as it is."""
        return method


class LearnedTransformer(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Base class of transformers that train a network."""


class FitCallbacks:
    """The callbacks of one fit.

    Parameters
    ----------
    estimator : estimator, default=None
        None, as in scikit-learn without callbacks: nothing is called.
    n_phases : int
    X, y, sample_weight : as `fit` was given them
    """

    def __init__(self, estimator=None, n_phases=0, X=None, y=None, sample_weight=None):
        self._estimator = estimator
        self._data = X, y, sample_weight
        self._root = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=n_phases)
            self._root.call_on_fit_task_begin(estimator=estimator, X=X, y=y)

    def close(self):
        """Say that the fit is done."""
        if self._root is not None:
            X, y, _ = self._data
            self._root.call_on_fit_task_end(estimator=self._estimator, X=X, y=y)

    @contextlib.contextmanager
    def phase(self, name, n_epochs, rows, attributes):
        """Tell of a phase for the body of a ``with``.

        Parameters
        ----------
        name : str
        n_epochs : int
            At most.
        rows : ndarray of int
            The rows of X that are trained on.
        attributes : callable
            ``attributes() -> dict``, the fitted attributes as if the fit had ended
            here. Called only if a callback asks for a fitted estimator.

        Yields
        ------
        EpochCallbacks
        """
        if self._root is None:
            yield EpochCallbacks()
            return
        task = self._root.subcontext(name, max_subtasks=n_epochs)
        data = self._lazy_data(rows)
        task.call_on_fit_task_begin(estimator=self._estimator, **data)
        yield EpochCallbacks(self._estimator, task, data, attributes)
        task.call_on_fit_task_end(estimator=self._estimator, **data)

    def train(
        self, run, data, rows, attributes, finish,
        validate=None, after_epoch=None, probe=None, name=None,
    ):  # fmt: skip
        """Run the epochs of a `TrainingRun`, as a phase.

        Parameters
        ----------
        run : TrainingRun
        data : FeatureData, PixelData or what is like them
        rows, attributes : as for `phase`
        finish : callable
            ``finish()`` is called when the training ends, also by an error.
        validate, probe : callable or None, default=None
            As for `TrainingRun.fit`.
        after_epoch : callable or None, default=None
            ``after_epoch(run)`` is called before the callbacks of the epoch.
        name : str or None, default=None
            Of the phase. None is the one in the settings of the run.
        """
        settings = run.settings
        n_epochs = settings.n_epochs - run.epoch  # a resumed run has done some

        def end_epoch(run):
            if after_epoch is not None:
                after_epoch(run)
            return epochs.end()

        with self.phase(name or settings.phase, n_epochs, rows, attributes) as epochs:
            try:
                run.fit(data, validate, end_epoch, probe, epochs.begin)
            finally:
                finish()

    def _lazy_data(self, rows):
        """Return functions that select the training data, if a callback asks."""
        X, y, weight = self._data

        def metadata():
            return {} if weight is None else {"sample_weight": _take(weight, rows)}

        return {
            "X": lambda: _take(X, rows),
            "y": lambda: None if y is None else _take(y, rows),
            "metadata": metadata,
        }


class EpochCallbacks:
    """The callbacks of the epochs of a phase; see `FitCallbacks.phase`."""

    def __init__(self, estimator=None, phase=None, data=None, attributes=None):
        self._estimator, self._phase, self._data = estimator, phase, data
        self._attributes = attributes
        self._epoch = None

    def begin(self, run=None):
        """Say that an epoch begins."""
        if self._phase is not None:
            self._epoch = self._phase.subcontext("epoch")
            self._epoch.call_on_fit_task_begin(estimator=self._estimator, **self._data)

    def end(self, run=None):
        """Say that an epoch is done; return whether a callback ends the phase."""
        if self._phase is None:
            return False
        return self._epoch.call_on_fit_task_end(
            estimator=self._estimator,
            reconstruction_attributes=self._attributes,
            **self._data,
        )


def _take(values, rows):
    n_samples = values.shape[0] if hasattr(values, "shape") else len(values)
    return values if len(rows) == n_samples else _safe_indexing(values, rows)
