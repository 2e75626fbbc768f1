"""How far a network is made smaller: until the score has dropped as far as it may."""

import bisect
import copy
import functools
import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..exceptions import NonFiniteOutputError, TrainingDivergedError
from ..networks import changes_of, merge_resizings, zero_subnormal
from ._channels import find_channel_groups, remove_channels
from ._criteria import channel_importances, weight_curvatures
from ._factorizations import FACTORIZATIONS, apply_option
from ._layers import LayerUse, batches_of, observe_layers, replaceable_layers
from ._path import greedy_path, options_after
from ._pruning import choose_channels

logger = logging.getLogger(__name__)

# Levels of a factorization; 5 candidates find the best of 31.
_N_LEVELS = 31

# A round of pruning removes this share of the multiply-adds. After a round that loses
# too much, a smaller one is tried.
_ROUND_SHARES = (0.15, 0.05)
_MAX_ROUNDS = 40
# Total fraction that the rounds of a curve remove.
_WALKED_SHARE = 0.8

# Shares of the weights that are zero after each round.
_ZERO_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
# A unit that no image activates has no curvature, but without its large weights it may
# come to life. So a little of the layer's mean curvature is added.
_DAMPING = 0.01

# Number of images for second derivatives, which are computed one by one.
_MAX_CURVATURE_IMAGES = 64


class NothingToCompressError(ValueError):
    """A method finds nothing to make smaller."""


@dataclass(frozen=True)
class Limits:
    """What must hold.

    Attributes
    ----------
    lowest_score : float
    max_bytes : int or None
        If given, the largest network that fits is wanted, whatever its score.
    """

    lowest_score: float
    max_bytes: int | None = None

    def fits(self, model):
        """Return whether a model has few enough bytes."""
        return self.max_bytes is None or model.n_bytes <= self.max_bytes


_NO_LIMITS = Limits(-np.inf)


@dataclass(eq=False)
class Outcome:
    """A smaller model.

    Attributes
    ----------
    model : Model
    score : float or None
        Of the validation part; None if there is no candidate yet.
    is_kept : bool
        Whether the limits hold.
    interrupted : bool
    errors : dict of str to float
        Relative errors of layers.
    notes : dict of str to str
        Why layers are as they were.
    """

    model: object
    score: float | None = None
    is_kept: bool = False
    interrupted: bool = False
    errors: dict | None = None
    notes: dict | None = None

    def is_better_than(self, other):
        """Return whether the score is above that of another outcome, if it has one."""
        return self.score > (-np.inf if other.score is None else other.score)


class _Best:
    """The last outcome that is kept, else the one with the best score so far.

    Ctrl-C ends the body of its ``with``, unless no outcome is kept yet.

    Parameters
    ----------
    model : Model
        The outcome before the first offer.
    """

    def __init__(self, model):
        self.outcome = Outcome(model)

    def offer(self, found):
        """Consider an outcome; return whether it is kept."""
        is_better = not self.outcome.is_kept and found.is_better_than(self.outcome)
        if found.is_kept or is_better:
            self.outcome = found
        return found.is_kept

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.outcome.interrupted = isinstance(error, KeyboardInterrupt)
        return self.outcome.interrupted and self.outcome.is_kept


