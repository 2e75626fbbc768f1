"""The training loop: epochs of steps, whatever is trained and on whatever data."""

import contextlib
import itertools
import logging
import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from .._utils._forks import undisturbed_by_forks
from .._utils._progress import progress_bar
from .._utils._random import RandomStream
from .._utils._settings import Settings
from .._utils._warn import warn
from ..exceptions import TrainingDivergedError
from ._batch_loading import BatchLoader
from ._gradients import BatchGradients
from ._processes import Processes
from ._schedules import learning_rate_factor
from ._state import copy_state, load_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings(Settings):
    """How a run of epochs goes.

    Attributes
    ----------
    phase : str
        Its name in the history.
    n_epochs : int
    batch_size : int
        Samples in a step, over all processes.
    learning_rate : float
        The highest of the schedule.
    schedule : str
    warmup : float
        Fraction of the run.
    max_grad_norm : float or None
        Gradients with a larger norm are scaled down to it.
    precision : {"float32", "tf32", "bfloat16", "float16"}
    mixup : float
        Parameter of the Beta distribution that pairs of samples are mixed with (Zhang
        et al. 2018); 0 does not mix.
    activation_l1 : float
        Weight of the mean output of the ReLUs in the loss.
    n_iter_no_change : int or None
        Epochs without a better validation score before the run ends; None: never.
    seed : int
    first_epoch : int
        Number of epochs of earlier runs that this one continues. The history counts
        from there, and no epoch draws the random numbers of an earlier one.
    verbose : int
    """

    phase: str
    n_epochs: int
    batch_size: int
    learning_rate: float
    schedule: str = "constant"
    warmup: float = 0.0
    max_grad_norm: float | None = None
    precision: str = "float32"
    mixup: float = 0.0
    activation_l1: float = 0.0
    n_iter_no_change: int | None = None
    seed: int = 0
    first_epoch: int = 0
    verbose: int = 0

    @classmethod
    def one_cycle(cls, estimator, n_samples, auto_steps, auto_epochs, **others):
        """Return the settings of an estimator that trains by a one-cycle schedule.

        Parameters
        ----------
        estimator : estimator
            Its `early_stopping` counts if it has one.
        n_samples : int
        auto_steps : int
        auto_epochs : tuple of (int, int)
            What ``max_epochs="auto"`` means: about this many steps, but epochs within
            these bounds.
        **others : settings
        """
        n_epochs, size = estimator.max_epochs, estimator.batch_size
        if n_epochs == "auto":
            n_epochs = epochs_of_steps(auto_steps, n_samples, size, auto_epochs)
        stops_early = getattr(estimator, "early_stopping", False)
        return cls.of(
            estimator,
            n_epochs=n_epochs,
            schedule="one_cycle",
            n_iter_no_change=estimator.n_iter_no_change if stops_early else None,
            **others,
        )


