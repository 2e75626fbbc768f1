"""Soft targets: which estimators teach, how they are kept, and what is learned."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from networks import CountingNet, SmallNet, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from skdeepfeat import (
    BadImageWarning,
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
    check_can_learn,
    learning_rate_range_test,
)
from skdeepfeat.compression import compress
from skdeepfeat.inspection import relative_gradient_norms

N = 36
SIZE = 16
PREPROCESSING = {"resize": SIZE, "crop": (SIZE, SIZE)}
NAMES = np.array(["red", "green", "blue"])[np.arange(N) % 3]


def make(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": SmallNet(),
        "preprocessing": PREPROCESSING,
        "max_epochs": 2,
        "batch_size": 12,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return kind(**{**defaults, **parameters})


def colors(X):
    """Return the mean color of each image, as features of any estimator."""
    return np.stack([np.asarray(image, float).mean((0, 1)) for image in X]) / 255


def on_colors(estimator):
    return make_pipeline(FunctionTransformer(colors), estimator)


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, 20, 24, 3))
    images[np.arange(N), :, :, np.arange(N) % 3] += 130
    return images.astype(np.uint8)


@pytest.fixture(scope="module")
def forest(pixels):
    return on_colors(RandomForestClassifier(20, random_state=0)).fit(pixels, NAMES)


class Counting(ClassifierMixin, BaseEstimator):
    """Says the same as another estimator and counts the images it is asked about."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y):
        self.fitted_ = clone(self.estimator).fit(X, y)
        self.classes_ = self.fitted_.classes_
        self.asked_ = []
        return self

    def predict(self, X):
        return self.fitted_.predict(X)

    def predict_proba(self, X):
        self.asked_.append(len(X))
        return self.fitted_.predict_proba(X)


