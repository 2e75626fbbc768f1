"""TransferAdvisor: which network, layer, head and fine-tuning, by measurement."""

import contextlib
import time

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import ClassifierTags, RegressorTags, check_random_state, get_tags
from sklearn.utils._param_validation import StrOptions

from .._utils._address import shown_addresses
from .._utils._constraints import POSITIVE
from .._utils._html import DocumentationLinkMixin
from .._utils._progress import progress_bar
from .._utils._public_function import public_function
from .._utils._short_errors import ShortErrorsMixin
from .._utils._warn import warn
from ..feature_extraction import PretrainedFeatureExtractor, extract_layers, warn_of
from ._candidates import make_pipeline_of, make_tuned
from ._clock import Clock
from ._decision import Decision
from ._delegation import DelegatesMixin
from ._networks import cache_for_deciding, read_models
from ._problem import make_problem
from ._recommendation import recommend


class TransferAdvisor(
    ShortErrorsMixin, DocumentationLinkMixin, DelegatesMixin, BaseEstimator
):
    """Decide by measurement which network, layer and head to use, and what to tune.

    `fit` compares candidates on the images themselves, within a budget of seconds:

    1. *Networks*, by successive halving [1]_: a linear model on each stage and the neck
       is cross-validated on an eighth of the images. The better half of the networks,
       and those within one standard error of the best, continue with twice as many
       images and the better half of their layers. The score of a network is that of its
       best layer. All layers are computed in one pass over the images.
    2. *Layers*: the other stages of the best network.
    3. *Heads*: logistic regression, RBF SVM and random forest, or for numbers ridge
       regression, RBF SVM and random forest, on the best layer of each remaining
       network.
    4. *Fine-tuning*: the learning curve of the linear model, and a short race of
       `FineTuneClassifier` or `FineTuneRegressor` against the best head, on the same
       images. Training starts from a linear model on the neck. So the advisor tunes the
       fastest network whose neck scores within one standard error of the best neck,
       which need not be the network with the best layer. It uses ``unfreeze``
       ``"all"``, None and 1 (the last stage). If there is time left, the network with
       the best neck, the network of the best head, and the stages with the largest
       relative gradient norms [4]_ take part. After each fold, candidates that are more
       than one standard error behind the best drop out [5]_.

    The features are cached, so each image goes through each network once. The
    recommendation is the cheapest candidate within one standard error of the best [2]_:
    the one that predicts most images per second, and among equally fast ones the one
    with the shortest fit.

    Parameters
    ----------
    models : list or None, default=None
        The networks. Each is a name as for `PretrainedFeatureExtractor`, a
        `torch.nn.Module`, or a `PretrainedFeatureExtractor`, whose `layer` is ignored.
        None means the networks that are installed with this package and its extra
        ``[embedded]``.

    time_budget : float, default=600
        Seconds for the decision. The final fit comes after it. A step begins only if it
        is expected to end in time. If a step took longer and the budget was exceeded by
        more than 20 %, `recommendation_` says by how much.

    scoring : str, callable or None, default=None
        The scorer. None means accuracy for class labels and R² for numbers.

    cv : int, cross-validation generator or iterable, default=5
        The folds, the same for all candidates. An int means shuffled folds, which are
        stratified for class labels, and keep groups together if there are any.

    task : {"auto", "classification", "regression"}, default="auto"
        The kind of task. ``"auto"`` treats strings and integers as class labels, and
        other numbers as regression targets. Name the task if y holds integers that are
        not classes. Also name it for tools that need to know before `fit` whether this
        is a classifier, such as `cross_val_score`.

    extractor : PretrainedFeatureExtractor or None, default=None
        The parameters with which names and modules in `models` are run: `image_size`,
        `cache`, `device`, `on_error` and so on. None means the defaults.

    refit : bool, default=True
        Whether to fit the recommended estimator to all images after the decision.

    random_state : int, RandomState instance or None, default=None
        Determines the folds, the parts of the images, forests and fine-tuning. See the
        Notes.

    verbose : int, default=0
        Above 0, a progress bar counts the seconds of the budget and shows each score.
        The log of this package has the same scores.

    Attributes
    ----------
    results_ : DataFrame
        One row for each score, in the order in which they were measured:

        - ``stage``: of the decision: "network", "layer", "head", "learning curve",
          "chance" (the better of two guesses), "fine-tuning" (the race), "decision";
        - ``candidate``: in words; its parts are in ``network``, ``layer``, ``head`` and
          ``unfreeze``;
        - ``n_images``: the number of images that were used, or in the race, trained on;
        - ``score``, ``standard_error``: mean of the folds, and its standard error;
        - ``seconds``: how long the measurement took;
        - ``images_per_second``: at prediction, with decoding, network and head;
        - ``fit_seconds``: for the stage "decision", the predicted time of a fit to all
          images;
        - ``recommended``: whether it is the recommended candidate of the "decision".

        Its ``attrs["scoring"]`` is the name of the score.

        The rows of the stage "decision" repeat the candidates that were compared at
        the end. Their scores are comparable. The score of a fine-tuned candidate is
        that of the candidate that it ran against, plus its gain in the race. Its
        standard error is that of the gain.

    recommendation_ : str
        The recommendation and its reasons, with the numbers; the advice of the CS231n
        rule of thumb [3]_; the predicted time of the final fit; and the steps that were
        not tried.

    recommended_estimator_ : Pipeline, FineTuneClassifier or FineTuneRegressor
        The recommended estimator, not fitted.

    best_estimator_ : Pipeline, FineTuneClassifier or FineTuneRegressor
        The same, fitted to all images. Only with ``refit=True``, and not after Ctrl-C.

    scorer_ : callable
        The scorer that `score` uses.

    gradient_norms_ : DataFrame or None
        The result of `skdeepfeat.inspection.relative_gradient_norms` for the network
        that was fine-tuned. None without a race.

    decision_seconds_ : float
        How long the decision took.

    refit_seconds_ : float
        How long the final fit took. Exists only if there was one.

    classes_ : ndarray
        The labels, of a classifier.

    n_features_in_ : int
        As of `best_estimator_`.

    See Also
    --------
    skdeepfeat.plotting.AdviceDisplay : Plot the scores over the speed.
    skdeepfeat.inspection.linear_probe : Only the layers of one network.

    Notes
    -----
    *What a score is.* All candidates are scored on the same folds. The folds of a part
    of the images are parts of the folds of all images. The race trains on the first
    images of a training fold, and scores the test images of each fold in up to five
    parts. Candidates are compared part by part, so a difference counts if the parts
    agree on it.

    *Ctrl-C* ends the decision. If there are scores by then, `fit` gives a
    `RuntimeWarning`, and `results_`, `recommendation_` and `recommended_estimator_`
    hold the results so far: ``advisor.recommended_estimator_.fit(X, y)`` uses them.

    *The same seed* gives the same scores. Which scores are measured depends on how fast
    the machine is, because the budget is in seconds. Rates and times of the candidates
    count as equal within 25 %. Rates on a CPU are computed from the CPU time of one
    image and the number of threads, so other programs do not change them much. With
    many cores the rates are too high, in the same way for all candidates.

    Images that cannot be read raise an error or are left out, depending on `on_error`
    of the extractors.

    References
    ----------
    .. [1] Jamieson and Talwalkar, "Non-stochastic best arm identification and
       hyperparameter optimization", AISTATS 2016.
    .. [2] Hastie, Tibshirani and Friedman, "The elements of statistical learning",
       2009, section 7.10.
    .. [3] Stanford University, "CS231n: Transfer learning",
       https://cs231n.github.io/transfer-learning.
    .. [4] Lee et al., "Surgical fine-tuning improves adaptation to distribution
       shifts", ICLR 2023.
    .. [5] Maron and Moore, "Hoeffding races: accelerating model selection search for
       classification and function approximation", NIPS 1993.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.model_selection import TransferAdvisor
    >>> digits = load_digits()
    >>> X, y = digits.images[:100] / 16, digits.target[:100]
    >>> advisor = TransferAdvisor(
    ...     ["efficientnet_lite0"],
    ...     time_budget=20,
    ...     cv=3,
    ...     extractor=PretrainedFeatureExtractor(image_size=32),
    ...     random_state=0,
    ... ).fit(X, y)
    >>> print(advisor.recommendation_)  # doctest: +SKIP
    >>> advisor.predict(X[:3]).shape
    (3,)
    """

    _parameter_constraints: dict = {
        "models": [list, tuple, None],
        "time_budget": [POSITIVE],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "task": [StrOptions({"auto", "classification", "regression"})],
        "extractor": [PretrainedFeatureExtractor, None],
        "refit": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        models=None,
        *,
        time_budget=600,
        scoring=None,
        cv=5,
        task="auto",
        extractor=None,
        refit=True,
        random_state=None,
        verbose=0,
    ):
        self.models = models
        self.time_budget = time_budget
        self.scoring = scoring
        self.cv = cv
        self.task = task
        self.extractor = extractor
        self.refit = refit
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep=True):
        """Return the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of estimators among the parameters.

        Returns
        -------
        params : dict
            An address among `models` does not show its password.
        """
        return shown_addresses(super().get_params(deep=deep))

    @public_function
    def fit(self, X, y, *, groups=None):
        """Decide, and fit the recommended estimator.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            As for `PretrainedFeatureExtractor`.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            One label per image, or one or several numbers.
        groups : array-like, shape (n_samples,), or None, default=None
            The groups for `cv`, such as the patient of each image.

        Returns
        -------
        self : TransferAdvisor
            The fitted estimator.

        Raises
        ------
        TypeError, ValueError
            If a parameter is wrong, if there are fewer images than folds, or only one
            class. No image has been read by then. A `ValueError` also if the budget is
            too small for one candidate.
        BadImageError
            If an image cannot be read, with ``on_error="raise"`` of an extractor.
        WeightsNotFoundError
            If the weights of a network are not on this machine and cannot be
            downloaded.

        Warns
        -----
        RuntimeWarning
            After Ctrl-C; see the Notes.
        BadImageWarning
            If images were left out, with ``on_error="nan"``.
        """
        self._validate_params()
        clock = Clock(self.time_budget)
        problem = make_problem(
            X,
            y,
            groups=groups,
            cv=self.cv,
            task=self.task,
            scoring=self.scoring,
            rng=check_random_state(self.random_state),
        )
        for name in ("best_estimator_", "refit_seconds_"):
            vars(self).pop(name, None)
        with cache_for_deciding() as cache, self._progress(clock) as on_row:
            networks = read_models(self.models, self.extractor, cache)
            for network in networks:
                network.extractor.fit(X)
            decision = Decision(networks, problem, clock, on_row)
            interrupted = False
            try:
                decision.run()
            except KeyboardInterrupt:
                if not decision.n:  # there is nothing to recommend
                    raise
                interrupted = True
            self._keep(decision, interrupted)
            if self.refit and not interrupted:
                self._fit_recommended(decision)
        self._warn(problem, interrupted)
        return self

    def _keep(self, decision, interrupted):
        """Set the attributes that need no final fit."""
        chosen = decision.recommended()
        rows = [*decision.rows, *_rows_of_pool(decision, chosen)]
        self.results_ = pd.DataFrame(rows)
        self.results_.attrs["scoring"] = decision.problem.score_name
        self.recommendation_ = recommend(decision, interrupted=interrupted)
        self.recommended_estimator_ = _make_estimator(decision, chosen)
        self.recommended_estimator_.set_params(**_own_cache(chosen))
        self.scorer_ = check_scoring(self.recommended_estimator_, self.scoring)
        race = decision.race
        self.gradient_norms_ = None if race is None else race.gradient_norms
        self.decision_seconds_ = decision.seconds

    def _fit_recommended(self, decision):
        problem, chosen = decision.problem, decision.recommended()
        start = time.perf_counter()
        estimator = _make_estimator(decision, chosen)
        if not chosen.is_tuned:
            # Heads do not accept rows of NaN; FineTune estimators leave them out.
            extractor = chosen.network.extractor
            if extractor.on_error == "nan":
                found = extract_layers(
                    extractor, problem.X, [chosen.layer], warns=False
                )
                problem.failures |= {one.index: one for one in found.failures}
        usable = np.setdiff1d(np.arange(len(problem)), list(problem.failures))
        X, y = problem.X, problem.y
        if problem.failures:
            X, y = problem.images(usable), y[usable]
        estimator.fit(X, y)
        self.best_estimator_ = estimator.set_params(**_own_cache(chosen))
        self.refit_seconds_ = time.perf_counter() - start

    def _warn(self, problem, interrupted):
        if failures := [error for _, error in sorted(problem.failures.items())]:
            warn_of(failures, in_training=True)
        if interrupted:
            warn(
                "The decision was interrupted. recommendation_, results_ and "
                "recommended_estimator_ hold what was decided until then. To predict, "
                "fit recommended_estimator_.",
                RuntimeWarning,
            )

    @contextlib.contextmanager
    def _progress(self, clock):
        """Yield a function that shows a row of the results."""
        with progress_bar(
            total=round(clock.budget),
            desc="deciding",
            unit="s",
            disable=self.verbose < 1,
        ) as bar:

            def on_row(row):
                bar.n = min(round(clock.elapsed), bar.total)
                bar.set_postfix_str(f"{row['candidate']}: {row['score']:.3f}")

            yield on_row

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        template = self.extractor or PretrainedFeatureExtractor()
        tags.input_tags = get_tags(template).input_tags
        tags.target_tags.required = True
        tags.non_deterministic = True  # a faster machine measures more
        task = {"classification": "classifier", "regression": "regressor"}.get(
            self.task
        )
        if hasattr(self, "best_estimator_"):
            task = get_tags(self.best_estimator_).estimator_type
        tags.estimator_type = task
        if task == "classifier":
            tags.classifier_tags = ClassifierTags()
        elif task == "regressor":
            tags.regressor_tags = RegressorTags()
            tags.target_tags.multi_output = True
        return tags


def _make_estimator(decision, candidate):
    if candidate.is_tuned:
        return make_tuned(candidate, decision.problem)
    n_features = decision.n_features(candidate)
    return make_pipeline_of(candidate, decision.problem, n_features)


def _own_cache(candidate):
    """Return the parameters that give an estimator the cache of the user."""
    name = "cache" if candidate.is_tuned else "extractor__cache"
    return {name: candidate.network.cache}


def _rows_of_pool(decision, chosen):
    """Return a row for each candidate that was compared at the end."""
    pool = decision.pool()
    ranked = sorted(pool, key=lambda one: -pool[one].mean)
    return [
        decision.row("decision", one, pool[one])
        | {"fit_seconds": decision.final_seconds(one), "recommended": one == chosen}
        for one in ranked
    ]