class Method:
    """A way to make a network smaller.

    * ``search(limits)`` returns the `Outcome` that goes as far as the limits allow;
    * ``walk(n_steps)`` yields outcomes, each smaller than the one before, at most
      `n_steps`.

    Parameters
    ----------
    subject : TunedSubject or ExtractorSubject
    model : Model
        It is not changed.
    criterion : str
        A key of `CRITERIA`.

    Raises
    ------
    NothingToCompressError
    """

    _trains = True

    def __init__(self, subject, model, criterion):
        self._subject = subject
        self._model = model
        self._criterion = criterion

    def _scored(self, model, limits):
        """Score a candidate, and train it if that helps.

        The score that decides is the one that is reported, which makes it a little too
        good. `compress` says so. Images of their own for this choice would leave fewer
        for the training and for the score.
        """
        zero_subnormal(model.network)
        score = self._score_or_worst(model)
        if self._trains and self._subject.n_epochs:
            trained, trained_score = self._trained(model)
            # Training on few images, or at a high rate, may do harm.
            if not score > trained_score:
                model, score = trained, trained_score
        is_kept = limits.fits(model) and score >= limits.lowest_score
        return Outcome(model, score, is_kept)

    def _trained(self, model):
        """Return a model that was trained, and its score."""
        try:
            trained = self._subject.train(model)
        except TrainingDivergedError as error:
            logger.info("training a candidate failed: %s", error)
            return model, -np.inf
        zero_subnormal(trained.network)
        return trained, self._score_or_worst(trained)

    def _score_or_worst(self, model):
        """Return the score of a model. One that returns NaN has the worst."""
        try:
            score = self._subject.score(model)
        except NonFiniteOutputError as error:
            logger.info("a candidate has no score: %s", error)
            return -np.inf
        return score if np.isfinite(score) else -np.inf


class _Factorization(Method):
    """Replace layers by smaller ones, in levels."""

    def __init__(self, subject, model, criterion, *, name):
        super().__init__(subject, model, criterion)
        self._name = name
        factorization = FACTORIZATIONS[name]
        images = next(batches_of(subject.pixels))[:2]
        uses = replaceable_layers(model.body, images)
        if factorization.sees_images:
            batches = batches_of(subject.pixels)
            observe_layers(model.body, uses, batches, LayerUse.record)
        options = [list(factorization.options(use)) for use in uses]
        self._steps = greedy_path(uses, options, factorization.cost)
        self._notes = {
            use.name: "" if choices else "no factorization would save anything"
            for use, choices in zip(uses, options, strict=True)
        }
        if not self._steps:
            raise _nothing_to_compress(name, model)
        saved = np.cumsum([step.saved for step in self._steps])
        wanted = np.linspace(0, saved[-1], _N_LEVELS + 1)[1:]
        ends = np.searchsorted(saved, wanted * (1 - 1e-12)) + 1
        # Level 0 is the network as it is.
        self._ends = [0, *sorted(set(ends.tolist()))]
        self._last = len(self._ends) - 1

    def search(self, limits):
        if limits.max_bytes is None:
            return self._smallest_kept(limits)
        # The first level whose file is small enough.
        level = bisect.bisect_left(
            range(self._last), True, key=lambda one: limits.fits(self._build(one))
        )
        return self._candidate(level, limits)

    def _smallest_kept(self, limits):
        """Return the last level whose score is high enough, by bisection."""
        low, high = 0, self._last + 1
        with _Best(self._model) as best:
            while high - low > 1:
                level = (low + high) // 2
                if best.offer(self._candidate(level, limits)):
                    low = level
                else:
                    high = level
        return best.outcome

    def walk(self, n_steps):
        first = self._last / n_steps
        levels = np.linspace(first, self._last, n_steps).round().astype(int)
        for level in sorted(set(levels.tolist()) - {0}):
            yield self._candidate(level, _NO_LIMITS)

    def _build(self, level):
        model = copy.deepcopy(self._model)
        for name, option in options_after(self._steps, self._ends[level]).items():
            apply_option(model.network, name, option)
        return model

    def _candidate(self, level, limits):
        options = options_after(self._steps, self._ends[level])
        found = self._scored(self._build(level), limits)
        found.errors = {name: option.error**0.5 for name, option in options.items()}
        found.notes = self._notes
        place = f"level {level} of {self._last}"
        logger.info("%s, %s: score %.4f", self._name, place, found.score)
        return found


