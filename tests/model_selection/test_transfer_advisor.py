"""TransferAdvisor: what it decides, what it shows, and what it refuses."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import CountingStages, OddNet, SmallNet, fix_weights, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import (
    check_do_not_raise_errors_in_init_or_set_params,
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    NonFiniteOutputError,
    PretrainedFeatureExtractor,
    TrainingDivergedError,
)
from skdeepfeat.feature_extraction import ImageSeconds, _speed
from skdeepfeat.model_selection import TransferAdvisor, _decision, _passes, _race
from skdeepfeat.model_selection._scores import Scores

GEOMETRY = {"resize": (16, 16), "crop": (16, 16), "interpolation": "bilinear"}
EXTRACTOR = PretrainedFeatureExtractor(preprocessing=GEOMETRY, cache=None)
DIGITS = load_digits()


def digits(n, classes=10):
    """Return gray images in [0, 1], and labels."""
    kept = np.flatnonzero(DIGITS.target < classes)[:n]
    return DIGITS.images[kept] / 16, DIGITS.target[kept]


def make_advisor(models=None, **params):
    """Return an advisor that has all the time that it needs."""
    defaults = {
        "models": [SmallNet()] if models is None else models,
        "time_budget": 10_000,
        "cv": 3,
        "extractor": EXTRACTOR,
        "random_state": 0,
    }
    return TransferAdvisor(**(defaults | params))


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """Shorten the timing, because the speed of the machine does not matter here."""
    monkeypatch.setattr(_speed, "_SECONDS", 0.02)
    monkeypatch.setattr(_speed, "_N_REPEATS", 2)


@pytest.fixture
def no_race(monkeypatch):
    """Let no time be left for fine-tuning."""
    monkeypatch.setattr(_decision, "_UNTIL_RACE", 0.0)


@pytest.fixture
def short_race(monkeypatch):
    """Let the race train for a few steps."""
    monkeypatch.setattr(_race, "auto_epochs", lambda n_images, batch_size: 2)


def stage(advisor, name):
    return advisor.results_[advisor.results_["stage"] == name]


def recommended_row(advisor):
    [row] = advisor.results_[advisor.results_["recommended"]].to_dict("records")
    return row


# -- What it decides


def test_recommendation_is_the_cheapest_within_one_standard_error(no_race):
    X, y = digits(200)
    advisor = make_advisor([SmallNet(), nn.Sequential(SmallNet().stem, Pool(6))])
    advisor.fit(X, y)
    pool, chosen = stage(advisor, "decision"), recommended_row(advisor)
    limit = (pool["score"] - pool["standard_error"]).max()
    within = pool[pool["score"] >= limit]
    assert chosen["candidate"] in set(within["candidate"])
    rates = within["images_per_second"]
    # Rates count as equal within 25 %.
    assert chosen["images_per_second"] * 1.25 >= rates.max()
    assert chosen["candidate"] in advisor.recommendation_


def test_a_best_score_that_is_known_badly_does_not_lower_the_bar(monkeypatch):
    parts = {"tuned": [1.02, 0.92], "good": [0.961, 0.959], "fast": [0.941, 0.939]}
    pool = {one: Scores(np.array(p), 0, 0, 0.0) for one, p in parts.items()}
    rates = {"tuned": 1.0, "good": 1.0, "fast": 100.0}
    costs = {"tuned": 100.0, "good": 1.0, "fast": 1.0}
    Decision = _decision.Decision
    monkeypatch.setattr(Decision, "pool", lambda self: pool)
    monkeypatch.setattr(Decision, "images_per_second", lambda self, one: rates[one])
    monkeypatch.setattr(Decision, "final_seconds", lambda self, one: costs[one])
    assert Decision.recommended(object.__new__(Decision)) == "good"


class Pool(nn.Module):
    """Average the positions; one linear layer behind."""

    def __init__(self, n_features):
        super().__init__()
        self.head = nn.Linear(n_features, 3)
        fix_weights(self)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


@pytest.mark.slow
def test_copies_of_a_network_tie(no_race):
    X, y = digits(200, classes=3)
    advisor = make_advisor([SmallNet(), SmallNet()]).fit(X, y)
    scores = stage(advisor, "network").pivot_table(
        index=["n_images", "layer"], columns="network", values="score"
    )
    assert scores.columns.tolist() == ["SmallNet #1", "SmallNet #2"]
    assert_array_equal(scores["SmallNet #1"], scores["SmallNet #2"])


class Forgetful(SmallNet):
    """Its neck knows nothing, and the layers before it do."""

    def forward(self, x):
        maps = self.last(self.stem(x).relu()).relu()
        return self.head(0 * maps.mean((2, 3)) + 1)


def test_a_network_is_as_good_as_its_best_layer(no_race):
    X, y = digits(200)
    weak = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    advisor = make_advisor([weak, Forgetful()]).fit(X, y)
    chosen = recommended_row(advisor)
    assert chosen["network"] == "Forgetful"
    assert chosen["layer"] in ("stem", "last")
    assert "are unlike those" in advisor.recommendation_


@pytest.mark.slow
def test_a_random_network_loses(no_race):
    X, y = digits(200, classes=4)
    extractor = PretrainedFeatureExtractor(image_size=64)
    models = [clone(extractor).set_params(weights="random"), "efficientnet_lite0"]
    advisor = make_advisor(models, extractor=extractor).fit(X, y)
    assert recommended_row(advisor)["network"] == "efficientnet_lite0"
    scores = stage(advisor, "network").groupby("network")["score"].max()
    assert scores["efficientnet_lite0, random"] < scores["efficientnet_lite0"]


@pytest.mark.slow
@pytest.mark.parametrize("scoring", [None, "f1_macro"])
def test_labels_that_mean_nothing(scoring):
    X, y = digits(200)
    y = np.random.default_rng(1).permutation(y)
    advisor = make_advisor(scoring=scoring).fit(X, y)
    assert advisor.recommendation_.startswith("Nothing to learn here")
    assert "Do the labels belong" in advisor.recommendation_
    assert stage(advisor, "fine-tuning").empty
    assert advisor.predict(X[:2]).shape == (2,)


def test_numbers_that_mean_nothing(no_race):
    X, _ = digits(150)
    y = np.random.default_rng(0).normal(size=len(X))
    advisor = make_advisor().fit(X, y)
    assert advisor.recommendation_.startswith("Nothing to learn here")
    assert is_regressor(advisor)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_fine_tuning_is_raced_and_recommended_if_it_wins(gain, short_race, monkeypatch):
    difference = _race.Race._difference

    def difference_with_gain(self, one, other):
        found = difference(self, one, other)
        extra = gain * ((one.unfreeze == 1) - (other.unfreeze == 1))
        return replace(found, parts=found.parts + extra)

    monkeypatch.setattr(_race.Race, "_difference", difference_with_gain)
    X, y = digits(200, classes=4)
    advisor = make_advisor(cv=2, refit=False).fit(X, y)
    race, pool = stage(advisor, "fine-tuning"), stage(advisor, "decision")
    assert set(map(str, race["unfreeze"])) >= {"None", "1", "all"}
    assert race["n_images"].nunique() == 1
    assert "Learning curve" in advisor.recommendation_
    assert list(advisor.gradient_norms_.index) == [0, 1, "head"]
    seconds = pool.set_index("candidate")["fit_seconds"]
    assert seconds["SmallNet, unfreeze='all'"] > seconds.min()
    if gain:
        assert "Fine-tuning is worth it" in advisor.recommendation_
        assert isinstance(advisor.recommended_estimator_, FineTuneClassifier)
        assert advisor.recommended_estimator_.unfreeze == 1
        # On the same images, the gain is that over the candidate that is not tuned.
        base = race.iloc[0]
        tuned = race[race["unfreeze"] == 1].iloc[0]
        known = pool.set_index("candidate")["score"]
        expected = known[base["candidate"]] + tuned["score"] - base["score"] + gain
        assert_allclose(known[tuned["candidate"]], expected)
    else:
        assert "not shown to help" in advisor.recommendation_


@pytest.fixture
def known_scores(monkeypatch):
    """Let the race find given scores, without training. Return the fits."""
    fits, table = [], {}

    def score(self, candidate, train, test):
        mean = 0.5
        if candidate.is_tuned:
            fits.append((candidate.network.name, candidate.unfreeze))
            mean = table[fits[-1]]
        known = self.scores.get(candidate, Scores(np.empty(0), 0, 0, 0.0)).parts
        parts = np.r_[known, mean + np.linspace(-0.01, 0.01, 5)]
        self.scores[candidate] = Scores(parts, self.n_train, self.n_train, 0.0)
        self.n_tested[candidate] = self.n_tested.get(candidate, 0) + len(test)
        self._seconds[candidate] = 0.0

    monkeypatch.setattr(_race.Race, "_score", score)
    return fits, table


@pytest.mark.slow
def test_what_is_clearly_behind_drops_out_of_the_race(short_race, known_scores):
    fits, table = known_scores
    gains = {None: 0.4, 1: 0.7, "all": 0.7, (1,): 0.1, (0,): 0.1}
    table.update({("SmallNet", unfreeze): gain for unfreeze, gain in gains.items()})
    X, y = digits(200, classes=4)
    advisor = make_advisor(cv=3, refit=False).fit(X, y)
    tuned = [unfreeze for _, unfreeze in fits]
    assert tuned.count("all") == tuned.count(1) == 3
    assert advisor.recommended_estimator_.unfreeze in (1, "all")
    # What dropped out is compared on the images that it was scored on.
    pool = stage(advisor, "decision").set_index("candidate")["score"]
    gain = pool["SmallNet, unfreeze='all'"] - pool["SmallNet, unfreeze=None"]
    assert_allclose(gain, 0.3)


@pytest.mark.slow
def test_the_race_ends_if_no_tuned_network_keeps_up(short_race, known_scores):
    fits, table = known_scores
    table.update({("SmallNet", one): 0.3 for one in (None, 1, "all", (0,))})
    X, y = digits(200, classes=4)
    advisor = make_advisor(cv=3, refit=False).fit(X, y)
    assert fits.count(("SmallNet", "all")) == 1
    assert isinstance(advisor.recommended_estimator_, Pipeline)


@pytest.mark.slow
def test_a_race_without_time_for_a_fit(short_race, monkeypatch):
    monkeypatch.setattr(_race.Race, "_fit_seconds", lambda *args: np.inf)
    X, y = digits(200, classes=4)
    advisor = make_advisor(cv=3, refit=False).fit(X, y)
    assert stage(advisor, "fine-tuning").empty
    assert "Not tried for lack of time: fine-tuning" in advisor.recommendation_


def test_the_network_with_the_best_neck_is_tuned(short_race, known_scores):
    """Which is not the one with the best layer."""
    fits, table = known_scores
    networks = "SmallNet", "Forgetful"
    stages = None, 1, "all", (0,), (1,)
    table.update({(name, one): 0.5 for name in networks for one in stages})
    X, y = digits(200)
    advisor = make_advisor([Forgetful(), SmallNet()], cv=2, refit=False).fit(X, y)
    assert set(stage(advisor, "head")["network"]) == set(networks)
    assert fits[0] == ("SmallNet", "all")


@pytest.mark.slow
@pytest.mark.parametrize("n_complete", [0, 1])
def test_training_that_diverges_ends_the_race_only(n_complete, short_race, monkeypatch):
    fit, fits = _race.Race._fit, []

    def fit_or_diverge(self, candidate, positions, n_epochs):
        if self.n_epochs:  # the race itself, with three fits for each fold
            fits.append(candidate)
        if len(fits) > 3 * n_complete:
            raise TrainingDivergedError("the loss is NaN")
        return fit(self, candidate, positions, n_epochs)

    monkeypatch.setattr(_race.Race, "_fit", fit_or_diverge)
    monkeypatch.setattr(_race.Race, "_not_behind", lambda self, candidates: candidates)
    X, y = digits(200, classes=4)
    advisor = make_advisor(cv=2, refit=False).fit(X, y)
    assert len(fits) == 3 * n_complete + 1
    race = stage(advisor, "fine-tuning")
    assert (race["head"] == "fine-tuned").sum() == 3 * n_complete
    assert "because of the error: the loss is NaN" in advisor.recommendation_
    assert not stage(advisor, "decision").empty


def test_a_perfect_score_needs_no_race():
    X = np.zeros((60, 16, 16, 3), np.uint8)
    X[::2] = 255
    advisor = make_advisor(cv=2).fit(X, np.arange(60) % 2)
    assert stage(advisor, "fine-tuning").empty
    assert "no score can be better" in advisor.recommendation_


def test_regression(no_race):
    X, _ = digits(200)
    y = X.mean(axis=(1, 2)) * 100
    advisor = make_advisor().fit(X, y)
    assert is_regressor(advisor)
    assert set(advisor.results_["head"].dropna()) >= {"ridge", "RBF SVM"}
    assert advisor.score(X, y) > 0.9
    assert "R²" in advisor.recommendation_


def test_integers_may_be_numbers(no_race):
    X, y = digits(100)
    advisor = make_advisor(task="regression").fit(X, y)
    assert is_regressor(advisor)
    assert set(advisor.predict(X)) - set(range(10))


def test_several_targets(no_race):
    X, _ = digits(100)
    y = np.stack([X.mean((1, 2)), X[:, :4].mean((1, 2))], axis=1)
    advisor = make_advisor().fit(X, y)
    assert advisor.predict(X[:5]).shape == (5, 2)
    assert "RBF SVM" not in set(stage(advisor, "decision")["head"])


# -- How it goes about it


def test_each_image_goes_through_a_network_once(tmp_path, monkeypatch):
    """Apart from measuring the speed, and without fine-tuning."""
    speed = ImageSeconds(1e-4, 1e-4)
    monkeypatch.setattr(_passes, "seconds_per_image", lambda *args: speed)
    monkeypatch.setattr(_decision, "_UNTIL_RACE", 0.0)
    X, y = digits(150)
    geometry = {"resize": (32, 32), "crop": (32, 32), "interpolation": "bilinear"}
    extractor = clone(EXTRACTOR).set_params(preprocessing=geometry)
    model = CountingStages(tmp_path / "log")
    advisor = make_advisor([model], extractor=extractor).fit(X, y)
    assert rows_counted(tmp_path / "log") == len(X)
    assert stage(advisor, "decision")["layer"].nunique() >= 3
    # The user's extractor had no cache, and so has the result.
    assert advisor.best_estimator_.named_steps["extractor"].cache is None


def test_what_there_is_no_time_for_is_said(monkeypatch, no_race):
    monkeypatch.setattr(_decision, "_UNTIL_NETWORKS", 0.0)
    X, y = digits(200, classes=3)
    advisor = make_advisor([SmallNet(), SmallNet()]).fit(X, y)
    assert set(stage(advisor, "network")["n_images"]) == {100}
    assert "Not tried for lack of time: SmallNet #2" in advisor.recommendation_
    assert "compared on 100 of 200 images" in advisor.recommendation_


@pytest.mark.slow
def test_time_that_is_not_enough_for_fine_tuning_is_used(monkeypatch):
    monkeypatch.setattr(_decision, "_UNTIL_NETWORKS", 0.0)
    monkeypatch.setattr(_decision, "_UNTIL_HEADS", 0.0)
    monkeypatch.setattr(_race, "_FEWEST_STEPS", 1e9)
    X, y = digits(200, classes=3)
    advisor = make_advisor().fit(X, y)
    assert set(stage(advisor, "decision")["n_images"]) == {200}
    assert "Not tried for lack of time: fine-tuning" in advisor.recommendation_


def test_budget_that_is_too_small_for_one_candidate(monkeypatch):
    slow = ImageSeconds(1.0, 1.0)
    monkeypatch.setattr(_passes, "seconds_per_image", lambda *args: slow)
    X, y = digits(100)
    with pytest.raises(ValueError, match="'time_budget'.*Got 20 instead"):
        make_advisor(time_budget=20).fit(X, y)


def test_exceeding_the_budget_is_said(monkeypatch, no_race):
    run = _decision.Decision.run

    def run_slowly(self):
        run(self)
        self.seconds = 1.5 * self.clock.budget

    monkeypatch.setattr(_decision.Decision, "run", run_slowly)
    X, y = digits(60, classes=3)
    advisor = make_advisor().fit(X, y)
    assert "50% more than the budget" in advisor.recommendation_


@pytest.mark.slow
def test_the_same_seed_measures_the_same(no_race):
    X, y = digits(150)
    first, second = (make_advisor().fit(X, y).results_ for _ in range(2))
    for column in ("stage", "candidate", "n_images", "score", "standard_error"):
        assert first[column].equals(second[column]), column


def test_groups_stay_together(no_race):
    X, y = digits(120)
    groups = np.arange(120) // 4
    seen = []

    class Watching(GroupKFold):
        def split(self, X, y=None, groups=None):
            for train, test in super().split(X, y, groups):
                seen.append(set(groups[train]) & set(groups[test]))
                yield train, test

    make_advisor(cv=Watching(3)).fit(X, y, groups=groups)
    assert seen == [set()] * 3


def test_groups_are_routed(no_race):
    X, y = digits(90)
    groups = np.arange(90) // 3
    with config_context(enable_metadata_routing=True):
        advisor = make_advisor(cv=GroupKFold(2), task="classification")
        advisor.set_fit_request(groups=True)
        found = cross_validate(advisor, X, y, cv=2, params={"groups": groups})
    assert np.isfinite(found["test_score"]).all()


def test_folds_may_be_given(no_race):
    X, y = digits(100)
    halves = np.arange(100) % 2
    cv = [(np.flatnonzero(halves == i), np.flatnonzero(halves != i)) for i in (0, 1)]
    advisor = make_advisor(cv=cv).fit(X, y)
    assert advisor.results_["score"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr"])
def test_a_head_without_probabilities_is_left_out(scoring, no_race):
    X, y = digits(150, classes=3)
    advisor = make_advisor(scoring=scoring).fit(X, y)
    assert "RBF SVM" not in set(stage(advisor, "decision")["head"])
    assert "because of the error" in advisor.recommendation_
    proba = advisor.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert advisor.score(X, y) == advisor.scorer_(advisor.best_estimator_, X, y)


# -- Ctrl-C


class Interrupting:
    """A scorer of scikit-learn's form that is interrupted at some call."""

    def __init__(self, after):
        self.after = after

    def __call__(self, estimator, X, y):
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return estimator.score(X, y)