class Reversed(ClassifierMixin, BaseEstimator):
    """Has its classes in another order than scikit-learn does."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y):
        self.estimator.fit(X, y)
        self.classes_ = self.estimator.classes_[::-1]
        return self

    def predict(self, X):
        return self.estimator.predict(X)

    def predict_proba(self, X):
        return self.estimator.predict_proba(X)[:, ::-1]


def weights_of(estimator):
    modules = [estimator.head_, estimator.body_]
    return [t for m in modules for t in m.state_dict().values()]


def assert_same_fit(one, other):
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# -- What is learned


TEACHERS = {
    "forest": lambda: on_colors(RandomForestClassifier(20, random_state=0)),
    "vote": lambda: VotingClassifier(
        [("a", on_colors(LogisticRegression(C=99))), ("b", on_colors(LinearSVC_()))],
        voting="soft",
    ),
    "features": lambda: make_pipeline(
        PretrainedFeatureExtractor(SmallNet(), preprocessing=PREPROCESSING, cache=None),
        LogisticRegression(C=99),
    ),
    "own": lambda: make(max_epochs=6),
    "own, larger": lambda: make(
        max_epochs=6, preprocessing={"resize": 24, "crop": (24, 20)}
    ),
    "frozen body": lambda: make(unfreeze=None),
}


def LinearSVC_():  # noqa: N802
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(LinearSVC(), cv=2)


@pytest.mark.parametrize("name", TEACHERS)
def test_images_without_labels_are_learned_from_any_teacher(name, pixels):
    """The teacher calls the colors otherwise than y does, and is believed."""
    others = np.roll(np.array(["red", "green", "blue"]), 1)[np.arange(N) % 3]
    teacher = TEACHERS[name]().fit(pixels, others)
    assert teacher.score(pixels, others) == 1
    student = make(
        teacher=teacher, distill_weight=1.0, max_epochs=12, learning_rate=0.03
    )
    student.fit(pixels[:6], NAMES[:6], X_unlabeled=pixels[6:])
    assert student.score(pixels, others) > 0.9
    # Without weight, a teacher changes nothing but the number of steps.
    ignored = make(teacher=teacher, distill_weight=0.0).fit(pixels, NAMES)
    assert_same_fit(ignored, make().fit(pixels, NAMES))


@pytest.mark.parametrize(
    "parameters",
    [
        {"unfreeze": None},
        {"hidden_layer_sizes": (16,), "unfreeze": None},
        {"hidden_layer_sizes": (8,), "head_epochs": 3},
        {"mixup": 0.4},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"label_smoothing": 0.0, "class_weight": "balanced", "augment": "trivial"},
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_with_other_parameters(parameters, own, pixels, forest):
    teacher = make().fit(pixels, NAMES) if own else forest
    student = make(teacher=teacher, **{"head_epochs": 200, **parameters})
    student.fit(pixels[:18], NAMES[:18], X_unlabeled=pixels[18:])
    assert np.isfinite(student.history_["train_loss"]).all()
    assert student.score(pixels, NAMES) > 0.6


def test_a_list_is_averaged_as_a_vote_is(pixels):
    members = [
        on_colors(LogisticRegression(C=c)).fit(pixels, NAMES) for c in (0.01, 100)
    ]
    vote = VotingClassifier(
        [("a", FrozenEstimator(members[0])), ("b", FrozenEstimator(members[1]))],
        voting="soft",
    ).fit(pixels, NAMES)
    one, other = (
        make(teacher=teacher).fit(pixels, NAMES) for teacher in (members, vote)
    )
    assert_same_fit(one, other)


def test_a_list_of_both_kinds_is_averaged(pixels, forest):
    """Without augmentation, it does not matter when a teacher is asked."""
    own = make().fit(pixels, NAMES)
    as_other = on_pixels_of(own)
    still = {"augment": None, "mixup": 0.3}
    one = make(teacher=[forest, own], **still).fit(pixels, NAMES)
    other = make(teacher=[forest, as_other], **still)
    # Of mixed images a teacher of this package says something else.
    with pytest.raises(AssertionError):
        assert_same_fit(one, other.fit(pixels, NAMES))
    one.set_params(mixup=0.0).fit(pixels, NAMES)
    other.set_params(mixup=0.0).fit(pixels, NAMES)
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        assert_allclose(a, b, atol=1e-4)


def on_pixels_of(estimator):
    """Hide that a teacher is one of this package."""
    return Pipeline([("only", estimator)])


def test_the_order_of_classes_does_not_matter(pixels, forest):
    teacher = Reversed(on_colors(RandomForestClassifier(20, random_state=0)))
    teacher.fit(pixels, NAMES)
    one, other = (make(teacher=t).fit(pixels, NAMES) for t in (teacher, forest))
    assert_same_fit(one, other)


@pytest.mark.parametrize("kind", ["forest", "rest", "own"])
def test_several_labels(kind, pixels):
    y = np.stack([np.arange(N) % 3 == 0, np.arange(N) % 3 < 2], axis=1).astype(int)
    teacher = {
        "forest": on_colors(RandomForestClassifier(20, random_state=0)),
        "rest": on_colors(OneVsRestClassifier(LogisticRegression(C=99))),
        "own": make(max_epochs=6),
    }[kind].fit(pixels, 1 - y)
    student = make(teacher=teacher, distill_weight=1.0, max_epochs=12)
    student.fit(pixels, y)
    assert student.score(pixels, 1 - y) > 0.9


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("own", [False, True])
def test_regression(n_targets, own, pixels):
    """The teacher was fitted to twice the targets plus 50."""
    y = 1000 + 300 * colors(pixels)[:, :n_targets]
    y = y[:, 0] if n_targets == 1 else y
    teacher = make(FineTuneRegressor, max_epochs=10) if own else on_colors(Ridge(1e-3))
    teacher.fit(pixels, 2 * y + 50)
    student = make(
        FineTuneRegressor, teacher=teacher, distill_weight=1.0, max_epochs=30,
        augment=None,
    )  # fmt: skip
    student.fit(pixels[:20], y[:20], X_unlabeled=pixels[20:])
    assert student.score(pixels, teacher.predict(pixels)) > 0.8


def test_a_list_of_regressors_is_averaged(pixels):
    y = colors(pixels)[:, 0]
    members = [on_colors(Ridge(1e-3)).fit(pixels, y + shift) for shift in (-3, 3)]
    mean = on_colors(Ridge(1e-3)).fit(pixels, y)
    one, other = (
        make(FineTuneRegressor, teacher=teacher).fit(pixels, y)
        for teacher in (members, mean)
    )
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        assert_allclose(a, b, atol=1e-4)


# -- Asking


def test_another_estimator_is_asked_once_about_each_image(pixels):
    teacher = Counting(on_colors(LogisticRegression())).fit(pixels, NAMES)
    student = make(teacher=teacher, max_epochs=3)
    student.fit(pixels[:20], NAMES[:20], X_unlabeled=pixels[20:])
    assert teacher.asked_ == [20, N - 20]
    # Its probabilities are known from then on, in clones and in searches as well.
    clone(student).set_params(learning_rate=0.02).fit(pixels[:20], NAMES[:20])
    GridSearchCV(student, {"distill_weight": [0.5, 0.9]}, cv=2).fit(pixels, NAMES)
    # Each of these six fits asks again about four images, to notice another teacher.
    assert sum(teacher.asked_) == N + 6 * 4
    # A teacher that was fitted again says something else.
    teacher.fit(pixels, NAMES)
    student.fit(pixels, NAMES)
    assert teacher.asked_ == [N]


WEIGHT_OF_FIRST = 0.9


class Fixed(ClassifierMixin, BaseEstimator):
    """Its predictions depend on a constant, as in a notebook."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X):
        return np.tile([WEIGHT_OF_FIRST, 1 - WEIGHT_OF_FIRST], (len(X), 1))


