"""Constraints that several parameters share, for scikit-learn's validation."""

import numbers

from sklearn.utils._param_validation import Interval

COUNT = Interval(numbers.Integral, 0, None, closed="left")
SEED = Interval(numbers.Integral, 0, 2**32 - 1, closed="both")
POSITIVE_INT = Interval(numbers.Integral, 1, None, closed="left")
AT_LEAST_2 = Interval(numbers.Integral, 2, None, closed="left")
NOT_NEGATIVE = Interval(numbers.Real, 0, None, closed="left")
POSITIVE = Interval(numbers.Real, 0, None, closed="neither")
FRACTION = Interval(numbers.Real, 0, 1, closed="left")
INNER_FRACTION = Interval(numbers.Real, 0, 1, closed="neither")
FACTOR = Interval(numbers.Real, 0, 1, closed="right")

N_JOBS = [POSITIVE_INT, Interval(numbers.Integral, None, -1, closed="right"), None]