def test_interruption_leaves_what_was_decided():
    X, y = digits(200)
    advisor = make_advisor(scoring=Interrupting(after=20))
    with pytest.warns(RuntimeWarning, match="interrupted"):
        advisor.fit(X, y)
    assert "Interrupted after" in advisor.recommendation_
    assert len(stage(advisor, "network")) >= 2
    assert not hasattr(advisor, "predict")
    with pytest.raises(AttributeError, match="recommended_estimator_"):
        advisor.score(X, y)
    assert advisor.recommended_estimator_.fit(X, y).score(X, y) > 0.3


def test_interruption_before_anything_is_known():
    X, y = digits(100)
    with pytest.raises(KeyboardInterrupt):
        make_advisor(scoring=Interrupting(after=1)).fit(X, y)


def test_interruption_of_the_race(short_race):
    class InterruptedNet(SmallNet):
        """Interrupted in the third step of training."""

        steps = 0

        def forward(self, x):
            if torch.is_grad_enabled() and x.device.type != "meta" and x.shape[0] > 8:
                InterruptedNet.steps += 1
                if InterruptedNet.steps > 8:
                    raise KeyboardInterrupt
            return super().forward(x)

    X, y = digits(120)
    with pytest.warns(RuntimeWarning, match="decision was interrupted"):
        advisor = make_advisor([InterruptedNet()]).fit(X, y)
    assert isinstance(advisor.recommended_estimator_, Pipeline)
    assert not stage(advisor, "decision").empty


