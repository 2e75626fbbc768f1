"""A short race: is the network worth training, and how much of it."""

import time
import warnings

import numpy as np

from ..exceptions import TrainingDivergedError
from ..fine_tuning import auto_epochs
from ._candidates import Candidate, make_head, make_tuned
from ._scores import Scores

__all__ = ["Race"]

# What a fit needs to show what it can do: steps, and epochs. With fewer steps than the
# second number, there is no race.
_STEPS, _FEWEST_STEPS = 100, 40
_EPOCHS = 8
_BATCH_SIZE = 32
# With so many scored images, differences of a few percent show.
_ENOUGH_TESTED = 400
# Test images are scored in at least so many parts, whose scores give an error.
_N_PARTS = 5
_N_TRIAL = 64
# An image that is trained takes about as long as so many whose features are computed.
_TRAINING = 6
# Predictions of time are off by this much.
_SAFETY = 0.8


class Race:
    """Fine-tuning against a head on frozen features, on the same images.

    Parameters
    ----------
    problem : Problem
    base : Candidate
        What to beat. It is not tuned.
    base_scores : Scores
        Of the base, on as many images as may be used.
    features : ndarray, shape (n_samples, n_features)
        Of the layer of the base, for images in the order of the problem.
    speed : ImageSeconds
        Of the network.
    note : callable
        ``note(stage, candidate, scores, seconds)`` adds a row to the results.

    Attributes
    ----------
    scores : dict of Candidate to Scores
        Of the base and what was tuned, on the same parts of the images.
    reason : str or None
        Why there was no race.
    n_train, n_epochs, n_folds, n_tested : int
    epoch_seconds : dict of Candidate to float
        For one image in one epoch.
    """

    def __init__(self, problem, base, base_scores, features, speed, note):
        self.problem = problem
        self.base = base
        self._base_scores = base_scores
        self._features = features
        self._speed = speed
        self._note = note
        self.candidates = [
            Candidate(base.network, unfreeze=one) for one in (None, 1, "all")
        ]
        self.epoch_seconds = {self.candidates[0]: 0.0}
        self.scores = {}
        self.reason = None
        self.n_train = self.n_epochs = self.n_folds = self.n_tested = 0
        self._overhead = 0.0
        self._parts = {}
        self._seconds = {}

    def run(self, clock, until):
        """Run the race.

        Parameters
        ----------
        clock : Clock
        until : float
            The fraction of the budget at which it is to end.
        """
        folds = self.problem.folds(len(self._features))
        try:
            if not self._is_planned(clock, until, folds):
                self.reason = "for lack of time"
                return
        except (ValueError, TrainingDivergedError) as error:
            self.reason = f"because it failed: {error}"
            return
        try:
            for train, test in folds[: self.n_folds]:
                start = time.perf_counter()
                self._run_fold(np.sort(train)[: self.n_train], np.sort(test))
                self._keep_scores()
                self.n_tested += len(test)
                if time.perf_counter() - start > clock.left(until):
                    break
        finally:  # also after Ctrl-C
            self._note_scores()

    def pool(self):
        """Return the scores that tuned candidates would have on all images.

        The gain over the base is taken to be the same as in the race.

        Returns
        -------
        dict of Candidate to Scores
        """
        if not self.scores:
            return {}
        shift = self._base_scores.mean - self.scores[self.base].mean
        return {
            candidate: Scores(
                scores.parts + shift, scores.n_images, scores.n_train, np.nan
            )
            for candidate, scores in self.scores.items()
            if candidate is not self.base
        }

    def gain(self, candidate):
        """Return the gain over the base, and its standard error."""
        parts = self.scores[candidate].parts - self.scores[self.base].parts
        return Scores(parts, 0, 0, 0.0)

    def final_seconds(self, candidate):
        """Predict how long a fit to all images takes."""
        n = len(self.problem)
        n_epochs = auto_epochs(n, _BATCH_SIZE)
        return (
            n * n_epochs * self.epoch_seconds[candidate]
            + n * self._speed.now
            + self._overhead * n / _N_TRIAL
        )

    def _is_planned(self, clock, until, folds):
        """Choose folds, images and epochs; return whether the time is enough."""
        trial = _TRAINING * _N_TRIAL * self._speed.now
        if clock.left(until) < 4 * trial:
            return False
        n_most = min(len(train) for train, _ in folds)
        for candidate in self.candidates[1:]:
            self._time_epoch(candidate, np.sort(folds[0][0])[:_N_TRIAL])
        seconds = sum(self.epoch_seconds.values())
        n_tested = np.mean([len(test) for _, test in folds])
        per_fold = 2 * n_tested * self._speed.now
        n_folds = int(min(len(folds), np.ceil(_ENOUGH_TESTED / n_tested)))
        for self.n_folds in range(n_folds, 0, -1):
            # The number of images that can be trained, counted in each epoch.
            left = _SAFETY * clock.left(until) / self.n_folds - per_fold
            n_images = left / seconds
            fewest = _STEPS if self.n_folds > 1 else _FEWEST_STEPS
            if n_images >= fewest * _BATCH_SIZE:
                break
        else:
            return False
        self.n_train = int(min(n_most, n_images / _EPOCHS))
        n_epochs = int(n_images / self.n_train)
        self.n_epochs = min(n_epochs, auto_epochs(self.n_train, _BATCH_SIZE))
        return True

    def _time_epoch(self, candidate, rows):
        start = time.perf_counter()
        model = self._fit(candidate, rows, n_epochs=1)
        seconds = model.history_.query("phase == 'body'")["seconds"].sum()
        self.epoch_seconds[candidate] = seconds / len(rows)
        self._overhead = time.perf_counter() - start - seconds

    def _fit(self, candidate, rows, n_epochs):
        problem = self.problem
        indices = problem.order[rows]
        model = make_tuned(candidate, problem.classifies, problem.seed, n_epochs)
        with warnings.catch_warnings():
            # It is raised again below.
            warnings.filterwarnings("ignore", ".* was interrupted", RuntimeWarning)
            model.fit(problem.images(indices), problem.y[indices])
        if candidate.unfreeze is not None and model.n_epochs_ < n_epochs:
            raise KeyboardInterrupt
        return model

    def _run_fold(self, train, test):
        problem = self.problem
        n_parts = int(np.ceil(_N_PARTS / self.n_folds))
        n_parts = min(n_parts, len(test))
        parts = [test[i::n_parts] for i in range(n_parts)]
        y = problem.targets(len(self._features))
        found = {}
        start = time.perf_counter()
        head = make_head(
            self.base.head, problem.classifies, self._features.shape[1], problem.seed
        )
        head.fit(self._features[train], y[train])
        scorer = problem.scorer(head)
        found[self.base] = [
            scorer(head, self._features[part], y[part]) for part in parts
        ]
        self._add_seconds(self.base, start)
        for candidate in self.candidates:
            start = time.perf_counter()
            model = self._fit(candidate, train, self.n_epochs)
            scorer = problem.scorer(model)
            found[candidate] = [
                scorer(model, problem.images(problem.order[part]), y[part])
                for part in parts
            ]
            self._add_seconds(candidate, start)
        # Only complete folds count, so that all are scored on the same images.
        for candidate, scores in found.items():
            self._parts.setdefault(candidate, []).extend(scores)

    def _add_seconds(self, candidate, start):
        seconds = time.perf_counter() - start
        self._seconds[candidate] = self._seconds.get(candidate, 0.0) + seconds

    def _note_scores(self):
        for candidate, scores in self.scores.items():
            self._note("fine-tuning", candidate, scores, self._seconds[candidate])

    def _keep_scores(self):
        for candidate, parts in self._parts.items():
            self.scores[candidate] = Scores(
                np.array(parts, float), self.n_train, self.n_train, np.nan
            )
