"""`scoring`: what a validation set is scored with, and which epoch is the best."""

import numpy as np
import pytest
import torch
from networks import StemNet
from sklearn.metrics import get_scorer, log_loss, make_scorer

from skdeepfeat import FineTuneClassifier, FineTuneRegressor

N = 24
SIZE = 16
NAMES = np.array(["blue", "green", "red"])


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": StemNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return kind(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (2 * N, SIZE, SIZE, 3))
    images[np.arange(2 * N), :, :, np.arange(2 * N) % 3] += 100
    return images.astype(np.uint8)


def last_score(estimator):
    return estimator.history_["validation_score"].iloc[-1]


CLASSIFIERS = {
    "neg_log_loss": {},
    "f1_macro": {},
    "roc_auc_ovr": {},
    "balanced_accuracy": {"loss": "hinge"},
}


@pytest.mark.parametrize("scoring", CLASSIFIERS)
def test_scores_are_those_of_the_scorer(pixels, scoring):
    y = NAMES[np.arange(2 * N) % 3]
    X_val, y_val = pixels[N:], np.roll(y[N:], 5)
    fitted = small(scoring=scoring, **CLASSIFIERS[scoring])
    fitted.fit(pixels[:N], y[:N], X_val=X_val, y_val=y_val)
    wanted = get_scorer(scoring)(fitted, X_val, y_val)
    assert last_score(fitted) == pytest.approx(wanted, rel=1e-4)


def test_two_classes_by_their_decision_function(pixels):
    y = NAMES[np.arange(2 * N) % 2]
    fitted = small(scoring="roc_auc", loss="hinge", unfreeze=None)
    fitted.fit(pixels[:N], y[:N], X_val=pixels[N:], y_val=np.roll(y[N:], 3))
    wanted = get_scorer("roc_auc")(fitted, pixels[N:], np.roll(y[N:], 3))
    assert last_score(fitted) == pytest.approx(wanted)


def test_several_labels(pixels):
    y = np.arange(2 * N)[:, None] // [1, 2] % 2
    fitted = small(scoring="f1_micro")
    fitted.fit(pixels[:N], y[:N], X_val=pixels[N:], y_val=y[N:])
    assert last_score(fitted) == get_scorer("f1_micro")(fitted, pixels[N:], y[N:])


@pytest.mark.parametrize("n_targets", [None, 2])
def test_errors_are_in_the_units_of_y(pixels, n_targets):
    y = pixels.mean((1, 2)) * 1000 + 7
    y = y[:, 0] if n_targets is None else y[:, :n_targets]
    scoring = "neg_root_mean_squared_error"
    fitted = small(FineTuneRegressor, scoring=scoring)
    fitted.fit(pixels[:N], y[:N], X_val=pixels[N:], y_val=y[N:])
    wanted = get_scorer(scoring)(fitted, pixels[N:], y[N:])
    assert last_score(fitted) == pytest.approx(wanted, rel=1e-4)


def test_none_is_the_score_of_the_estimator(pixels):
    y = NAMES[np.arange(2 * N) % 3]
    fitted = small().fit(pixels[:N], y[:N], X_val=pixels[N:], y_val=y[N:])
    assert last_score(fitted) == fitted.score(pixels[N:], y[N:])


@pytest.mark.parametrize(
    "convert",
    [
        lambda numbers: numbers.bfloat16(),
        lambda numbers: numbers.requires_grad_(),
        lambda numbers: numbers.to_sparse(),
        lambda numbers: list(numbers.bfloat16()),
    ],
)
@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_score_takes_the_tensors_that_fit_takes(pixels, kind, convert):
    y = np.arange(N, dtype=np.float32) % 3
    fitted = small(kind, unfreeze=None).fit(pixels[:N], convert(torch.tensor(y)))
    wanted = fitted.score(pixels[:N], y, sample_weight=y + 1)
    weights = convert(torch.tensor(y + 1))
    assert fitted.score(pixels[:N], convert(torch.tensor(y)), weights) == wanted
    for given in [(y, torch.ones(N, device="meta")), (torch.ones(N, device="meta"),)]:
        name = "sample_weight" if len(given) == 2 else "y"
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            fitted.score(pixels[:N], *given)


def test_early_stopping_follows_the_scorer(pixels):
    """The scores of this callable fall from epoch to epoch, whatever is learned."""
    calls = []

    def scoring(estimator, X, y):
        assert set(y) <= set(NAMES)
        # A part of X, as a scorer of a group of samples uses it.
        assert estimator.predict_proba(X[:2]).shape == (2, 3)
        calls.append(len(X))
        return -float(len(calls))

    fitted = small(
        scoring=scoring, early_stopping=True, validation_fraction=0.25,
        n_iter_no_change=1, max_epochs=9,
    ).fit(pixels[:N], NAMES[np.arange(N) % 3])  # fmt: skip
    assert fitted.best_epoch_ == 1
    assert fitted.best_validation_score_ == -2.0  # -1 is that of phase one
    assert fitted.n_epochs_ == 2
    assert calls == [6, 6, 6]


def test_a_scorer_that_the_loss_does_not_allow(pixels):
    y = NAMES[np.arange(N) % 3]
    with pytest.raises(ValueError, match="'scoring' .*predict_proba.*neg_log"):
        small(scoring="neg_log_loss", loss="hinge", early_stopping=True).fit(
            pixels[:N], y
        )


def test_the_estimator_is_not_fitted_by_its_scorer(pixels):
    def scoring(estimator, X, y):
        raise RuntimeError("no score")

    estimator = small(scoring=scoring, early_stopping=True)
    with pytest.raises(RuntimeError, match="no score"):
        estimator.fit(pixels[:N], NAMES[np.arange(N) % 3])
    assert not hasattr(estimator, "head_")
    assert "_outputs" not in vars(estimator)


def test_scorers_of_metrics(pixels):
    scorer = make_scorer(
        log_loss, greater_is_better=False, response_method="predict_proba",
        labels=list(NAMES),
    )  # fmt: skip
    y = NAMES[np.arange(2 * N) % 3]
    fitted = small(scoring=scorer, unfreeze=None)
    fitted.fit(pixels[:N], y[:N], X_val=pixels[N : N + 2], y_val=y[N : N + 2])
    wanted = scorer(fitted, pixels[N : N + 2], y[N : N + 2])
    assert last_score(fitted) == pytest.approx(wanted, rel=1e-4)


def test_an_unknown_scorer_is_not_answered_with_the_list_of_all(pixels):
    with pytest.raises(ValueError, match="^The 'scoring' parameter") as error:
        small(scoring="balanced_acuracy").fit(pixels[:N], NAMES[np.arange(N) % 3])
    assert "Did you mean 'balanced_accuracy'" in str(error.value)
    assert len(str(error.value)) < 250