# -- Images that cannot be read


def as_files(X):
    """Return the images as encoded bytes."""
    encoded = []
    for image in X:
        buffer = io.BytesIO()
        Image.fromarray(np.uint8(image * 255)).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


def test_broken_images_are_left_out(no_race):
    X, y = digits(120)
    files = as_files(X)
    files[7] = files[90] = b"no image"
    extractor = clone(EXTRACTOR).set_params(on_error="nan")
    with pytest.warns(BadImageWarning, match="2 image") as caught:
        advisor = make_advisor(extractor=extractor).fit(files, y)
    [warning] = [w.message for w in caught if w.category is BadImageWarning]
    assert [failure.index for failure in warning.failures] == [7, 90]
    assert advisor.predict(files[:5]).shape == (5,)


def test_few_images_that_can_be_read(no_race):
    """Of all images some folds are left, and of the first quarter none."""
    X, y = digits(100, classes=2)
    files = as_files(X)
    rng = np.random.default_rng(0)
    for i in rng.permutation(100)[8:]:
        files[i] = b"no image"
    extractor = clone(EXTRACTOR).set_params(on_error="nan")
    with pytest.warns(BadImageWarning, match="92 image"):
        advisor = make_advisor(extractor=extractor, cv=2).fit(files, y)
    assert set(stage(advisor, "decision")["n_images"]) == {100}
    files = [b"no image"] * 100
    with pytest.raises(ValueError, match="100 of 100 images could not be read"):
        make_advisor(extractor=extractor, cv=2).fit(files, y)


