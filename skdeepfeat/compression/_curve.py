"""`compression_curve`: score against time and size."""

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from .._utils._constraints import COUNT, INNER_FRACTION, POSITIVE_INT
from .._utils._parameter_errors import check_several
from .._utils._pareto import is_pareto
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._warn import warn
from ._compress import model_and_score
from ._criteria import CRITERIA
from ._report import describe_networks
from ._search import METHODS, NothingToCompressError
from ._subjects import make_subject
from ._timing import checked_runtimes


@public_function
@validate_params(
    steps=[POSITIVE_INT],
    validation_fraction=[INNER_FRACTION],
    fine_tune_epochs=[StrOptions({"auto"}), COUNT],
    criterion=[StrOptions(set(CRITERIA))],
    random_state=["random_state"],
)
def compression_curve(
    estimator,
    X,
    y=None,
    *,
    method="low_rank",
    steps=6,
    scoring=None,
    validation_fraction=0.25,
    fine_tune_epochs="auto",
    criterion="taylor",
    runtimes="installed",
    random_state=None,
):
    """Return the scores and the costs of smaller and smaller networks.

    Parameters
    ----------
    estimator, X, y
        As for `compress`.

    method : str or list of str, default="low_rank"
        One or several of the methods of `compress`. Each begins with the original
        network.

    steps : int, default=6
        Number of networks for each method. There may be fewer if less can be removed.

    scoring, validation_fraction, fine_tune_epochs, criterion, runtimes
        As for `compress`.

    random_state : int, RandomState instance or None, default=None
        As for `compress`.

    Returns
    -------
    curve : DataFrame
        One row per network: method (``"none"`` for the original network), the columns
        of ``compression_summary_`` of `compress`, and two flags: ``pareto_time`` if no
        other network is at least as good and as fast, in the last column of times, and
        ``pareto_bytes`` if no other network is at least as good and as small.

    Raises
    ------
    TypeError, ValueError
        As `compress`.

    Warns
    -----
    RuntimeWarning
        If a method after the first one finds nothing to make smaller. After Ctrl-C, if
        there is a smaller network; the networks so far are returned.

    See Also
    --------
    skdeepfeat.plotting.CompressionDisplay : Plot the curve.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.compression import compression_curve
    >>> digits = load_digits().images[:40] / 16
    >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
    >>> curve = compression_curve(extractor, digits, steps=2, random_state=0)
    >>> curve["method"].tolist()
    ['none', 'low_rank', 'low_rank']
    """
    methods = check_several("method", method, METHODS)
    runtimes = checked_runtimes(runtimes)
    random_state = check_random_state(random_state)
    subject = make_subject(
        estimator, X, y, scoring, validation_fraction, random_state, fine_tune_epochs
    )
    start, score = model_and_score(subject, scoring)
    labels, models, scores = ["none"], [start], [score]
    for name in methods:
        try:
            for found in METHODS[name](subject, start, criterion).walk(steps):
                if not np.isfinite(found.score):
                    continue  # the network returns NaN
                labels.append(name)
                models.append(found.model)
                scores.append(found.score)
        except (KeyboardInterrupt, NothingToCompressError) as error:
            if len(models) == 1:
                raise
            # The networks found so far are not lost.
            interrupted = isinstance(error, KeyboardInterrupt)
            message = f"It was interrupted during {name!r}." if interrupted else error
            warn(f"Networks are missing from the curve. {message}", RuntimeWarning)
            if interrupted:
                break
    names = ["before", *(f"{k}: {label}" for k, label in enumerate(labels[1:], 1))]
    curve = describe_networks(subject, names, models, scores, runtimes)
    curve.insert(0, "method", labels)
    times = [column for column in curve if column.startswith("ms_per_image")]
    goodness = np.array(scores)
    curve["pareto_time"] = is_pareto(goodness, curve[times[-1]])
    curve["pareto_bytes"] = is_pareto(goodness, curve["bytes"])
    return curve
