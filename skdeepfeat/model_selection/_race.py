"""A short race: is a network worth training, and how much of it."""

import time
import warnings
from dataclasses import replace

import numpy as np

from ..exceptions import TrainingDivergedError
from ..fine_tuning import auto_epochs
from ..inspection import relative_gradient_norms
from ._candidates import Candidate, make_head, make_tuned
from ._scores import Scores

# Steps and epochs that a fit needs to reach its potential. With fewer steps than the
# second number, there is no race.
_STEPS, _FEWEST_STEPS = 100, 40
_EPOCHS = 8
_BATCH_SIZE = 32
# With this many scored images, differences of a few percent are visible.
_ENOUGH_TESTED = 400
# The test images of a fold are scored in several parts of at least this many images,
# to estimate the error of the score.
_N_PARTS, _N_IN_PART = 5, 8
_N_TRIAL, _N_TRIAL_EPOCHS = 64, 2
# Training on an image takes about as long as computing the features of this many.
_TRAINING = 6
# Predictions of time are off by this much.
_SAFETY = 0.8
# Stages are worth tuning if their relative gradient norm is at least this fraction of
# the largest one.
_LARGE_NORM = 0.5


class Race:
    """Fine-tuning against a head on frozen features, on the same images.

    It goes from fold to fold. After each one, candidates that are clearly behind the
    best drop out, so that the time goes to those that may still win (Maron and Moore,
    "Hoeffding races", NIPS 1993).

    Parameters
    ----------
    problem : Problem
    base : Candidate
        What to beat. It is not tuned.
    base_scores : Scores
        Of the base, on as many images as may be used.
    features : ndarray, shape (n_samples, n_features)
        Of the layer of the base, for images in the order of the problem.
    networks : list of Network
        The first one is tuned to several extents, the others as a whole.
    speeds : dict of Network to ImageSeconds
    note : callable
        ``note(stage, candidate, scores, seconds)`` adds a row to the results.

    Attributes
    ----------
    scores : dict of Candidate to Scores
        Of the base and what was tuned. The parts of a candidate that dropped out belong
        to the same images as the first parts of the base.
    n_tested : dict of Candidate to int
        On how many images each was scored.
    reason : str or None
        Why there was no race, or why it ended early.
    whole : Candidate
        All of the first network.
    n_train, n_epochs : int
    epoch_seconds : dict of Candidate to float
        For one image in one epoch.
    gradient_norms : DataFrame or None
        Of the first network, as `relative_gradient_norms` returns them.
    """

    def __init__(self, problem, base, base_scores, features, networks, speeds, note):
        self.problem = problem
        self.base = base
        self._base_scores = base_scores
        self._features = features
        self._speeds = speeds
        self._note = note
        self._networks = networks
        self.whole = Candidate(networks[0], unfreeze="all")
        self.scores = {}
        self.n_tested = {}
        self.reason = None
        self.n_train = self.n_epochs = 0
        self.epoch_seconds = {}
        self.gradient_norms = None
        self._overhead = 0.0
        self._seconds = {}

    @staticmethod
    def fewest_seconds(speed):
        """Return about how long the shortest race takes.

        Parameters
        ----------
        speed : ImageSeconds
            Of the network to be tuned.
        """
        return _FEWEST_STEPS * _BATCH_SIZE * _TRAINING * speed.now / _SAFETY

    def run(self, clock, until):
        """Run the race.

        Parameters
        ----------
        clock : Clock
        until : float
            The fraction of the budget at which it is to end.
        """
        folds = [
            (np.sort(train), np.sort(test))
            for train, test in self.problem.folds(len(self._features))
        ]
        try:
            if not self._plan(clock, until, folds):
                self.reason = "for lack of time"
                return
            self._run_folds(folds, clock, until)
        except (ValueError, TrainingDivergedError) as error:
            # Such as a network with weights in float16. What is known counts.
            self.reason = f"because of the error: {error}"
        finally:  # also after Ctrl-C
            for candidate, scores in self.scores.items():
                seconds = self._seconds[candidate]
                self._note("fine-tuning", candidate, scores, seconds)

    # -- What was found

    def pool(self):
        """Return the scores that tuned candidates would have on all images.

        The gain over the base is taken to be the same as in the race. The error is that
        of the gain: it is known better than the score, as both have the same images.

        Returns
        -------
        dict of Candidate to Scores
        """
        return {
            candidate: replace(
                scores, parts=self._base_scores.mean + self.gain(candidate).parts
            )
            for candidate, scores in self.scores.items()
            if candidate != self.base
        }

    def gain(self, candidate):
        """Return the gain over the base on the same images, and its standard error."""
        return self._difference(candidate, self.base)

    @property
    def candidates(self):
        """In the order in which they run: time may be left for some of them only."""
        first, *others = self._networks
        found = [self.whole, Candidate(first), Candidate(first, unfreeze=1)]
        found += [Candidate(network, unfreeze="all") for network in others]
        if (stages := self.stages()) is not None:
            found.append(Candidate(first, unfreeze=stages))
        return found

    def stages(self):
        """Return the stages with large relative gradient norms, as for `unfreeze`.

        Returns
        -------
        tuple of int or None
            None if these are all stages, or only the last one.
        """
        if self.gradient_norms is None:
            return None
        norms = self.gradient_norms["relative_norm"].drop("head").fillna(0.0)
        large = norms.index[norms >= _LARGE_NORM * norms.max()]
        if len(large) == len(norms) or list(large) == [norms.index[-1]]:
            return None
        return tuple(int(stage) for stage in large)

    def final_seconds(self, candidate):
        """Predict how long a fit to all images takes."""
        n = len(self.problem)
        return self._training_seconds(candidate, n, auto_epochs(n, _BATCH_SIZE))

    # -- The steps

    def _plan(self, clock, until, folds):
        """Choose images and epochs; return whether the time is enough."""
        speed = self._speeds[self.whole.network]
        if clock.left(until) < self.fewest_seconds(speed):
            return False
        positions = folds[0][0][:_N_TRIAL]
        for unfreeze in (1, "all"):
            start = time.perf_counter()
            candidate = Candidate(self.whole.network, unfreeze=unfreeze)
            self._fit(candidate, positions, n_epochs=_N_TRIAL_EPOCHS)
            training = _N_TRIAL_EPOCHS * len(positions) * self.epoch_seconds[candidate]
            self._overhead = time.perf_counter() - start - training
        self._measure_gradients(positions)
        n_tested = np.mean([len(test) for _, test in folds])
        left = _SAFETY * clock.left(until) - n_tested * speed.now
        # The number of images that one fit can train, counted in each epoch.
        n_images = left / self.epoch_seconds[self.whole]
        if n_images < _FEWEST_STEPS * _BATCH_SIZE:
            return False
        # Half of the time is for the other candidates and folds, unless the first fit
        # needs more to show what it can do.
        n_images = max(n_images / 2, min(n_images, _STEPS * _BATCH_SIZE))
        n_most = min(len(train) for train, _ in folds)
        self.n_train = int(min(n_most, n_images / _EPOCHS))
        most_epochs = auto_epochs(self.n_train, _BATCH_SIZE)
        self.n_epochs = int(min(n_images / self.n_train, most_epochs))
        return True

    def _measure_gradients(self, positions):
        problem = self.problem
        indices = problem.order[positions]
        self.gradient_norms = relative_gradient_norms(
            make_tuned(self.whole, problem),
            problem.images(indices),
            problem.y[indices],
            n_samples=len(positions),
        )

    def _run_folds(self, folds, clock, until):
        """Score the candidates on one fold after the other, while there is time."""
        alive = self.candidates
        for train, test in folds:
            # Candidates that miss a fold cannot return: their images would differ.
            entered, alive = alive, []
            for candidate in entered:
                seconds = self._fit_seconds(candidate, len(train), len(test))
                if seconds > clock.left(until):
                    self.reason = "for lack of time"
                    continue
                if not alive:
                    self._score(self.base, train, test)
                self._score(candidate, train, test)
                alive.append(candidate)
            if not alive or self.n_tested[self.base] >= _ENOUGH_TESTED:
                break
            alive = self._not_behind(alive)

    def _not_behind(self, candidates):
        """Return the candidates within one standard error of the best."""
        best = max([self.base, *candidates], key=lambda one: self.scores[one].mean)
        return [
            candidate
            for candidate in candidates
            if not (behind := self._difference(best, candidate)).mean > behind.error
        ]

    def _difference(self, one, other):
        """Return the difference of the scores on the images that both have."""
        parts = self.scores[one].parts, self.scores[other].parts
        n = min(map(len, parts))
        return Scores(parts[0][:n] - parts[1][:n], 0, 0)

    def _fit_seconds(self, candidate, n_train, n_tested):
        """Predict how long a fit in the race takes."""
        n_images = min(n_train, self.n_train)
        seconds = self._training_seconds(candidate, n_images, self.n_epochs)
        return seconds + n_tested * self._speeds[candidate.network].now

    def _training_seconds(self, candidate, n_images, n_epochs):
        speed = self._speeds[candidate.network].now
        # Other networks take longer by as much as they do for features.
        factor = speed / self._speeds[self.whole.network].now
        seconds = n_images * speed + factor * self._overhead
        if candidate.unfreeze is not None:
            whole = factor * self.epoch_seconds[self.whole]
            epoch = n_images * self.epoch_seconds.get(candidate, whole)
            seconds += n_epochs * epoch
        return seconds

    def _score(self, candidate, train, test):
        """Fit a candidate on a fold, and add the scores of parts of the test set."""
        problem = self.problem
        # Positions are in a fair order, so that the parts are fair samples.
        n_parts = int(np.clip(len(test) // _N_IN_PART, 1, _N_PARTS))
        parts = [test[i::n_parts] for i in range(n_parts)]
        y = problem.targets(len(self._features))
        train = train[: self.n_train]
        start = time.perf_counter()
        if candidate.is_tuned:
            model = self._fit(candidate, train, self.n_epochs)
            inputs = [problem.images(problem.order[part]) for part in parts]
        else:
            model = make_head(candidate.head, problem, self._features.shape[1])
            model.fit(self._features[train], y[train])
            inputs = [self._features[part] for part in parts]
        scorer = problem.scorer(model)
        scores = [
            scorer(model, X, y[part]) for X, part in zip(inputs, parts, strict=True)
        ]
        seconds = time.perf_counter() - start
        if candidate in self.scores:
            scores = [*self.scores[candidate].parts, *scores]
        self.scores[candidate] = Scores(
            np.array(scores, float), self.n_train, self.n_train
        )
        self.n_tested[candidate] = self.n_tested.get(candidate, 0) + len(test)
        self._seconds[candidate] = self._seconds.get(candidate, 0.0) + seconds

    def _fit(self, candidate, positions, n_epochs):
        problem = self.problem
        indices = problem.order[positions]
        model = make_tuned(candidate, problem, n_epochs)
        with warnings.catch_warnings():
            # It is raised again below.
            warnings.filterwarnings("ignore", ".* was interrupted", RuntimeWarning)
            model.fit(problem.images(indices), problem.y[indices])
        if candidate.unfreeze is None:
            return model
        if model.n_epochs_ < n_epochs:
            raise KeyboardInterrupt
        body = model.history_[model.history_["phase"] == "body"]
        # The first epoch also warms up.
        seconds = body["seconds"].iloc[-n_epochs // 2 :].mean()
        self.epoch_seconds[candidate] = seconds / len(positions)
        return model
