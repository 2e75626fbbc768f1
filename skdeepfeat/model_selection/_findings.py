"""What a decision has found so far, and which candidate is recommended."""

import numpy as np

from ._candidates import Candidate
from ._passes import Passes

# How the time of a fit grows with the number of samples, as a power.
GROWTH = {"RBF SVM": 2.0, "random forest": 1.3}
GROWTH_LINEAR = 1.5
# Labels can be learned if the best score is above chance by this many standard errors.
# The number is large, because the best of many scores is partly luck.
_ABOVE_CHANCE = 3.0
# Rates and times within this factor count as equal, because they vary as much on a busy
# machine.
_SAME = 1.25
_SAME_SECONDS = 1.0


class Findings:
    """Scores and times of candidates, and what they recommend.

    Parameters
    ----------
    problem : Problem

    Attributes
    ----------
    rows : list of dict
        The results so far.
    frozen : dict
        `Scores` by (candidate, number of images).
    n : int
        The number of images that the candidates were compared on; 0 at first.
    layer_of : dict of Network to str
        The best layer of the networks whose layers were probed.
    curve : dict of int to Scores
        The learning curve.
    chance : Scores or None
    race : Race or None
    not_tried : dict of str to list of str
        What was left out, for each reason.
    seconds : float
        How long the decision took.
    """

    def __init__(self, problem):
        self.problem = problem
        self.rows = []
        self.frozen = {}
        self.n = 0
        self.layer_of = {}
        self.curve = {}
        self.chance = None
        self.race = None
        self.seconds = 0.0
        self.not_tried = {}
        self._features = {}
        self._passes = Passes(problem)
        self._linear = "logistic" if problem.classifies else "ridge"

    def pool(self):
        """Return the candidates that were compared, with their scores.

        Returns
        -------
        dict of Candidate to Scores
            Candidates with a frozen network have their scores on `n` images. A
            fine-tuned candidate has the score of the candidate that it raced against,
            plus its gain.
        """
        found = {
            candidate: scores
            for (candidate, n), scores in self.frozen.items()
            if n == self.n
        }
        if self.race is not None:
            found |= self.race.pool()
        return found

    def recommended(self):
        """Return the cheapest candidate within one standard error of the best.

        The limit is the maximum of (score - standard error) over all candidates. It may
        not come from the best one: after a short race, the best score may have a large
        error, and a slightly lower score with a small error sets the limit.
        """
        pool = self.pool()
        limit = max(
            scores.mean - np.nan_to_num(scores.error) for scores in pool.values()
        )
        within = [one for one in pool if pool[one].mean >= limit]
        rate = max(map(self.images_per_second, within))
        within = [c for c in within if self.images_per_second(c) * _SAME >= rate]
        seconds = min(map(self.final_seconds, within))
        seconds = max(seconds * _SAME, seconds + _SAME_SECONDS)
        within = [one for one in within if self.final_seconds(one) <= seconds]
        # Ties go to the better one, and then to the faster one.
        return max(
            within, key=lambda one: (pool[one].mean, self.images_per_second(one))
        )

    def best(self):
        """Return the candidate with the highest score."""
        pool = self.pool()
        return max(pool, key=lambda one: pool[one].mean)

    def images_per_second(self, candidate):
        """Return how many images per second a candidate predicts."""
        seconds = self._passes.seconds_of_layer(candidate.network, candidate.layer)
        if not candidate.is_tuned:
            _, scores = self._latest(candidate)
            seconds += scores.predict_seconds
        return 1 / seconds

    def final_seconds(self, candidate):
        """Predict how long the final fit to all images takes."""
        n = len(self.problem)
        if candidate.is_tuned:
            return self.race.final_seconds(candidate)
        n_known, scores = self._latest(candidate)
        power = GROWTH.get(candidate.head, GROWTH_LINEAR)
        fit = scores.fit_seconds * (n / scores.n_train) ** power
        return fit + (n - n_known) * self._passes.speeds[candidate.network].now

    def _latest(self, candidate):
        n = max(n for one, n in self.frozen if one == candidate)
        return n, self.frozen[candidate, n]

    def where_best(self, network):
        """Return where along a network a linear model scores best.

        Returns
        -------
        layer : str
        depth : float
            The fraction of the network's operations up to this layer.
        is_similar : bool
            Whether the score of the neck is within one standard error of the best.
        """
        layer = self.layer_of[network]
        best = self._linear_scores(network, layer)
        neck = self._linear_scores(network, "neck")
        is_similar = neck.mean >= best.mean - np.nan_to_num(best.error)
        return layer, self._passes.depths[network][layer], is_similar

    @property
    def can_learn(self):
        """Whether the best score is clearly above that of a guess."""
        if self.chance is None:
            return True
        pool = self.pool()
        # The median, because one error from five folds is itself uncertain.
        error = np.nan_to_num(np.median([scores.error for scores in pool.values()]))
        error = np.hypot(error, np.nan_to_num(self.chance.error))
        best = pool[self.best()].mean
        return best - self.chance.mean > _ABOVE_CHANCE * error

    def _is_perfect(self):
        if self.problem.scoring is not None:
            return False
        scores = self.pool()[self.best()]
        return scores.mean + np.nan_to_num(scores.error) >= 1.0

    def _linear_scores(self, network, layer):
        return self.frozen[Candidate(network, layer, self._linear), self.n]

    def n_features(self, candidate):
        """Return the number of features of the layer of a candidate."""
        return self._features[candidate.network, candidate.layer].shape[1]

    def row(self, stage, candidate, scores, seconds=np.nan):
        """Return a row of the results, for a `Candidate` or ``"a guess"``."""
        is_one = isinstance(candidate, Candidate)
        rate = self.images_per_second(candidate) if is_one else np.nan
        return {
            "stage": stage,
            "candidate": str(candidate),
            "network": candidate.network.name if is_one else None,
            "layer": candidate.layer if is_one else None,
            "head": candidate.head if is_one else None,
            "unfreeze": candidate.unfreeze if is_one else None,
            "n_images": scores.n_images,
            "score": scores.mean,
            "standard_error": scores.error,
            "seconds": seconds,
            "images_per_second": rate,
            "fit_seconds": np.nan,
            "recommended": False,
        }
