"""`compress`: a smaller network with the same use."""

import math

import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from .._utils._constraints import (
    COUNT,
    INNER_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_INT,
)
from .._utils._parameter_errors import check_several
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._shown import shown
from .._utils._warn import warn
from ._criteria import CRITERIA
from ._layers import batches_of
from ._model import drop_unused_head
from ._report import describe_layers, describe_networks
from ._search import METHODS, Limits, NothingToCompressError, Outcome
from ._subjects import make_subject
from ._timing import checked_runtimes

# Additional data in the tables of a saved file, for each layer and method.
_BYTES_OF_ROW = 400
_BYTES_OF_HEADER = 4096


@public_function
@validate_params(
    max_score_drop=[NOT_NEGATIVE],
    max_bytes=[POSITIVE_INT, None],
    max_relative_error=[POSITIVE],
    validation_fraction=[INNER_FRACTION],
    fine_tune_epochs=[StrOptions({"auto"}), COUNT],
    criterion=[StrOptions(set(CRITERIA))],
    random_state=["random_state"],
)
def compress(
    estimator,
    X,
    y=None,
    *,
    method="low_rank",
    max_score_drop=0.01,
    max_bytes=None,
    max_relative_error=0.05,
    scoring=None,
    validation_fraction=0.25,
    fine_tune_epochs="auto",
    criterion="taylor",
    runtimes="installed",
    random_state=None,
):
    """Return a fitted estimator with a smaller network.

    The network is made as small as the limits allow. Scores are taken on a part of X
    that neither calibrates a method nor trains a network. They decide how small the
    network becomes and whether its training helped, so the score of the returned
    network is slightly optimistic. For a final figure, score it on other images.

    The result is an estimator like the given one, which is not changed: `predict`,
    `transform`, `save`, `load` and `to_onnx` work as before, and so does its `body_` as
    the `model` of an extractor. Its features are cached separately. The parameter
    `model` of a fine-tuning estimator is still the original network, so
    ``clone(small).fit(X, y)`` trains that one. To continue from the small network, set
    ``warm_start=True`` or pass ``small.body_`` as `model`.

    A network with fewer multiply-adds is not always faster, so the time of each network
    is measured (see ``compression_summary_``).

    Parameters
    ----------
    estimator : FineTuneClassifier, FineTuneRegressor or PretrainedFeatureExtractor
        A fine-tuning estimator must be fitted.

    X : array-like of images
        As for the estimator. A part of the images calibrates the method and trains the
        small network, the others score it.

    y : array-like, default=None
        As for `fit` of the estimator. Not used for an extractor.

    method : str or list of str, default="low_rank"
        How the network is made smaller. A list applies one method after the other.

        * ``"low_rank"``: layers become two layers with few features between them. For
          linear layers and 1x1 convolutions these are the principal components of the
          responses [1]_. For other convolutions, they are the better of that and of
          columns followed by rows [2]_. Ranks are lowered where this loses the least
          energy per saved multiply-add.
        * ``"svd"``: the same with the singular values of the weights, without regard to
          the images [3]_.
        * ``"tucker"``: convolutions act on fewer channels [4]_. The two ranks keep a
          share of the energy of the kernel, split evenly between them. The share is
          lowered as above. Other layers are treated as with ``"svd"``.
        * ``"tensor_train"``: linear layers become products of small tensors [5]_. This
          saves memory, not time.
        * ``"prune"``: channels are removed by `criterion` in rounds: remove, train,
          repeat. Only channels inside blocks can be removed. ``compression_report_``
          says why the other layers stay.
        * ``"obd_weights"``: single weights are set to zero by Optimal Brain Damage
          [6]_, without training. The file and the time do not change. The column
          ``sparse_bytes`` has the size of a sparse file.

    max_score_drop : float, default=0.01
        How much the score of the validation part may drop. Several methods share it
        equally. Not used for an extractor.

    max_bytes : int or None, default=None
        If set, the largest network that fits, including the header of its file, is
        returned, because it has the best score. A score that drops further than
        `max_score_drop` then gives a warning. Of several methods, the last one makes
        the network fit. It cannot be ``"obd_weights"``.

    max_relative_error : float, default=0.05
        How much the features of an extractor may change: the mean over images of the
        norm of the difference, divided by the norm of the features.

    scoring : str, callable or None, default=None
        A scorer of scikit-learn. None uses the `score` of the estimator.

    validation_fraction : float, default=0.25
        Fraction of the images, in (0, 1), that are used for the scores. Candidates are
        chosen by these scores only.

    fine_tune_epochs : int or "auto", default="auto"
        Number of epochs of training for each candidate, with the settings of the
        estimator. The estimator is the teacher, and its `distill_weight` is the weight
        of its outputs relative to y. With ``loss="hinge"`` there is no teacher. If
        training lowers the score of a candidate, the candidate stays untrained.
        ``"auto"`` is about 400 steps, at least 2 and at most 4 epochs. An extractor is
        not trained.

    criterion : {"taylor", "obd", "apoz", "magnitude"}, default="taylor"
        How ``"prune"`` ranks the channels. It removes the lowest ones.

        * ``"taylor"``: first-order change of the loss [7]_.
        * ``"obd"``: second-order change of the loss with a factor of the channel, h a^2
          / 2, where h is from the diagonal of the Gauss-Newton matrix [6]_.
        * ``"apoz"``: share of positions that are zero [8]_; the mean absolute value for
          channels that are never zero.
        * ``"magnitude"``: norm of the weights.

    runtimes : "installed" or list of {"torch", "openvino", "onnxruntime"}, \
            default="installed"
        The runtimes in which the networks are timed. OpenVINO and ONNX Runtime are in
        the extra ``[int8]``. ONNX Runtime adds several seconds for each network,
        because the network has to be exported.

    random_state : int, RandomState instance or None, default=None
        Determines how X is split, and the training.

    Returns
    -------
    small : estimator of the same class
        Fitted, with these attributes.

        ``compression_report_`` : DataFrame
            One row per method and layer: method, layer, kind, size (remaining ranks or
            channels), parameters_before, parameters, nonzero_parameters,
            multiply_adds_before, multiply_adds (for one image), relative_error (square
            root of the lost energy of the responses or the weights, an upper bound for
            Tucker factors; NaN for layers that are not factorized) and note (why a
            layer did not change).
        ``compression_summary_`` : DataFrame
            One row per network, ``"before"`` and after each method: network, score (or
            relative_error, for an extractor), parameters, bytes (of network and head;
            the file of `save` adds a header of some kB, and the original network if it
            is a module of your own), sparse_bytes, multiply_adds, and milliseconds per
            image of the network, from decoded pixels to features, at batch sizes 1 and
            32, in each of `runtimes`. The old head is not used and never counts.

    Raises
    ------
    TypeError
        If there is no network in `estimator`.
    ValueError
        If a parameter is invalid, the (first) method finds nothing to make smaller, y
        is missing, the images cannot be split, or the score is not finite.
    ImportError
        If one of `runtimes` is not installed.

    Warns
    -----
    RuntimeWarning
        If no network keeps the limits; the best one is returned. If a method after the
        first one finds nothing to make smaller. After Ctrl-C; the last network that
        keeps the limits is returned, or else the result of the previous methods.

    References
    ----------
    .. [1] Zhang et al., "Accelerating very deep convolutional networks for
       classification and detection", TPAMI 2016.
    .. [2] Jaderberg, Vedaldi and Zisserman, "Speeding up convolutional neural networks
       with low rank expansions", BMVC 2014.
    .. [3] Denton et al., "Exploiting linear structure within convolutional networks for
       efficient evaluation", NeurIPS 2014.
    .. [4] Kim et al., "Compression of deep convolutional neural networks for fast and
       low power mobile applications", ICLR 2016.
    .. [5] Novikov et al., "Tensorizing neural networks", NeurIPS 2015.
    .. [6] LeCun, Denker and Solla, "Optimal brain damage", NeurIPS 1990.
    .. [7] Molchanov et al., "Pruning convolutional neural networks for resource
       efficient inference", ICLR 2017.
    .. [8] Hu et al., "Network trimming: A data-driven neuron pruning approach towards
       efficient deep architectures", 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.compression import compress
    >>> digits = load_digits().images[:40] / 16
    >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
    >>> small = compress(extractor, digits, max_relative_error=0.2, random_state=0)
    >>> small.transform(digits).shape
    (40, 1280)
    """
    methods = check_several("method", method, METHODS)
    if max_bytes is not None and methods[-1] == "obd_weights":
        raise ValueError(
            "The 'max_bytes' parameter of compress must be None if the last method is "
            "'obd_weights', whose zeros take as many bytes as other numbers. Got "
            f"{max_bytes} instead. Let another method make the network fit."
        )
    runtimes = checked_runtimes(runtimes)
    random_state = check_random_state(random_state)
    subject = make_subject(
        estimator, X, y, scoring, validation_fraction, random_state, fine_tune_epochs
    )
    is_extractor = subject.task == "features"
    allowed = max_relative_error if is_extractor else max_score_drop
    model, score = model_and_score(subject, scoring)
    names, models, rows, scores = ["before"], [model], [], [score]
    n_modules = len(list(model.network.modules()))
    reserved = _BYTES_OF_HEADER + _BYTES_OF_ROW * len(methods) * n_modules
    for number, name in enumerate(methods, 1):
        is_last = number == len(methods)
        limit = None if max_bytes is None or not is_last else max_bytes - reserved
        limits = Limits(scores[0] - allowed * number / len(methods), limit)
        try:
            outcome = METHODS[name](subject, model, criterion).search(limits)
        except (KeyboardInterrupt, NothingToCompressError) as error:
            if number == 1:
                raise
            # The results of earlier methods are not lost.
            outcome = Outcome(model, scores[-1])
            outcome.interrupted = isinstance(error, KeyboardInterrupt)
            if not outcome.interrupted:
                warn(str(error), RuntimeWarning)
        if outcome.score is None:
            outcome.score = subject.score(outcome.model)
        rows += describe_layers(name, model, outcome, subject.pixels)
        _warn(name, outcome, scores[0], limits, subject, max_bytes)
        model = outcome.model
        names.append(f"after {name}")
        models.append(model)
        scores.append(outcome.score)
        if outcome.interrupted:
            break
    small = subject.result(model)
    small.compression_report_ = pd.DataFrame(rows)
    small.compression_summary_ = describe_networks(
        subject, names, models, scores, runtimes
    )
    return small