@pytest.mark.parametrize("unfreeze", [None, "all"])
def test_a_change_of_a_teachers_code_is_noticed(unfreeze, pixels, monkeypatch):
    y = np.arange(N) % 2
    teacher = Fixed().fit(pixels, y)
    student = make(
        teacher=teacher, distill_weight=1.0, distill_temperature=1.0, max_epochs=20,
        learning_rate=0.1, unfreeze=unfreeze, head_init="random",
    )  # fmt: skip
    before = student.fit(pixels, y).predict_proba(pixels)[:, 0].mean()
    monkeypatch.setitem(globals(), "WEIGHT_OF_FIRST", 0.1)
    after = student.fit(pixels, y).predict_proba(pixels)[:, 0].mean()
    assert after < before - 1e-3


def test_a_teacher_of_this_package_is_asked_in_every_step(pixels, tmp_path):
    network = CountingNet(tmp_path / "log")
    teacher = make(model=network, unfreeze=None).fit(pixels, NAMES)
    before = rows_counted(tmp_path / "log")
    make(teacher=teacher, max_epochs=3).fit(
        pixels[:20], NAMES[:20], X_unlabeled=pixels[20:]
    )
    # The shape of its outputs is found out with two images.
    assert rows_counted(tmp_path / "log") - before == 3 * N + 2


def test_pixels_of_more_than_eight_bits_are_told_apart(pixels):
    """Two images look the same to a network, and not to the teacher."""
    X = np.repeat(pixels[:1] / 255, N, axis=0)
    X[: N // 2] += 1e-5
    y = np.arange(N) < N // 2
    teacher = make_pipeline(
        FunctionTransformer(lambda X: (np.asarray(X)[:, 0, 0, :1] - X[-1, 0, 0, 0])),
        RandomForestClassifier(5, random_state=0, bootstrap=False),
    ).fit(X, y)
    assert teacher.score(X, y) == 1
    student = make(
        teacher=teacher, distill_weight=1.0, distill_temperature=1.0, max_epochs=20,
        learning_rate=0.1,
    )  # fmt: skip
    loss = student.fit(X, y).history_["train_loss"].iloc[-1]
    # The same answer for all could be learned. Of two, the mean is the best.
    assert loss == pytest.approx(np.log(2), abs=0.02)


def test_a_teacher_gets_what_the_user_gave(pixels):
    """Names of columns as well, which it would miss otherwise."""
    X = pd.DataFrame(pixels[:, ::5, ::6].reshape(N, -1) / 255.0).add_prefix("pixel_")
    teacher = RandomForestClassifier(5, random_state=0).fit(X, NAMES)
    student = make(teacher=teacher, flat_image_shape=(4, 4, 3))
    student.fit(X[:20], NAMES[:20], X_unlabeled=X[20:])
    assert student.score(X, NAMES) > 0.5


def test_broken_images_are_left_out(pixels, forest, tmp_path):
    paths = []
    for i, image in enumerate(pixels):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "30.png").unlink()
    teacher = make_pipeline(
        PretrainedFeatureExtractor(SmallNet(), preprocessing=PREPROCESSING, cache=None),
        LogisticRegression(C=99),
    ).fit(pixels, NAMES)
    student = make(teacher=teacher, on_error="nan")
    for parameters in (
        {},
        {"head_init": "random"},
        {"head_init": "random", "head_epochs": 0},
        {"head_init": "auto", "head_epochs": 20, "unfreeze": None},
    ):
        student.set_params(**parameters)
        with pytest.warns(BadImageWarning) as warned:
            student.fit(paths[:20], NAMES[:20], X_unlabeled=paths[20:])
        assert [[one.index for one in w.message.failures] for w in warned] == [
            [3],
            [10],
        ]
    with pytest.raises(ValueError, match="30.png"):
        student.set_params(on_error="raise").fit(
            paths[4:20], NAMES[4:20], X_unlabeled=paths[20:]
        )