def test_a_broken_image_is_an_error_with_its_index():
    X, y = digits(120)
    files = as_files(X)
    files[33] = b"no image"
    with pytest.raises(BadImageError) as caught:
        make_advisor().fit(files, y)
    assert caught.value.index == 33


# -- As an estimator


def test_delegation(no_race):
    X, y = digits(150)
    names = np.array(list("abcdefghij"))[y]
    advisor = make_advisor().fit(X, names)
    best = advisor.best_estimator_
    assert_array_equal(advisor.classes_, np.unique(names))
    assert_array_equal(advisor.predict(X), best.predict(X))
    assert advisor.n_features_in_ == 1
    assert advisor.score(X, names) == best.score(X, names)
    for method in ("predict_proba", "predict_log_proba", "decision_function"):
        assert hasattr(advisor, method) == hasattr(best, method)
        if hasattr(best, method):
            assert_array_equal(getattr(advisor, method)(X), getattr(best, method)(X))
    assert not hasattr(advisor, "transform")
    assert is_classifier(advisor)
    again = pickle.loads(pickle.dumps(advisor))
    assert_array_equal(again.predict(X), advisor.predict(X))
    assert again.recommendation_ == advisor.recommendation_


def test_fine_tuned_features_are_delegated(no_race):
    X, y = digits(60)
    advisor = make_advisor().fit(X, y)
    assert advisor.score(X, torch.tensor(y).bfloat16()) == advisor.score(X, y)
    advisor.best_estimator_ = FineTuneClassifier(
        SmallNet(), unfreeze=None, preprocessing=GEOMETRY, cache=None
    ).fit(X, y)
    assert advisor.transform(X).shape == (60, 8)


