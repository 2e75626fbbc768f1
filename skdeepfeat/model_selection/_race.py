"""A short race: is the network worth training, and how much of it."""

import time
import warnings

import numpy as np

from ..exceptions import TrainingDivergedError
from ..fine_tuning import auto_epochs
from ..inspection import relative_gradient_norms
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
# Stages whose relative gradient norm is at least this fraction of the largest one want
# to change.
_LARGE_NORM = 0.5


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
        Why there was no race, or why it ended early.
    n_train, n_epochs, n_folds, n_tested : int
    epoch_seconds : dict of Candidate to float
        For one image in one epoch.
    gradient_norms : DataFrame or None
        As `relative_gradient_norms` returns them.
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
        self.scores = {}
        self.reason = None
        self.n_train = self.n_epochs = self.n_folds = self.n_tested = 0
        self.epoch_seconds = {}
        self.gradient_norms = None
        self._overhead = 0.0
        self._seconds = {}

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
            folds = folds[: self.n_folds]
            self._run_folds(folds, clock, until)
            self._race_stages(folds, clock, until)
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
            if candidate != self.base
        }

    def gain(self, candidate):
        """Return the gain over the base, and its standard error."""
        parts = self.scores[candidate].parts - self.scores[self.base].parts
        return Scores(parts, 0, 0, np.nan)

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
        seconds = self._speed.now + self._overhead / _N_TRIAL
        if candidate.unfreeze is not None:
            seconds += auto_epochs(n, _BATCH_SIZE) * self.epoch_seconds[candidate]
        return n * seconds

    # -- The steps

    def _plan(self, clock, until, folds):
        """Choose folds, images and epochs; return whether the time is enough."""
        trial = _TRAINING * _N_TRIAL * self._speed.now
        if clock.left(until) < 4 * trial:
            return False
        positions = folds[0][0][:_N_TRIAL]
        for candidate in self.candidates[1:]:
            start = time.perf_counter()
            self._fit(candidate, positions, n_epochs=1)
            training = len(positions) * self.epoch_seconds[candidate]
            self._overhead = time.perf_counter() - start - training
        self._measure_gradients(positions)
        seconds = sum(self.epoch_seconds.values())
        n_tested = np.mean([len(test) for _, test in folds])
        # Each fold is predicted by three networks.
        testing = 3 * n_tested * self._speed.now
        n_folds = int(min(len(folds), np.ceil(_ENOUGH_TESTED / n_tested)))
        for self.n_folds in range(n_folds, 0, -1):
            left = _SAFETY * clock.left(until) / self.n_folds - testing
            # The number of images that can be trained, counted in each epoch.
            n_images = left / seconds
            fewest = _STEPS if self.n_folds > 1 else _FEWEST_STEPS
            if n_images >= fewest * _BATCH_SIZE:
                break
        else:
            self.n_folds = 0
            return False
        n_most = min(len(train) for train, _ in folds)
        self.n_train = int(min(n_most, n_images / _EPOCHS))
        most_epochs = auto_epochs(self.n_train, _BATCH_SIZE)
        self.n_epochs = int(min(n_images / self.n_train, most_epochs))
        return True

    def _measure_gradients(self, positions):
        problem, whole = self.problem, self.candidates[-1]
        indices = problem.order[positions]
        self.gradient_norms = relative_gradient_norms(
            make_tuned(whole, problem.classifies, problem.seed),
            problem.images(indices),
            problem.y[indices],
            n_samples=len(positions),
        )

    def _run_folds(self, folds, clock, until):
        """Score all candidates on one fold after the other, while there is time."""
        done = 0
        for train, test in folds:
            start = time.perf_counter()
            found = {
                candidate: self._score(candidate, train, test)
                for candidate in (self.base, *self.candidates)
            }
            # Only complete folds count, so that all are scored on the same images.
            for candidate, scores in found.items():
                self._add(candidate, scores)
            done += 1
            self.n_tested += len(test)
            if time.perf_counter() - start > clock.left(until):
                break
        del folds[done:]

    def _race_stages(self, folds, clock, until):
        """Score training only the stages that want to change, if there is time."""
        candidate = Candidate(self.base.network, unfreeze=self.stages())
        expected = self._seconds[self.candidates[-1]]
        if candidate.unfreeze is None or expected > clock.left(until):
            return
        scores = [self._score(candidate, train, test) for train, test in folds]
        self._add(candidate, np.concatenate(scores))

    def _score(self, candidate, train, test):
        """Fit a candidate on a fold and return the scores of parts of the test set."""
        problem = self.problem
        # Positions are in a fair order, so that the parts are fair samples.
        n_parts = min(int(np.ceil(_N_PARTS / self.n_folds)), len(test))
        parts = [test[i::n_parts] for i in range(n_parts)]
        y = problem.targets(len(self._features))
        train = train[: self.n_train]
        start = time.perf_counter()
        if candidate.is_tuned:
            model = self._fit(candidate, train, self.n_epochs)
            inputs = [problem.images(problem.order[part]) for part in parts]
        else:
            n_features = self._features.shape[1]
            model = make_head(
                candidate.head, problem.classifies, n_features, problem.seed
            )
            model.fit(self._features[train], y[train])
            inputs = [self._features[part] for part in parts]
        scorer = problem.scorer(model)
        scores = [
            scorer(model, X, y[part]) for X, part in zip(inputs, parts, strict=True)
        ]
        seconds = time.perf_counter() - start
        self._seconds[candidate] = self._seconds.get(candidate, 0.0) + seconds
        return np.array(scores, float)

    def _fit(self, candidate, positions, n_epochs):
        problem = self.problem
        indices = problem.order[positions]
        model = make_tuned(candidate, problem.classifies, problem.seed, n_epochs)
        with warnings.catch_warnings():
            # It is raised again below.
            warnings.filterwarnings("ignore", ".* was interrupted", RuntimeWarning)
            model.fit(problem.images(indices), problem.y[indices])
        if candidate.unfreeze is None:
            return model
        if model.n_epochs_ < n_epochs:
            raise KeyboardInterrupt
        body = model.history_[model.history_["phase"] == "body"]
        seconds = body["seconds"].sum() / (n_epochs * len(positions))
        self.epoch_seconds[candidate] = seconds
        return model

    def _add(self, candidate, parts):
        if candidate in self.scores:
            parts = np.concatenate([self.scores[candidate].parts, parts])
        self.scores[candidate] = Scores(parts, self.n_train, self.n_train, np.nan)
