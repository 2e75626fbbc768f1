"""A callback of scikit-learn that notes what it is told."""


class Recorder:
    """Keeps what it is told, and ends a phase after `n_epochs` epochs of it."""

    def __init__(self, n_epochs=None):
        self.n_epochs = n_epochs
        self.calls, self.rows, self.fitted = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(f"{context.task_name} begins")

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None,
        fitted_estimator=None,
    ):  # fmt: skip
        self.calls.append(f"{context.task_name} ends")
        if context.task_name != "epoch":
            return False
        self.rows.append((len(X), None if y is None else len(y), metadata))
        self.fitted.append(fitted_estimator)
        return context.task_id + 1 == self.n_epochs