@pytest.mark.slow
def test_without_the_final_fit(no_race):
    X, y = digits(100)
    advisor = make_advisor(refit=False).fit(X, y)
    assert not hasattr(advisor, "predict")
    assert not hasattr(advisor, "best_estimator_")
    with pytest.raises(AttributeError, match="refit=False"):
        advisor.score(X, y)
    # Another fit forgets the final fit of the one before.
    advisor.set_params(refit=True).fit(X, y)
    assert hasattr(advisor, "refit_seconds_")
    advisor.set_params(refit=False).fit(X, y)
    assert not hasattr(advisor, "refit_seconds_")


def test_before_fit():
    advisor = make_advisor()
    X, y = digits(10)
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        with pytest.raises(NotFittedError):
            getattr(advisor, method)(X)
    with pytest.raises(NotFittedError):
        advisor.score(X, y)
    assert not is_classifier(advisor)
    assert is_classifier(make_advisor(task="classification"))
    assert is_regressor(make_advisor(task="regression"))


@pytest.mark.parametrize(
    "check",
    [
        check_do_not_raise_errors_in_init_or_set_params,
        check_estimator_cloneable,
        check_estimator_repr,
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
    ],
)
def test_checks_of_scikit_learn_that_do_not_fit(check):
    check("TransferAdvisor", TransferAdvisor())


