"""The steps of a decision: networks, layers, heads, learning curve, fine-tuning."""

import logging
import time

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor

from .._utils._parameter_errors import choice_error
from ._candidates import OTHER_HEADS, Candidate, make_head
from ._findings import GROWTH, GROWTH_LINEAR, Findings
from ._race import Race
from ._scores import cross_validate_head

logger = logging.getLogger(__name__)

# The fractions of the budget at which the steps should end. The time reserved for
# fine-tuning is used for the other steps if it would not be enough.
_UNTIL_NETWORKS = 0.45
_UNTIL_HEADS = 0.6
_UNTIL_RACE = 0.95


class Decision(Findings):
    """Makes a decision, step by step.

    Parameters
    ----------
    networks : list of Network
    problem : Problem
    clock : Clock
    on_row : callable
        ``on_row(row)`` is called for each row of the results.
    """

    def __init__(self, networks, problem, clock, on_row):
        super().__init__(problem)
        self.networks = list(networks)
        self.clock = clock
        self._on_row = on_row
        # Seconds for one more image in a step, which may be known from an earlier run.
        self._new_image_seconds = {}

    def run(self):
        """Decide, until the time is over."""
        try:
            self._run()
        finally:
            self.seconds = self.clock.elapsed

    def _run(self):
        self._measure_speeds()
        self._halve_networks()
        self._measure_speeds_again()
        for network in dict.fromkeys([self.recommended().network, self.best().network]):
            self._probe_layers(network)
        for base in self._best_of_networks():
            self._compare_heads(base)
        self._probe_layers(self.recommended().network)
        self._draw_learning_curve()
        self._score_chance()
        if not self.can_learn:
            self._skip("fine-tuning", "because there is nothing to learn")
        elif self._is_perfect():
            self._skip("fine-tuning", "because no score can be better")
        else:
            self._tune()

    def _left(self, fraction):
        """Return the seconds for a step that is to end at a fraction of the budget."""
        fastest = min(self._passes.speeds.values(), key=lambda speed: speed.now)
        if self.clock.left(_UNTIL_RACE) < Race.fewest_seconds(fastest):
            fraction = max(fraction, _UNTIL_RACE)
        return self.clock.left(fraction)

    def _measure_speeds(self):
        clock = self.clock
        measured = []
        for network in self.networks:
            if measured and clock.left(_UNTIL_NETWORKS / 2) < 0:
                self._skip(network.name)
                continue
            self._passes.measure_speed(network)
            measured.append(network)
        self.networks = measured
        first = self._sizes()[0]
        fastest = min(speed.now for speed in self._passes.speeds.values())
        # The fits take about as long again.
        needed = clock.elapsed + 2 * first * fastest
        if needed > clock.budget:
            raise ValueError(
                "The 'time_budget' parameter of TransferAdvisor must be at least about "
                f"{np.ceil(needed):.0f} seconds to score one candidate on {first} of "
                "these images. Give more time, fewer or faster networks, or a smaller "
                f"'image_size'. Got {clock.budget!r} instead."
            )

    def _measure_speeds_again(self):
        """Measure the networks that may be recommended once more, at another time."""
        for network in {one.network: None for one in self.pool()}:
            if self._left(_UNTIL_HEADS) > 0:
                self._passes.measure_speed(network)

    def _halve_networks(self):
        """Score networks on more and more images, and drop those that are worse.

        A network is as good as its best layer. This may not be the neck if the images
        are unlike those that the network was trained on.
        """
        alive = {network: None for network in self.networks}
        for n in self._sizes():
            if self.n:
                alive = self._affordable(alive, n)
            if not alive:
                break
            scores = {
                network: self._score_layers(network, layers, n)
                for network, layers in alive.items()
            }
            self.n = n
            best = {
                network: max(found.values(), key=lambda one: one.mean)
                for network, found in scores.items()
            }
            alive = {one: _survivors(scores[one]) for one in _survivors(best)}
            for network in set(scores) - set(alive):
                for key in [key for key in self._features if key[0] is network]:
                    del self._features[key]

    def _sizes(self):
        """Return the numbers of images to score the networks on."""
        n = len(self.problem)
        parts = [n // 8, n // 4, n // 2]
        return [*(one for one in parts if one >= self.problem.min_images), n]

    def _affordable(self, alive, n):
        """Return the networks, best first, that can be scored on n images in time."""
        scores = {
            network: [self._linear_scores(network, layer) for layer in layers]
            for network, layers in alive.items()
        }
        ranked = sorted(alive, key=lambda one: -max(s.mean for s in scores[one]))
        n_folds = len(self.problem.splits)
        growth = (n / self.n) ** GROWTH_LINEAR
        chosen, left = {}, self._left(_UNTIL_NETWORKS)
        for network in ranked:
            seconds = (n - self.n) * self._new_image_seconds[network]
            seconds += n_folds * growth * sum(s.fit_seconds for s in scores[network])
            if seconds < left:
                left -= seconds
                chosen[network] = alive[network]
                continue
            self._skip(f"{network.name} on {n} images")
            if not chosen:
                # The others would be compared without the best one.
                break
        return chosen

    def _score_layers(self, network, layers, n):
        """Return the scores of a linear model on layers, by name. None means all."""
        start = time.perf_counter()
        found = self._passes.extract(network, n)
        seconds = time.perf_counter() - start
        self._new_image_seconds[network] = seconds / (n - self.n)
        scores = {}
        for layer, features in zip(
            found.names[::-1], found.features[::-1], strict=True
        ):
            if layers is None or layer in layers:
                # The other layers stay in the cache.
                self._features[network, layer] = features
                candidate = Candidate(network, layer, self._linear)
                scores[layer] = self._score("network", candidate, n, seconds)
                seconds = 0.0
        return scores

    def _best_of_networks(self):
        """Return the best candidate of each network that is left, the best first."""
        best = {}
        pool = self.pool()
        for candidate in sorted(pool, key=lambda one: -pool[one].mean):
            # The features of the other networks have been discarded.
            if (candidate.network, candidate.layer) in self._features:
                best.setdefault(candidate.network, candidate)
        return list(best.values())

    def _probe_layers(self, network):
        """Score a linear model on each stage, from the last to the first."""
        found = self._passes.extract(network, self.n)
        layers = list(zip(found.names, found.features, strict=True))
        scores = {}
        for layer, features in layers[::-1]:
            candidate = Candidate(network, layer, self._linear)
            if (candidate, self.n) not in self.frozen:
                if self._left(_UNTIL_HEADS) < 0:
                    self._skip(str(candidate))
                    continue
                self._features[network, layer] = features
                self._score("layer", candidate, self.n)
            scores[layer] = self.frozen[candidate, self.n].mean
        # Of equally good layers, the first.
        self.layer_of[network] = max(reversed(scores), key=scores.get)

    def _compare_heads(self, base):
        """Score the other heads on the layer of a candidate."""
        network, layer = base.network, base.layer
        first = min(self._sizes()[0], self.n)
        linear = self._score("head", Candidate(network, layer, self._linear), first)
        for head in OTHER_HEADS:
            candidate = Candidate(network, layer, head)
            try:
                scores = self._score("head", candidate, first)
            except (
                AttributeError,
                NotImplementedError,
                TypeError,
                ValueError,
            ) as error:
                # Such as a score of probabilities, which an SVM does not have.
                self._skip(str(candidate), f"because of the error: {error}")
                continue
            # Two standard errors, because some heads need more images to become good.
            worse = linear.mean - scores.mean
            if first == self.n or worse > 2 * np.nan_to_num(linear.error):
                continue
            growth = (self.n / first) ** GROWTH.get(head, GROWTH_LINEAR)
            # Predicting all images takes longer by the same factor as fitting.
            seconds = len(self.problem.splits) * scores.fit_seconds
            seconds = growth * (seconds + first * scores.predict_seconds)
            if seconds > self._left(_UNTIL_HEADS):
                self._skip(f"{candidate} on {self.n} images")
                continue
            self._score("head", candidate, self.n)

    def _draw_learning_curve(self):
        """Score the best linear probe on a quarter, a half and all of the images."""
        best = max(
            (one for one in self.pool() if one.head == self._linear),
            key=lambda one: self.frozen[one, self.n].mean,
        )
        # The curve drops no candidate, so it may begin with fewer images. With very few
        # images in a fold, there may be no score.
        problem = self.problem
        fewest = max(problem.min_images // 4, 5 * len(problem.splits))
        for n in (self.n // 4, self.n // 2, self.n):
            if n == self.n or (n >= fewest and problem.has_folds(n)):
                self.curve[n] = self._score("learning curve", best, n)

    def _score_chance(self):
        """Score guesses, which do not look at the images."""
        problem, n = self.problem, self.n
        guesses = [DummyRegressor()]
        if problem.classifies:
            guesses = [
                DummyClassifier(strategy=one, random_state=problem.seed)
                for one in ("prior", "stratified")
            ]
        start = time.perf_counter()
        folds, y = problem.folds(n), problem.targets(n)
        found = [
            cross_validate_head(
                guess, np.zeros((n, 1)), y, folds, problem.scorer(guess)
            )
            for guess in guesses
        ]
        self.chance = max(found, key=lambda scores: scores.mean)
        self._note("chance", "a guess", self.chance, time.perf_counter() - start)

    def _tune(self):
        """Race fine-tuning against the recommended candidate."""
        base = self.recommended()
        self.race = Race(
            self.problem,
            base,
            self.frozen[base, self.n],
            self._features[base.network, base.layer][: self.n],
            self._networks_to_tune(base),
            self._passes.speeds,
            self._note,
        )
        self.race.run(self.clock, _UNTIL_RACE)
        if self.race.reason is not None:
            what = "more fine-tuning" if self.race.pool() else "fine-tuning"
            self._skip(what, self.race.reason)

    def _networks_to_tune(self, base):
        """Return the fastest network whose neck is nearly the best, and two others.

        The others are the network with the best neck and the network of `base`.

        Training starts from a linear head on the neck. With few images, it ends close
        to this start. So necks are compared instead of the best layers. All necks have
        been scored on the same first images.
        """
        n = self._sizes()[0]
        necks = {
            network: self.frozen[Candidate(network, "neck", self._linear), n]
            for network in self.networks
        }
        best = max(necks, key=lambda one: necks[one].mean)
        limit = necks[best].mean - np.nan_to_num(necks[best].error)
        within = [network for network in necks if necks[network].mean >= limit]
        fastest = min(within, key=lambda one: self._passes.speeds[one].now)
        return list(dict.fromkeys([fastest, best, base.network]))

    # -- Parts of the steps

    def _skip(self, what, reason="for lack of time"):
        self.not_tried.setdefault(reason, []).append(what)

    def _score(self, stage, candidate, n, seconds=0.0):
        """Return the scores of a candidate on known features, and note them."""
        start = time.perf_counter()
        problem = self.problem
        if (candidate, n) not in self.frozen:
            features = self._features[candidate.network, candidate.layer][:n]
            head = make_head(candidate.head, problem, features.shape[1])
            y, folds = problem.targets(n), problem.folds(n)
            self.frozen[candidate, n] = cross_validate_head(
                head, features, y, folds, problem.scorer(head)
            )
        scores = self.frozen[candidate, n]
        if np.isnan(scores.mean):
            wanted = (
                "a scorer that gives a number for each fold, and not NaN as for "
                f"{candidate} on {n} images"
            )
            raise choice_error("scoring", wanted, problem.scoring)
        seconds += time.perf_counter() - start
        self._note(stage, candidate, scores, seconds)
        return scores

    def _note(self, stage, candidate, scores, seconds):
        """Add a row to the results."""
        row = self.row(stage, candidate, scores, seconds)
        logger.info(
            "%s: %s on %d images: %.4f", stage, candidate, scores.n_images, scores.mean
        )
        self.rows.append(row)
        self._on_row(row)


def _survivors(scores):
    """Return the upper half, and all within one standard error of the best."""
    ranked = sorted(scores, key=lambda one: -scores[one].mean)
    best = scores[ranked[0]]
    limit = best.mean - np.nan_to_num(best.error)
    half = (len(ranked) + 1) // 2
    return [
        one for i, one in enumerate(ranked) if i < half or scores[one].mean >= limit
    ]