def model_and_score(subject, scoring):
    """Return the model of a subject without its old head, and its score.

    Raises
    ------
    ValueError
        If the score is not finite.
    """
    model = subject.model()
    score = subject.score(model)
    if not math.isfinite(score):
        raise ValueError(
            "The 'scoring' parameter must give a finite score for the original "
            f"estimator. Got {shown(scoring)} instead, which gives {score}."
        )
    drop_unused_head(model, next(batches_of(subject.pixels))[:2])
    return model, score


def _warn(name, outcome, score, limits, subject, max_bytes):
    """Warn of limits that are not kept, and of an interruption."""
    messages = []
    if outcome.interrupted:
        messages.append(
            f"compress was interrupted during {name!r}. The last network that it had "
            "found is returned."
        )
    if not limits.fits(outcome.model):
        messages.append(
            f"The smallest network that {name!r} gives has {outcome.model.n_bytes} "
            f"bytes, and its file has a header: more than 'max_bytes' ({max_bytes}). "
            "It is returned. Use another method, or several."
        )
    if outcome.score < limits.lowest_score:
        what, remedy = "max_relative_error", "Allow more, or try another method."
        if subject.score_name == "score":
            what = "max_score_drop"
            remedy = (
                "Allow more, try another method, or train longer (fine_tune_epochs)."
            )
        messages.append(
            f"The {subject.score_name} of the network after {name!r} differs by "
            f"{score - outcome.score:.4g} from that of the original, which is more "
            f"than {what!r} allows here ({score - limits.lowest_score:.4g}). It is "
            f"returned, as the best one that was found. {remedy}"
        )
    for message in messages:
        warn(message, RuntimeWarning)