def test_parameters_of_the_extractor_are_nested():
    advisor = make_advisor().set_params(extractor__image_size=64)
    assert advisor.extractor.image_size == 64
    EXTRACTOR.set_params(image_size=None)


# -- Bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"models": []}, "'models'"),
        ({"models": "efficientnet_lite0"}, "'models'"),
        ({"models": [3]}, "'models'.*Got 3"),
        ({"models": ["no_such_network"], "extractor": None}, "'model'"),
        ({"time_budget": 0}, "'time_budget'"),
        ({"scoring": "acuracy"}, "'scoring'"),
        ({"task": "ranking"}, "'task'"),
        ({"cv": 40}, "'cv'.*Got 40"),
        ({"extractor": "efficientnet_lite0"}, "'extractor'"),
    ],
)
def test_bad_parameters(params, message):
    X, y = digits(60)
    with pytest.raises((TypeError, ValueError), match=message):
        make_advisor(**params).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y to be passed"),
        (np.zeros(30, int), "at least two classes.*0"),
        (np.full(30, 1.5), "at least two values.*1.5"),
        (np.eye(30, dtype=int)[:, :2] + [[1, 0]], "multi"),
        (np.arange(29) % 2, "inconsistent"),
        (np.r_[np.nan, np.ones(29)], "y must not have missing"),
        # NumPy would make the text "nan" of it, which would be one more class.
        ([np.nan, *["cat", "dog"] * 14, "cat"], "y must not have missing.*index 0"),
        ([None, *["cat", "dog"] * 14, "cat"], "y must not have missing"),
        (np.array(["cat", 1] * 15, object), "labels of one type. Got int, str"),
    ],
)
def test_bad_targets(y, message):
    X, _ = digits(30)
    with pytest.raises(ValueError, match=message):
        make_advisor().fit(X, y)