class _Pruning(Method):
    """Remove channels in rounds, and train after each."""

    def __init__(self, subject, model, criterion):
        super().__init__(subject, model, criterion)
        images = next(batches_of(subject.pixels))[:2]
        groups = find_channel_groups(model.body, images)
        self._notes = {name: one.obstacle for one in groups for name in one.producers}
        self._groups = [one for one in groups if not one.obstacle]
        if not self._groups:
            raise _nothing_to_compress("prune", model, self._notes.values())
        self._sizes = [one.n_channels for one in self._groups]

    def search(self, limits):
        model, groups = self._model, self._groups
        first = len(changes_of(model.network))
        has_limit = limits.max_bytes is not None
        shares = iter(_ROUND_SHARES)
        share = next(shares)
        with _Best(copy.deepcopy(model)) as best:
            for number in range(_MAX_ROUNDS):
                if has_limit and limits.fits(model):
                    break
                found, after = self._round(model, groups, share, limits)
                if found is None:
                    break
                logger.info("prune, round %d: score %.4f", number + 1, found.score)
                if best.offer(found) or has_limit:
                    best.outcome = found  # whatever its score, if there is a limit
                    model, groups = found.model, after
                elif (share := next(shares, None)) is None:
                    break
        best.outcome.notes = self._notes
        merge_resizings(best.outcome.model.network, first)
        return best.outcome

    def walk(self, n_steps):
        model, groups = self._model, self._groups
        share = 1 - (1 - _WALKED_SHARE) ** (1 / n_steps)
        for _ in range(n_steps):
            found, groups = self._round(model, groups, share, _NO_LIMITS)
            if found is None:
                return
            yield found
            model = found.model

    def _round(self, model, groups, share, limits):
        """Return the outcome of a round and the groups after it, or None at the end."""
        subject = self._subject
        importances = channel_importances(
            model, groups, subject.pixels, subject.targets, subject.loss, subject.task,
            self._criterion,
        )  # fmt: skip
        chosen = choose_channels(
            model, groups, importances, self._sizes, share, subject.pixels
        )
        if chosen is None:
            return None, groups
        model = copy.deepcopy(model)
        after = []
        for group, channels in zip(groups, chosen, strict=True):
            group = replace(group)  # it loses channels on its own
            if len(channels) < group.n_channels:
                remove_channels(model.network, group, channels)
            after.append(group)
        return self._scored(model, limits), after


class _ZeroWeights(Method):
    """Set single weights to zero in rounds, without training."""

    _trains = False

    def search(self, limits):
        with _Best(self._model) as best:
            for found in self._rounds(_ZERO_SHARES, limits):
                if not best.offer(found):
                    break
        return best.outcome

    def walk(self, n_steps):
        shares = np.linspace(_ZERO_SHARES[0], _ZERO_SHARES[-1], n_steps)
        return self._rounds(shares, _NO_LIMITS)

    def _rounds(self, shares, limits):
        """Yield outcomes of Optimal Brain Damage, with growing shares of zeros."""
        model, task = copy.deepcopy(self._model), self._subject.task
        weights = [one for one in model.network.parameters() if one.ndim > 1]
        pixels = self._subject.pixels[:_MAX_CURVATURE_IMAGES]
        for share in shares:
            curvatures = weight_curvatures(model, weights, pixels, task)
            saliencies = [
                (curvature + _DAMPING * curvature.mean()) * weight.square() / 2
                for curvature, weight in zip(curvatures, weights, strict=True)
            ]
            _zero_smallest(weights, saliencies, share)
            yield self._scored(copy.deepcopy(model), limits)


@torch.no_grad()
def _zero_smallest(weights, saliencies, share):
    flat = torch.cat([one.flatten() for one in saliencies])
    # Those that are zero already come first.
    flat[torch.cat([one.flatten() for one in weights]) == 0] = -1
    order = flat.argsort()[: int(share * len(flat))]
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[order] = True
    sizes = [one.numel() for one in weights]
    for weight, part in zip(weights, gone.split(sizes), strict=True):
        weight.masked_fill_(part.reshape(weight.shape), 0)


# A new method is an entry here, called as ``method(subject, model, criterion)``.
METHODS = {
    **{name: functools.partial(_Factorization, name=name) for name in FACTORIZATIONS},
    "prune": _Pruning,
    "obd_weights": _ZeroWeights,
}


def _nothing_to_compress(method, model, reasons=()):
    reason = f" ({'; '.join(sorted(set(reasons)))})" if reasons else ""
    return NothingToCompressError(
        f"The 'method' parameter, {method!r}, finds nothing to make "
        f"smaller in {type(model.network).__name__}{reason}. Choose another of "
        f"{sorted(METHODS)}."
    )
