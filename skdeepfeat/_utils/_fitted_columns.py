"""The names and the number of columns of X that `fit` saw."""

from sklearn.utils.validation import validate_data


def note_columns(estimator, X, *, reset, is_table=None):
    """Set or check the names and number of the columns of X; 1 if it is not a table.

    Parameters
    ----------
    estimator : estimator
        A stateless one need not be fitted, and then there is nothing to compare with.
    X : object
    reset : bool
        Whether this is `fit`.
    is_table : bool or None, default=None
        None means that X is a table if it is a data frame.
    """
    if is_table is None:
        is_table = hasattr(X, "columns")
    if is_table and (reset or hasattr(estimator, "n_features_in_")):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    elif reset:
        estimator.n_features_in_ = 1
        vars(estimator).pop("feature_names_in_", None)