def test_labels_that_are_not_numbers_for_a_regression():
    X, y = digits(30)
    with pytest.raises(ValueError, match="'task'.*not numbers.*'regression'"):
        make_advisor(task="regression").fit(X, np.array(list("abcdefghij"))[y])


def test_network_that_returns_nan():
    X, y = digits(60)
    X = X.copy()
    X[[3, 50]] = 1.0
    with pytest.raises(NonFiniteOutputError) as caught:
        make_advisor([OddNet()]).fit(X, y)
    assert caught.value.indices == (3, 50)


def test_scorer_that_gives_nan():
    X, y = digits(60)
    with pytest.raises(ValueError, match="'scoring'.*NaN"):
        make_advisor(scoring=lambda estimator, X, y: np.nan).fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [4, 12])
@pytest.mark.parametrize("classifies", [True, False])
def test_very_few_images(n_images, classifies, no_race):
    X, _ = digits(n_images)
    y = np.arange(n_images) % 2 if classifies else X.mean((1, 2))
    advisor = make_advisor(cv=2).fit(X, y)
    assert advisor.results_["score"].notna().all()


def test_folds_that_are_too_small_for_the_score():
    X, _ = digits(4)
    with pytest.raises(ValueError, match="'cv'.*two images.*R².*Got 3"):
        make_advisor().fit(X, X.mean((1, 2)))


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], "folds with images"),
        ([(np.arange(20), np.arange(0))], "folds with images"),
        ([(np.arange(20), np.arange(20.0, 30.0))], "integers.*float64"),
        ([(np.arange(20), np.arange(20, 40))], "Got the index 39"),
    ],
)
def test_folds_that_are_none(cv, message):
    X, y = digits(30)
    with pytest.raises(ValueError, match=f"'cv'.*{message}"):
        make_advisor(cv=cv).fit(X, y)


def test_one_fold_has_no_standard_error(no_race):
    X, y = digits(90, classes=3)
    advisor = make_advisor(cv=[(np.arange(60), np.arange(60, 90))]).fit(X, y)
    assert advisor.results_["standard_error"].isna().all()
    assert "nan" not in advisor.recommendation_


def test_more_folds_than_groups():
    X, y = digits(30)
    with pytest.raises(ValueError, match="'cv'.*number of groups.*Got 3"):
        make_advisor().fit(X, y, groups=np.arange(30) % 2)