# -- A parameter like others


def test_a_teacher_is_shared_and_stays_fitted(pixels, forest):
    for teacher in (forest, [forest, forest], FrozenEstimator(forest), (forest,)):
        student = make(teacher=teacher)
        handed = student.get_params()["teacher"]
        one = handed[0] if isinstance(handed, (list, tuple)) else handed
        assert isinstance(one, FrozenEstimator) and one.estimator is forest
        cloned = clone(clone(student))
        kept = cloned.teacher
        kept = kept[0] if isinstance(kept, (list, tuple)) else kept
        assert kept.estimator is forest
        cloned.fit(pixels, NAMES)
    assert not [name for name in student.get_params() if name.startswith("teacher__")]
    assert make().get_params()["teacher"] is None


def test_in_a_search_over_teachers(pixels, forest):
    own = make().fit(pixels, NAMES)
    grid = {"teacher": [None, FrozenEstimator(forest), FrozenEstimator(own)]}
    search = GridSearchCV(make(), grid, cv=2, error_score="raise").fit(pixels, NAMES)
    assert len(search.cv_results_["params"]) == 3
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        GridSearchCV(make(), {"teacher": [forest]}, cv=2, error_score="raise").fit(
            pixels, NAMES
        )


@pytest.mark.parametrize("n_unlabeled", [N, N // 2])
def test_scikit_learn_slices_what_is_as_long_as_X(n_unlabeled, pixels):
    teacher = Counting(on_colors(LogisticRegression())).fit(pixels, NAMES)
    others = 255 - pixels[:n_unlabeled]
    search = GridSearchCV(make(teacher=teacher), {"max_epochs": [1]}, cv=2, refit=False)
    search.fit(pixels, NAMES, X_unlabeled=others)
    # Two folds of half the images each.
    # Of what is not sliced, four are asked about again in the second fold.
    assert teacher.asked_ == [N // 2] * 3 + [N // 2 if n_unlabeled == N else 4]


def test_metadata_routing(pixels, forest):
    student = make(teacher=forest)
    with sklearn.config_context(enable_metadata_routing=True):
        student.set_fit_request(X_unlabeled=True)
        found = cross_validate(
            student, pixels, NAMES, cv=2, params={"X_unlabeled": pixels[:10]},
            return_estimator=True,
        )["estimator"]  # fmt: skip
        assert len(found) == 2
        pipeline = make_pipeline(clone(student))
        pipeline.fit(pixels, NAMES, X_unlabeled=pixels[:10])
    make_pipeline(student).fit(pixels, NAMES, finetuneclassifier__X_unlabeled=pixels)


@pytest.mark.parametrize("own", [False, True])
def test_files_and_predictions_do_without_a_teacher(own, pixels, forest, tmp_path):
    teacher = make().fit(pixels, NAMES) if own else forest
    student = make(teacher=teacher, distill_weight=0.3).fit(pixels, NAMES)
    wanted = student.predict_proba(pixels)
    student.save(tmp_path / "student.safetensors")
    student.teacher = None
    assert_array_equal(student.predict_proba(pixels), wanted)
    loaded = FineTuneClassifier.load(tmp_path / "student.safetensors", model=SmallNet())
    assert loaded.teacher is None and loaded.distill_weight == 0.3
    assert_array_equal(loaded.predict_proba(pixels), wanted)
    assert b"forest" not in (tmp_path / "student.safetensors").read_bytes().lower()


def test_a_pickle_has_its_teacher(pixels, forest):
    own = make().fit(pixels, NAMES)
    for teacher in (own, forest):
        student = pickle.loads(pickle.dumps(make(teacher=teacher).fit(pixels, NAMES)))
        again = clone(student).fit(pixels, NAMES)
        assert_same_fit(student, again)


@pytest.mark.parametrize("own", [False, True])
def test_a_checkpoint_belongs_to_its_teacher(own, pixels, tmp_path, forest):
    checkpoint = tmp_path / "run.safetensors"
    teacher = make().fit(pixels, NAMES) if own else forest
    more = {"X_unlabeled": pixels[20:]}
    whole = make(teacher=teacher).fit(pixels[:20], NAMES[:20], **more)
    student = make(teacher=teacher, checkpoint=checkpoint)
    student.fit(pixels[:20], NAMES[:20], **more)
    resumed = clone(student).fit(pixels[:20], NAMES[:20], **more)
    assert_same_fit(whole, resumed)
    other = clone(teacher).fit(pixels, NAMES[::-1])
    with pytest.raises(ValueError, match="'checkpoint' file"):
        clone(student).set_params(teacher=other).fit(pixels[:20], NAMES[:20], **more)
    with pytest.raises(ValueError, match="'checkpoint' file"):
        clone(student).fit(pixels[:20], NAMES[:20])


@pytest.mark.slow
def test_what_else_takes_an_estimator_with_a_teacher(pixels, forest):
    own = make().fit(pixels, NAMES)
    for teacher in (forest, own):
        student = make(teacher=teacher)
        found = learning_rate_range_test(student, pixels, NAMES, n_steps=10)
        assert len(found.losses) > 2
        assert check_can_learn(student, pixels, NAMES, n_samples=6).n_epochs
        assert len(relative_gradient_norms(student, pixels, NAMES)) > 1
        student.partial_fit(pixels, NAMES, classes=np.unique(NAMES))
        student.set_params(warm_start=True).fit(pixels, NAMES)
        small = compress(
            student, pixels, NAMES, method="prune", max_score_drop=1.0,
            fine_tune_epochs=1, runtimes=["torch"], random_state=0,
        )  # fmt: skip
        assert small.get_params()["teacher"].estimator is teacher


def test_the_teacher_does_not_change(pixels):
    teacher = make().fit(pixels, NAMES)
    before = [tensor.clone() for tensor in weights_of(teacher)]
    make(teacher=teacher, max_epochs=3, learning_rate=0.1).fit(pixels, NAMES)
    assert all(map(torch.equal, before, weights_of(teacher)))
    parameters = [*teacher.body_.parameters(), *teacher.head_.parameters()]
    assert not any(one.requires_grad or one.grad is not None for one in parameters)


# -- Bad input


def y_of(n_classes):
    return np.arange(N) % n_classes


@pytest.mark.parametrize(
    ("make_teacher", "words"),
    [
        (lambda X: "resnet50", "'teacher' parameter"),
        (lambda X: RandomForestClassifier, "'teacher' parameter"),
        (lambda X: [], "list of such classifiers"),
        (lambda X: [None], "list of such classifiers"),
        (lambda X: SmallNet(), "'teacher' parameter"),
        (lambda X: on_colors(LinearSVC()).fit(X, NAMES), "predict_proba"),
        (lambda X: make(loss="hinge").fit(X, NAMES), "predict_proba"),
        (lambda X: on_colors(Ridge()).fit(X, y_of(3)), "predict_proba"),
        (lambda X: make(FineTuneRegressor).fit(X, y_of(3)), "predict_proba"),
        (lambda X: on_colors(LogisticRegression()), "fitted estimator"),
        (lambda X: make(), "fitted estimator"),
        (lambda X: on_colors(LogisticRegression()).fit(X, y_of(3)), "classes of y"),
        (lambda X: make().fit(X, y_of(3)), "classes of y"),
        (lambda X: on_colors(LogisticRegression()).fit(X, y_of(2)), "classes of y"),
        (
            lambda X: on_colors(LogisticRegression()).fit(
                X, np.r_[["gray"], NAMES[1:]]
            ),
            "gray",
        ),
        (
            lambda X: on_colors(RandomForestClassifier(3)).fit(
                X, np.eye(3, dtype=int)[y_of(3)]
            ),
            "'teacher' parameter",
        ),
        (
            lambda X: make().fit(X, np.eye(3, dtype=int)[y_of(3)]),
            "'teacher' parameter",
        ),
    ],
)
def test_teachers_that_cannot_teach(make_teacher, words, pixels):
    with pytest.raises((ValueError, TypeError), match="^The 'teacher' param") as error:
        make(teacher=make_teacher(pixels)).fit(pixels, NAMES)
    assert words in str(error.value)


@pytest.mark.parametrize("own", [False, True])
def test_teachers_with_another_number_of_outputs(own, pixels):
    y = colors(pixels)
    for n_wanted, n_found in [(1, 2), (3, 1), (2, 3)]:
        teacher = make(FineTuneRegressor) if own else on_colors(Ridge())
        teacher.fit(pixels, np.squeeze(y[:, :n_found]))
        with pytest.raises(ValueError, match="^The 'teacher' parameter .* outputs as"):
            student = make(FineTuneRegressor, teacher=teacher)
            student.fit(pixels, np.squeeze(y[:, :n_wanted]))
    labels = (y > 0.5).astype(int)
    teacher = make() if own else on_colors(RandomForestClassifier(3))
    teacher.fit(pixels, labels)
    with pytest.raises(ValueError, match="^The 'teacher' parameter .* outputs as"):
        make(teacher=teacher).fit(pixels, labels[:, :2])


def test_a_classifier_teaches_no_regressor(pixels, forest):
    for teacher in (forest, make().fit(pixels, NAMES)):
        with pytest.raises(ValueError, match="^The 'teacher' parameter .* regressor"):
            make(FineTuneRegressor, teacher=teacher).fit(pixels, y_of(3))


class Odd(DummyClassifier):
    def predict_proba(self, X):
        return np.full((len(X), 3), np.nan)


def test_probabilities_that_are_none(pixels):
    teacher = Odd().fit(pixels, NAMES)
    with pytest.raises(ValueError, match="^The 'teacher' parameter .* finite"):
        make(teacher=teacher).fit(pixels, NAMES)


def test_a_teacher_that_takes_no_images(pixels):
    X = colors(pixels)
    for kind, teacher in [
        (FineTuneClassifier, LogisticRegression().fit(X, NAMES)),
        (FineTuneRegressor, Ridge().fit(X, y_of(3))),
    ]:
        y = NAMES if kind is FineTuneClassifier else y_of(3)
        with pytest.raises(ValueError, match="^The 'teacher' parameter .* pipeline"):
            make(kind, teacher=teacher).fit(pixels, y)
    # Not all causes are sentences.
    worded = on_colors(Odd()).fit(pixels, NAMES)
    worded[-1].predict_proba = lambda X: np.full((len(X), 3), "a")
    with pytest.raises(ValueError, match=r"'a'\)?\. Make a pipeline"):
        make(teacher=worded).fit(pixels, NAMES)


def test_nobody_teaches_himself(pixels):
    student = make().fit(pixels, NAMES)
    student.set_params(teacher=student, warm_start=True)
    with pytest.raises(ValueError, match="^The .teacher. parameter must be another"):
        student.fit(pixels, NAMES)
    student.set_params(teacher=copy.deepcopy(make().fit(pixels, NAMES)))
    student.fit(pixels, NAMES)


def test_no_images_without_labels(pixels, forest):
    for none in ([], pixels[:0]):
        with pytest.raises(ValueError, match="^X_unlabeled must have at least one"):
            make(teacher=forest).fit(pixels, NAMES, X_unlabeled=none)


def test_images_without_labels_need_a_teacher(pixels):
    for kind in (FineTuneClassifier, FineTuneRegressor):
        with pytest.raises(ValueError, match="X_unlabeled .* 'teacher'"):
            make(kind).fit(pixels, y_of(3), X_unlabeled=pixels)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"loss": "hinge"}, "loss"),
        ({"distill_temperature": 0}, "distill_temperature"),
        ({"distill_temperature": np.nan}, "distill_temperature"),
        ({"distill_weight": 1.1}, "distill_weight"),
        ({"distill_weight": None}, "distill_weight"),
        ({"head_init": "logistic", "unfreeze": None}, "head_init"),
    ],
)
def test_other_bad_parameters(parameters, name, pixels, forest):
    with pytest.raises(ValueError, match=f"^The '{name}' parameter"):
        make(teacher=forest, **parameters).fit(pixels, NAMES)
