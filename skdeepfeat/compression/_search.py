"""How far a network is made smaller: until the score has dropped as far as it may."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

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


_NO_LIMITS = Limits(-np.inf)


@dataclass(frozen=True)
class Method:
    """A way to make networks smaller.

    Attributes
    ----------
    search : callable
        ``search(subject, model, limits, n_epochs, criterion)`` returns the `Outcome`
        that goes as far as the limits allow.
    walk : callable
        ``walk(subject, model, n_steps, n_epochs, criterion)`` yields outcomes, each
        smaller than the one before, at most `n_steps`.
    """

    search: Callable
    walk: Callable


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


# -- Factorizations


def _factorization(method):
    """Return the `Method` of a factorization."""

    def search(subject, model, limits, n_epochs, criterion):
        path = _Path(subject, model, method)
        if limits.max_bytes is None:
            return path.smallest_kept(limits, n_epochs)
        return path.largest_that_fits(limits, n_epochs)

    def walk(subject, model, n_steps, n_epochs, criterion):
        return _Path(subject, model, method).walk(n_steps, n_epochs)

    return Method(search, walk)


class _Path:
    """The levels of a factorization."""

    def __init__(self, subject, model, method):
        self._subject, self._model, self._method = subject, model, method
        factorization = FACTORIZATIONS[method]
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
            raise _nothing_to_compress(method, model)
        saved = np.cumsum([step.saved for step in self._steps])
        wanted = np.linspace(0, saved[-1], _N_LEVELS + 1)[1:]
        ends = np.searchsorted(saved, wanted * (1 - 1e-12)) + 1
        # Level 0 is the network as it is.
        self._ends = [0, *sorted(set(ends.tolist()))]

    def smallest_kept(self, limits, n_epochs):
        """Return the last level whose score is high enough, by bisection."""
        low, high = 0, len(self._ends)
        best = Outcome(self._model)
        try:
            while high - low > 1:
                level = (low + high) // 2
                found = self._candidate(level, limits, n_epochs)
                if found.is_kept:
                    low, best = level, found
                else:
                    high = level
                    if not best.is_kept and _is_better(found, best):
                        best = found
        except KeyboardInterrupt:
            if not best.is_kept:
                raise
            best.interrupted = True
        return best

    def largest_that_fits(self, limits, n_epochs):
        """Return the first level whose file is small enough."""
        low, high = -1, len(self._ends) - 1
        while high - low > 1:
            level = (low + high) // 2
            if self._build(level).n_bytes <= limits.max_bytes:
                high = level
            else:
                low = level
        return self._candidate(high, limits, n_epochs)

    def walk(self, n_steps, n_epochs):
        """Yield the outcomes of some levels, from the largest to the smallest."""
        last = len(self._ends) - 1
        levels = np.linspace(last / n_steps, last, n_steps).round().astype(int)
        for level in sorted(set(levels.tolist()) - {0}):
            yield self._candidate(level, _NO_LIMITS, n_epochs)

    def _build(self, level):
        model = copy.deepcopy(self._model)
        for name, option in options_after(self._steps, self._ends[level]).items():
            apply_option(model.network, name, option)
        return model

    def _candidate(self, level, limits, n_epochs):
        options = options_after(self._steps, self._ends[level])
        errors = {name: option.error**0.5 for name, option in options.items()}
        found = _scored(self._subject, self._build(level), limits, n_epochs)
        found.errors, found.notes = errors, self._notes
        logger.info(
            "%s, level %d of %d: score %.4f",
            self._method,
            level,
            len(self._ends) - 1,
            found.score,
        )
        return found


# -- Pruning


def _prune(subject, model, limits, n_epochs, criterion):
    """Remove channels in rounds, and train after each."""
    groups, notes = _prunable_groups(subject, model)
    smallest = [one.n_channels for one in groups]
    first = len(changes_of(model.network))
    kept = Outcome(copy.deepcopy(model), notes=notes, is_kept=True)
    shares = iter(_ROUND_SHARES)
    share, last = next(shares), Outcome(model)
    try:
        for number in range(_MAX_ROUNDS):
            fits = limits.max_bytes is None or (kept.model.n_bytes <= limits.max_bytes)
            if limits.max_bytes is not None and fits:
                break
            found, after = _pruned(
                subject,
                kept.model,
                groups,
                smallest,
                share,
                n_epochs,
                criterion,
                limits,
            )
            if found is None:
                break
            logger.info("prune, round %d: score %.4f", number + 1, found.score)
            if found.is_kept or limits.max_bytes is not None:
                kept, groups = found, after
                continue
            if kept.score is None and _is_better(found, last):
                last = found
            if (share := next(shares, None)) is None:
                break
    except KeyboardInterrupt:
        if kept.score is None or not kept.is_kept:
            raise
        kept.interrupted = True
    if kept.score is None and limits.max_bytes is None:
        kept = last  # not even the first round kept the score
    if kept.score is None:
        kept.score = subject.score(kept.model)
    merge_resizings(kept.model.network, first)
    kept.notes = notes
    return kept


def _walk_pruning(subject, model, n_steps, n_epochs, criterion):
    groups, _ = _prunable_groups(subject, model)
    smallest = [one.n_channels for one in groups]
    share = 1 - (1 - _WALKED_SHARE) ** (1 / n_steps)
    for _ in range(n_steps):
        found, groups = _pruned(
            subject, model, groups, smallest, share, n_epochs, criterion, _NO_LIMITS
        )
        if found is None:
            return
        yield found
        model = found.model


def _prunable_groups(subject, model):
    """Return the groups without an obstacle, and the obstacles by name of the layer."""
    images = next(batches_of(subject.pixels))[:2]
    groups = find_channel_groups(model.body, images)
    notes = {name: one.obstacle for one in groups for name in one.producers}
    groups = [one for one in groups if not one.obstacle]
    if not groups:
        raise _nothing_to_compress("prune", model, notes.values())
    return groups, notes


def _pruned(subject, model, groups, smallest, share, n_epochs, criterion, limits):
    """Return the outcome of a round and the groups after it, or None at the end."""
    importances = channel_importances(
        model,
        groups,
        subject.pixels,
        subject.targets,
        subject.loss,
        subject.task,
        criterion,
    )
    chosen = choose_channels(
        model, groups, importances, smallest, share, subject.pixels
    )
    if chosen is None:
        return None, groups
    model = copy.deepcopy(model)
    after = []
    for group, channels in zip(groups, chosen, strict=True):
        group = group.copy()
        if len(channels) < group.n_channels:
            remove_channels(model.network, group, channels)
        after.append(group)
    return _scored(subject, model, limits, n_epochs), after


# -- Single weights


def _zero_weights(subject, model, limits, n_epochs, criterion):
    """Set single weights to zero in rounds, without training."""
    best = Outcome(model)
    try:
        for found in _zeroed(subject, model, _ZERO_SHARES, limits):
            if not found.is_kept:
                if best.score is None and _is_better(found, best):
                    best = found
                break
            best = found
    except KeyboardInterrupt:
        if not best.is_kept:
            raise
        best.interrupted = True
    return best


def _walk_zeros(subject, model, n_steps, n_epochs, criterion):
    shares = np.linspace(_ZERO_SHARES[0], _ZERO_SHARES[-1], n_steps)
    return _zeroed(subject, model, shares, _NO_LIMITS)


def _zeroed(subject, model, shares, limits):
    """Yield outcomes of Optimal Brain Damage, with growing shares of zeros."""
    names = [name for name, one in model.network.named_parameters() if one.ndim > 1]
    model = copy.deepcopy(model)
    pixels = subject.pixels[:_MAX_CURVATURE_IMAGES]
    for share in shares:
        weights = [model.network.get_parameter(name) for name in names]
        curvatures = weight_curvatures(model, weights, pixels, subject.task)
        saliencies = [
            (curvature + _DAMPING * curvature.mean()) * weight.square() / 2
            for curvature, weight in zip(curvatures, weights, strict=True)
        ]
        _zero_smallest(weights, saliencies, share)
        yield _scored(subject, copy.deepcopy(model), limits, 0)


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


# A new method is an entry here.
METHODS = {
    **{name: _factorization(name) for name in FACTORIZATIONS},
    "prune": Method(_prune, _walk_pruning),
    "obd_weights": Method(_zero_weights, _walk_zeros),
}


def _scored(subject, model, limits, n_epochs):
    """Score a candidate, and train it if that helps.

    The score that decides is the one that is reported, which makes it a little too
    good. `compress` says so. Images of their own for this choice would leave fewer for
    the training and for the score.
    """
    zero_subnormal(model.network)
    score = _score_or_worst(subject, model)
    if n_epochs:
        trained, trained_score = _trained(subject, model, n_epochs)
        # Training on few images, or at a high rate, may do harm.
        if not score > trained_score:
            model, score = trained, trained_score
    fits = limits.max_bytes is None or model.n_bytes <= limits.max_bytes
    return Outcome(model, score, fits and score >= limits.lowest_score)


def _trained(subject, model, n_epochs):
    """Return a model that was trained, and its score."""
    try:
        trained = subject.train(model, n_epochs)
    except TrainingDivergedError as error:
        logger.info("training a candidate failed: %s", error)
        return model, -np.inf
    zero_subnormal(trained.network)
    return trained, _score_or_worst(subject, trained)


def _score_or_worst(subject, model):
    """Return the score of a model. One that returns NaN has the worst."""
    try:
        score = subject.score(model)
    except NonFiniteOutputError as error:
        logger.info("a candidate has no score: %s", error)
        return -np.inf
    return score if np.isfinite(score) else -np.inf


def _is_better(found, best):
    return found.score > (-np.inf if best.score is None else best.score)


def _nothing_to_compress(method, model, reasons=()):
    reason = f" ({'; '.join(sorted(set(reasons)))})" if reasons else ""
    return NothingToCompressError(
        f"The 'method' parameter, {method!r}, finds nothing to make "
        f"smaller in {type(model.network).__name__}{reason}. Choose another of "
        f"{sorted(METHODS)}."
    )