def epochs_of_steps(n_steps, n_samples, batch_size, bounds):
    """Return the number of epochs for about this many steps, within bounds."""
    steps_of_epoch = max(1, n_samples // batch_size)
    return int(np.clip(n_steps // steps_of_epoch, *bounds))


def seed_of(*numbers):
    """Return a seed that depends on all of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class TrainingRun:
    """A model, its optimizer, and their progress.

    All randomness of an epoch comes from the seed and the number of the epoch. So a run
    that is resumed ends with the weights of an uninterrupted one.

    Parameters
    ----------
    model : Module
        On `device`.
    optimizer : torch.optim.Optimizer
        Its groups have an ``"lr_scale"``.
    loss : callable
        See `make_loss`.
    settings : LoopSettings
    device : torch.device
    processes : Processes or None, default=None
    average : WeightAverage or None, default=None
    prepare : callable, default=None
        ``prepare(epoch)`` is called before each epoch. It freezes what is to be frozen,
        and puts modules into training mode.
    teacher : callable, default=None
        ``teacher(inputs) -> Tensor of shape (n_samples, n_outputs)``, the soft targets
        of a batch. The data then have `TaughtTargets`.
    taught_fraction : float, default=1.0
        The fraction of the soft targets that comes from `teacher`. The rest is in the
        data.

    Attributes
    ----------
    epoch : int
        Number of epochs that this run has finished.
    history : list of dict
        One record per finished epoch.
    probes : list of ndarray
        What the probe returned after each finished epoch, if there is one.
    best_score : float
    best_epoch : int or None
        Counted in this run, from 1.
    best_state : dict of str to Tensor or None
        The weights (averaged, if there is an average) of the best epoch, on the CPU.
    interrupted : bool
    checkpoint_error : OSError or None
        Why a checkpoint could not be written, after the warning about it.
    """

    def __init__(
        self, model, optimizer, loss, settings, device,
        processes=None, average=None, prepare=None, teacher=None, taught_fraction=1.0,
    ):  # fmt: skip
        self.model = model
        self.optimizer = optimizer
        self.settings = settings
        self.processes = processes or Processes(device)
        self.average = average
        self.prepare = prepare or (lambda epoch: model.train())
        self.teacher = teacher
        self.epoch = 0
        self.history = []
        self.probes = []
        self.best_score = -math.inf
        self.best_epoch = None
        self.best_state = None
        self.interrupted = False
        self.checkpoint_error = None
        enabled = settings.precision == "float16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)
        self._gradients = BatchGradients(
            model, loss, settings, device, self.scaler, teacher, taught_fraction
        )
        self._loader = BatchLoader(self.processes, device, settings.mixup)
        self._device = device
        self._stream = None
        # The weights before the last epoch. A step is needed to show that those after
        # it give a finite loss.
        self._earlier = None

    def fit(self, data, validate=None, after_epoch=None, probe=None, before_epoch=None):
        """Train until the epochs are done, or the validation score stops improving.

        Parameters
        ----------
        data : FeatureData, PixelData or what is like them
            Its ``begin(epoch)`` is called before each epoch, if it has that.
        validate : callable, default=None
            ``validate(model) -> (loss, score)``, called after each epoch.
        after_epoch : callable, default=None
            ``after_epoch(run) -> bool``, which writes a checkpoint. If it returns true
            in a process, all end the run here.
        probe : callable, default=None
            ``probe(model) -> ndarray``, called after each epoch.
        before_epoch : callable, default=None
            ``before_epoch(run)``.

        Raises
        ------
        TrainingDivergedError
            If the loss is NaN or infinite. The model then has the weights of the last
            good epoch.
        OutOfMemoryError
            If not even one sample fits in the memory of the device.

        Warns
        -----
        RuntimeWarning
            After a KeyboardInterrupt, which ends the run and is not raised again.
        """
        self.processes.copy_from_first(self.model)
        if self.average is not None:
            self.processes.copy_from_first(self.average)
        with self._bar() as bar:
            try:
                while self.epoch < self.settings.n_epochs and not self._is_stalled():
                    if before_epoch is not None:
                        before_epoch(self)
                    self._run_good_epoch(data, validate, probe)
                    bar.set_postfix_str(_in_words(self.history[-1]))
                    bar.update()
                    if after_epoch is not None and self._ends(after_epoch(self)):
                        break
            except KeyboardInterrupt:
                self._warn_of_interruption()
        stops_early = self.settings.n_iter_no_change is not None
        use_best = stops_early and self.best_state is not None
        load_state(self.model, self.best_state if use_best else self.state())

    def sweep(self, data, learning_rates, stop):
        """Make one step at each of several learning rates, instead of a schedule.

        Parameters
        ----------
        data : FeatureData or PixelData
        learning_rates : iterable of float
        stop : callable
            ``stop(losses) -> bool``, called after each step with the losses so far.

        Returns
        -------
        list of float
            The loss of each step, before the step. They end before the first that is
            not finite.
        """
        losses = []
        self.processes.copy_from_first(self.model)
        self.prepare(0)
        self._begin_stream(0)
        epochs = (self._batches(len(data), epoch) for epoch in itertools.count())
        parts = itertools.chain.from_iterable(epochs)
        with self._loader.batches(data, parts, self._stream) as batches:
            for rate, batch in zip(learning_rates, batches, strict=False):
                self._set_rate(rate)
                try:
                    losses.append(self._step(batch, len(losses)))
                except TrainingDivergedError:
                    break
                if stop(losses):
                    break
        return losses

    def state(self):
        """Return a copy of the averaged weights, or of the model's without average."""
        if self.average is None:
            return copy_state(self.model)
        return {k: v.detach().cpu().clone() for k, v in self.average.tensors.items()}

    # -- Epochs

    def _run_good_epoch(self, data, validate, probe):
        """Run an epoch, or go back to the last weights that gave a finite loss."""
        good = self.state()
        start = time.perf_counter()
        try:
            train_loss = self._run_epoch(data)
            seconds = time.perf_counter() - start
            self._finish_epoch(train_loss, validate, probe, seconds)
        except TrainingDivergedError:
            if self._earlier is not None and validate is None:
                good = self._earlier
                self.epoch -= 1
                self.history.pop()
                del self.probes[self.epoch :]
            load_state(self.model, good)
            raise
        self._earlier = good

    def _run_epoch(self, data):
        """Return the mean loss of the epoch's steps."""
        parts = self._batches(len(data), self.epoch)
        n_steps = len(parts)
        total = 0.0
        self.prepare(self.epoch)
        if hasattr(data, "begin"):
            data.begin(self.settings.first_epoch + self.epoch)
        self._begin_stream(self.epoch)
        with self._loader.batches(data, parts, self._stream) as batches:
            for step, batch in enumerate(batches):
                rate = self._scheduled_rate(self.epoch * n_steps + step, n_steps)
                self._set_rate(rate)
                total += self._step(batch, step) * len(parts[step][0])
                self._earlier = None
        if not self._has_finite_weights():
            # A finite loss can have an infinite gradient, as sqrt has at 0.
            self._diverged(n_steps - 1, "finite, but the weights were not")
        self._average_buffers()
        return total / len(data)

    def _batches(self, n, epoch):
        """Return the rows of each batch of an epoch, each with its generator."""
        number = self.settings.first_epoch + epoch
        rng = np.random.default_rng(seed_of(self.settings.seed, number))
        size = self.settings.batch_size
        n_steps = math.ceil(n / size)
        # All batches have nearly the same size, and one may be larger than `size` by
        # one: a last batch of one image would spoil batch normalization.
        if size > 1:
            n_steps = max(1, min(n_steps, n // 2))
        return [(rows, rng) for rows in np.array_split(rng.permutation(n), n_steps)]

    def _begin_stream(self, epoch):
        # Each process draws its own dropout, as the processes have different samples.
        number = self.settings.first_epoch + epoch
        seed = seed_of(self.settings.seed, number, 1 + self.processes.rank)
        self._stream = RandomStream(seed, self._device)

    def _scheduled_rate(self, step, n_steps):
        settings = self.settings
        n_total = n_steps * settings.n_epochs
        return settings.learning_rate * learning_rate_factor(
            settings.schedule, step, n_total, settings.warmup
        )

    def _set_rate(self, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]

    # -- One step

    @undisturbed_by_forks()
    def _step(self, batch, number):
        """Make one step; return its loss."""
        value = self._gradients.compute(*batch, self._stream)
        value = self.processes.sum(value)
        if not math.isfinite(value):
            self._diverged(number, value)
        parameters = self.learned_parameters()
        self.processes.add_gradients(parameters)
        if self.settings.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return value

    def learned_parameters(self):
        """Return the parameters of the optimizer, in its order."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _diverged(self, step, value):
        raise TrainingDivergedError(
            f"The loss was {value} in epoch {self._number}, step {step + 1} of the "
            f"{self.settings.phase}. The estimator has the weights of the last good "
            "epoch. Choose a smaller 'learning_rate' (now "
            f"{self.settings.learning_rate:g}), and check that all targets are "
            "finite."
        )

    def _has_finite_weights(self):
        # Running statistics overflow before the loss does. Other buffers may be
        # infinite by design, as masks are.
        statistics = [
            buffer
            for name, buffer in self.model.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        return all(
            bool(torch.isfinite(tensor).all())
            for tensor in [*self.learned_parameters(), *statistics]
        )

    def _average_buffers(self):
        """Give all processes the same running statistics."""
        self.processes.average(self.model.buffers())
        if self.average is not None:
            names = [name for name, _ in self.model.named_buffers()]
            self.processes.average(self.average.tensors[name] for name in names)

    # -- After an epoch

    @property
    def _number(self):
        """The number of the current epoch in the history, counted from 1."""
        return self.settings.first_epoch + self.epoch + 1

    def _finish_epoch(self, train_loss, validate, probe, seconds):
        record = {
            "phase": self.settings.phase,
            "epoch": self._number,
            "train_loss": train_loss,
            "validation_loss": math.nan,
            "validation_score": math.nan,
            "learning_rate": max(g["lr"] for g in self.optimizer.param_groups),
            "seconds": seconds,
        }
        if validate is not None:
            with self.averaged_model() as model:
                # The first process decides for all when to stop.
                loss, score = self.processes.same_for_all(validate(model))
            record |= {"validation_loss": loss, "validation_score": score}
            if score > self.best_score:
                self.best_score, self.best_epoch = score, self.epoch + 1
                self.best_state = self.state()
        if probe is not None:
            with self.averaged_model() as model:
                self.probes.append(self.processes.same_for_all(probe(model)))
        logger.info("%s epoch %d: %s", record["phase"], self._number, _in_words(record))
        self.epoch += 1
        self.history.append(record)

    @contextlib.contextmanager
    def averaged_model(self):
        """Give the model the averaged weights for the body of a ``with``."""
        if self.average is None:
            yield self.model
            return
        self.average.swap(self.model)
        try:
            yield self.model
        finally:
            self.average.swap(self.model)

    def _is_stalled(self):
        patience = self.settings.n_iter_no_change
        if patience is None or self.best_epoch is None:
            return False
        return self.epoch - self.best_epoch >= patience

    def _ends(self, wanted):
        """Return whether any process wants to end the run."""
        return self.processes.sum(float(bool(wanted))) > 0

    def _warn_of_interruption(self):
        self.interrupted = True
        warn(
            f"The training was interrupted after {self.epoch} of "
            f"{self.settings.n_epochs} epochs. The estimator is fitted, with the "
            "weights it had then.",
            RuntimeWarning,
        )

    def _bar(self):
        return progress_bar(
            total=self.settings.n_epochs,
            initial=self.epoch,
            desc=self.settings.phase,
            unit="epoch",
            disable=self.settings.verbose < 1 or self.processes.rank > 0,
        )


def _in_words(record):
    words = f"loss {record['train_loss']:.4g}"
    if not math.isnan(record["validation_score"]):
        words += f", validation score {record['validation_score']:.4f}"
    return words
