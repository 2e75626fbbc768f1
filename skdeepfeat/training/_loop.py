"""The one training loop: epochs of steps, whatever is trained and on whatever data."""

import contextlib
import itertools
import logging
import math
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from .._utils._device import PRECISIONS, free_device_memory, is_out_of_memory
from .._utils._forks import undisturbed_by_forks
from .._utils._random import RandomStream
from ..exceptions import OutOfMemoryError, TrainingDivergedError
from ._processes import Processes
from ._schedules import learning_rate_factor

__all__ = ["LoopSettings", "TrainingRun", "copy_state", "seed_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How a run of epochs goes.

    Attributes
    ----------
    phase : str
        What the history calls it.
    n_epochs : int
    batch_size : int
        Samples in a step, over all processes.
    learning_rate : float
        The schedule's highest.
    schedule : str
    warmup : float
        Share of the run.
    max_grad_norm : float or None
        Longer gradients are cut down to this Euclidean length.
    precision : {"float32", "bfloat16", "float16"}
    mixup : float
        Parameter of the Beta distribution that pairs of samples are mixed by (Zhang et
        al. 2018); 0 does not mix.
    n_iter_no_change : int or None
        Epochs without a better validation score before the run ends; None: never.
    seed : int
    first_epoch : int
        How many epochs of earlier runs this one goes on from. The history counts on
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
    n_iter_no_change: int | None = None
    seed: int = 0
    first_epoch: int = 0
    verbose: int = 0


def seed_of(*numbers):
    """Return a seed that belongs to these numbers alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class TrainingRun:
    """A model, its optimizer and how far they are.

    All randomness of an epoch comes from the seed and the epoch's number, so a run that
    is continued ends where one that was never interrupted does.

    Parameters
    ----------
    model : Module
        On `device`.
    optimizer : torch.optim.Optimizer
        Its groups have a ``"share"``.
    loss : callable
        See `make_loss`.
    settings : LoopSettings
    device : torch.device
    processes : Processes or None, default=None
    average : WeightAverage or None, default=None
    prepare : callable, default=None
        ``prepare(epoch)`` is called before each epoch, to freeze what is to be frozen
        and to put modules into training mode.

    Attributes
    ----------
    epoch : int
        How many are done in this run.
    history : list of dict
        One for each epoch that is done.
    best_score : float
    best_epoch : int or None
        Counted in this run, from 1.
    best_state : dict of str to Tensor or None
        The weights (averaged, if there is an average) of the best epoch, on the CPU.
    interrupted : bool
    checkpoint_error : OSError or None
        Why a checkpoint could not be written, once that has been said.
    """

    def __init__(
        self, model, optimizer, loss, settings, device,
        processes=None, average=None, prepare=None,
    ):  # fmt: skip
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.settings = settings
        self.device = device
        self.processes = processes or Processes(device)
        self.average = average
        self.prepare = prepare or (lambda epoch: model.train())
        self.epoch = 0
        self.history = []
        self.best_score = -math.inf
        self.best_epoch = None
        self.best_state = None
        self.interrupted = False
        self.checkpoint_error = None
        self._stream = None
        # The weights before the last epoch, until a step has proven those after it.
        self._earlier = None
        # A batch may be larger by one; see `_batches`.
        self._largest_fit = settings.batch_size + 1
        enabled = settings.precision == "float16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)

    def fit(self, data, validate=None, after_epoch=None):
        """Train until the epochs are done, or the validation score no longer rises.

        Parameters
        ----------
        data : FeatureData or PixelData
        validate : callable, default=None
            ``validate(model) -> (loss, score)``, called after each epoch.
        after_epoch : callable, default=None
            ``after_epoch(run)``, to keep what should outlive a crash.

        Raises
        ------
        TrainingDivergedError
            If the loss is no longer a number. The model then has the weights of the
            last good epoch.
        OutOfMemoryError
            If not even one sample fits into the memory of the device.

        Warns
        -----
        RuntimeWarning
            After a KeyboardInterrupt, which ends the run and is not handed on.
        """
        self.processes.copy_from_first(self.model)
        if self.average is not None:
            self.processes.copy_from_first(self.average)
        with self._bar() as bar:
            try:
                while self.epoch < self.settings.n_epochs and not self._is_stalled():
                    self._run_good_epoch(data, validate)
                    if after_epoch is not None:
                        after_epoch(self)
                    bar.set_postfix_str(_in_words(self.history[-1]))
                    bar.update()
            except KeyboardInterrupt:
                self._stop_early()
        if self.settings.n_iter_no_change is not None and self.best_state is not None:
            self.load(self.best_state)
        else:
            self.load(self.state())

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
            The loss of each step, as it was before the step. They end before the
            first that is not a number.
        """
        losses = []
        self.prepare(0)
        self._begin_stream(0)
        steps = zip(learning_rates, self._endless(len(data)), strict=False)
        for rate, (rows, rng) in steps:
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            try:
                losses.append(self._step(data, rows, rng, len(losses)))
            except TrainingDivergedError:
                break
            if stop(losses):
                break
        return losses

    def _begin_stream(self, epoch):
        # Processes draw what they drop by themselves, as their samples differ.
        number = self.settings.first_epoch + epoch
        seed = seed_of(self.settings.seed, number, 1 + self.processes.rank)
        self._stream = RandomStream(seed, self.device)

    def _endless(self, n):
        """Yield the batches of one epoch after the other, with its generator."""
        for epoch in itertools.count():
            batches, rng = self._batches(n, epoch)
            yield from ((rows, rng) for rows in batches)

    def state(self):
        """Return the weights that the run stands for: the average's, if it has one."""
        if self.average is None:
            return copy_state(self.model)
        return {k: v.detach().cpu().clone() for k, v in self.average.tensors.items()}

    @torch.no_grad()
    def load(self, state):
        """Put weights, as `state` returns them, into the model."""
        for name, tensor in [
            *self.model.named_parameters(),
            *self.model.named_buffers(),
        ]:
            tensor.copy_(state[name])

    def _run_good_epoch(self, data, validate):
        good = self.state()
        start = time.perf_counter()
        try:
            train_loss = self._run_epoch(data)
            self._finish_epoch(train_loss, validate, time.perf_counter() - start)
        except TrainingDivergedError:
            if self._earlier is not None and validate is None:
                good = self._earlier
                self.epoch -= 1
                self.history.pop()
            self.load(good)
            raise
        # The weights that an epoch leaves are proven by the loss of the next step.
        self._earlier = good

    def _run_epoch(self, data):
        n = len(data)
        batches, rng = self._batches(n, self.epoch)
        n_steps = len(batches)
        total = 0.0
        self.prepare(self.epoch)
        self._begin_stream(self.epoch)
        for step, rows in enumerate(batches):
            self._set_rate(self.epoch * n_steps + step, n_steps)
            total += self._step(data, rows, rng, step) * len(rows)
            self._earlier = None
        if not self._has_finite_weights():
            # A finite loss can have a gradient that is not, as sqrt has at 0.
            self._diverged(n_steps - 1, "a number, but the weights were not")
        self._average_buffers()
        return total / n

    def _has_finite_weights(self):
        weights = [p for g in self.optimizer.param_groups for p in g["params"]]
        # Running statistics overflow before the loss does. Other buffers may be
        # infinite by design, as masks are.
        statistics = [
            buffer
            for name, buffer in self.model.named_buffers()
            if name.endswith(("running_mean", "running_var"))
        ]
        return all(bool(torch.isfinite(one).all()) for one in [*weights, *statistics])

    def _average_buffers(self):
        """Let all processes have the same running statistics."""
        self.processes.average(self.model.buffers())
        if self.average is not None:
            names = [name for name, _ in self.model.named_buffers()]
            self.processes.average(self.average.tensors[name] for name in names)

    def _batches(self, n, epoch):
        """Return the rows of each batch of an epoch, and the epoch's generator."""
        number = self.settings.first_epoch + epoch
        rng = np.random.default_rng(seed_of(self.settings.seed, number))
        size = self.settings.batch_size
        n_steps = math.ceil(n / size)
        # A few rows too many for full batches make all batches a bit smaller, or one
        # larger by one: a last batch of one would spoil batch normalization.
        if size > 1:
            n_steps = max(1, min(n_steps, n // 2))
        return np.array_split(rng.permutation(n), n_steps), rng

    def _set_rate(self, step, n_steps):
        settings = self.settings
        factor = learning_rate_factor(
            settings.schedule, step, n_steps * settings.n_epochs, settings.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor * group["share"]

    @undisturbed_by_forks()
    def _step(self, data, rows, rng, number):
        """Make one step; return its loss."""
        positions = np.arange(len(rows))[self.processes.share(len(rows))]
        mine = rows[positions]
        # Transforms draw from torch's generators. Also for no rows: the other one must
        # be at the same place in all processes.
        with self._stream.drawing():
            inputs = data.batch(mine, rng, positions, len(rows))
        targets, weights = data.targets[mine], data.weights[mine] / len(rows)
        mixing = self._mixing(rng, positions, len(rows))
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            value, cause = self._try_gradients(inputs, targets, weights, mixing)
            if cause is None:
                break
            self._shrink(cause, len(mine))
        value = self.processes.sum(value, self.device)
        if not math.isfinite(value):
            self._diverged(number, value)
        self._update()
        return value

    def _mixing(self, rng, positions, n_total):
        """Return (share, partners) of a batch's part, or None."""
        if self.settings.mixup == 0:
            return None
        share = float(rng.beta(self.settings.mixup, self.settings.mixup))
        # Drawn for the whole batch; partners are those of the own part, which are here.
        partners = np.argsort(rng.permutation(n_total)[positions])
        return share, torch.from_numpy(partners)

    def _try_gradients(self, inputs, targets, weights, mixing):
        """Return (loss, None), or (None, cause) where memory ran out."""
        value = 0.0
        try:
            for start in range(0, len(targets), self._largest_fit):
                part = slice(start, start + self._largest_fit)
                # What is dropped is drawn on the way forward; on the way back, other
                # threads' fits may draw theirs.
                with self._stream.drawing():
                    loss = self._loss_of(inputs, targets, weights, mixing, part)
                self.scaler.scale(loss).backward()
                value += float(loss.detach())
            return value, None
        except Exception as error:
            if _has_no_variance(error):
                self._refuse_small_batches(error, len(targets))
            if not is_out_of_memory(error):
                raise
            return None, str(error).partition("\n")[0][:200]

    def _refuse_small_batches(self, error, n):
        cause = f"Got batch_size={self.settings.batch_size} and a batch of {n} image(s)"
        if self._largest_fit < n:
            cause += f", only {self._largest_fit} of which fit in memory"
        raise ValueError(
            "The 'batch_size' parameter must be at least 2, with at least 2 images to "
            "train on for each process, where batch normalization learns from batches "
            "(freeze_batch_norm=False): this network has a batch normalization of maps "
            f"of one pixel, and one value has no variance. {cause}. Choose a larger "
            "'batch_size' or 'image_size', or freeze_batch_norm=True."
        ) from error

    def _loss_of(self, inputs, targets, weights, mixing, part):
        """Return the weighted loss of a part of a batch."""
        images, wanted = self._to(inputs[part]), self._to(targets[part])
        weight, dtype = self._to(weights[part]), PRECISIONS[self.settings.precision]
        autocast = torch.autocast(
            self.device.type, dtype=dtype, enabled=dtype != torch.float32
        )
        if mixing is None:
            with autocast:
                outputs = self.model(images)
            return (self.loss(outputs.float(), wanted) * weight).sum()
        share, partners = mixing[0], mixing[1][part]
        others = self._to(inputs[partners])
        if images.dtype == torch.uint8:
            images, others = images.float() / 255, others.float() / 255
        with autocast:
            outputs = self.model(images * share + others * (1 - share)).float()
        each = share * self.loss(outputs, wanted)
        each = each + (1 - share) * self.loss(outputs, self._to(targets[partners]))
        return (each * weight).sum()

    def _to(self, tensor):
        return tensor.to(self.device, non_blocking=True)

    def _update(self):
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.processes.add_gradients(parameters)
        if self.settings.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)

    def _shrink(self, cause, n):
        """Run the `n` samples of a batch, and later ones, in smaller parts."""
        free_device_memory(self.device)
        size = min(self._largest_fit, n)
        if size <= 1:
            raise OutOfMemoryError(
                f"Not even one image can be trained in the memory of {self.device} "
                f"({cause}). Choose a smaller 'image_size', a smaller 'model', fewer "
                "stages for 'unfreeze', precision='bfloat16' or device='cpu'."
            )
        self._largest_fit = size // 2
        logger.warning(
            "a batch does not fit into the memory of %s; going on with parts of %d "
            "images, whose gradients are added up",
            self.device,
            self._largest_fit,
        )

    def _diverged(self, step, value):
        raise TrainingDivergedError(
            f"The loss was {value} in epoch {self._number}, step {step + 1} of the "
            f"{self.settings.phase}. The estimator has the weights of the last good "
            "epoch. Choose a smaller 'learning_rate' (now "
            f"{self.settings.learning_rate:g}) or 'max_grad_norm', and look for "
            "targets that are not finite."
        )

    @property
    def _number(self):
        """The number of the current epoch in the history, counted from 1."""
        return self.settings.first_epoch + self.epoch + 1

    def _finish_epoch(self, train_loss, validate, seconds):
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
            with self._as_average():
                # One process decides for all when to stop.
                loss, score = self.processes.same_for_all(validate(self.model))
            record |= {"validation_loss": loss, "validation_score": score}
            if score > self.best_score:
                self.best_score, self.best_epoch = score, self.epoch + 1
                self.best_state = self.state()
        logger.info("%s epoch %d: %s", record["phase"], self._number, _in_words(record))
        self.epoch += 1
        self.history.append(record)

    @contextlib.contextmanager
    def _as_average(self):
        """Let the model have the average's weights for the time being."""
        if self.average is None:
            yield
            return
        self.average.swap(self.model)
        try:
            yield
        finally:
            self.average.swap(self.model)

    def _is_stalled(self):
        patience = self.settings.n_iter_no_change
        if patience is None or self.best_epoch is None:
            return False
        return self.epoch - self.best_epoch >= patience

    def _stop_early(self):
        self.interrupted = True
        warnings.warn(
            f"The training was interrupted after {self.epoch} of "
            f"{self.settings.n_epochs} epochs. The estimator is fitted, with the "
            "weights it had then.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _bar(self):
        return tqdm(
            total=self.settings.n_epochs,
            initial=self.epoch,
            desc=self.settings.phase,
            unit="epoch",
            disable=self.settings.verbose < 1 or self.processes.rank > 0,
        )


def _has_no_variance(error):
    """Whether torch refuses to normalize a batch that has one value per channel."""
    text = "more than 1 value per channel"
    return isinstance(error, ValueError) and text in str(error)


def copy_state(model):
    """Return a copy of the parameters and buffers, on the CPU."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors}


def _in_words(record):
    words = f"loss {record['train_loss']:.4g}"
    if not math.isnan(record["validation_score"]):
        words += f", validation score {record['validation_score']:.4f}"
    return words
