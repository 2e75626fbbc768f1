"""What other packages do with a fitted estimator: new networks, training, results."""

from sklearn.base import is_regressor
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..feature_extraction import load_readable
from ..training import make_loss
from ._rows import refuse_rows
from ._saving import at_rest
from ._scoring import with_outputs
from ._targets import checked_y
from ._trial import copy_with, require_fine_tune
from ._views import with_margin

# Parameters about the user's X or machine. Images are passed as pixels instead.
_ON_PIXELS = {
    "flat_image_shape": None,
    "cache": None,
    "checkpoint": None,
    "on_error": "raise",
    "storage_options": None,
    # It may not accept pixels.
    "teacher": None,
}


class PixelsToResult(nn.Module):
    """From decoded pixels to the results of the estimator.

    The modules are put into evaluation mode and frozen.

    Parameters
    ----------
    neck : TrainableNeck
    head : Module, default=None
        None returns the features.
    finish : Module, default=None
        From the outputs of the head to the result, such as a softmax.
    """

    def __init__(self, neck, head=None, finish=None):
        super().__init__()
        self.neck = neck
        self.head = nn.Identity() if head is None else head
        self.finish = nn.Identity() if finish is None else finish
        self.eval().requires_grad_(False)
        for module in neck.modules():
            # torch's exporter decomposes ReLU6 and the like in place into many small
            # steps, which takes a quarter of its time.
            if isinstance(module, (nn.Hardtanh, nn.Hardswish)):
                module.inplace = False

    def forward(self, images):
        """Return the results of uint8 images, shape (n_images, height, width, 3)."""
        return self.finish(self.head(self.neck(images.permute(0, 3, 1, 2))))


class FittedEstimator:
    """A fitted estimator, for packages that work with its networks.

    They use this instead of its private members.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        It is not changed.
    caller : str
        The function that has the parameter `estimator`, for errors.

    Attributes
    ----------
    estimator : BaseFineTune
    neck : Neck

    Raises
    ------
    TypeError
        If it is another estimator.
    NotFittedError
    ValueError
        If it was fitted to rows of numbers.
    """

    def __init__(self, estimator, caller="compression"):
        require_fine_tune(estimator, caller)
        check_is_fitted(estimator)
        refuse_rows(estimator, caller)
        self.estimator = estimator
        self.neck = estimator._fitted_neck()

    def with_networks(self, body, head, params=None):
        """Return a fitted estimator like this one, with its own networks.

        Parameters
        ----------
        body, head : Module
        params : dict, default=None
            Parameters that differ.

        Returns
        -------
        BaseFineTune
        """
        return copy_with(
            self.estimator,
            history_=self.estimator.history_.copy(),
            body_=at_rest(body),
            head_=at_rest(head),
            **params or {},
        )

    def as_teacher(self):
        """Return it as a teacher that takes decoded images, or None.

        None if its loss gives no probabilities to learn.
        """
        estimator = self.estimator
        is_taught = is_regressor(estimator) or hasattr(estimator, "predict_proba")
        return on_pixels(estimator) if is_taught else None

    def decode(self, X, *, margin=False):
        """Decode images once, so that what follows does not need the files.

        Parameters
        ----------
        X : array-like of images
        margin : bool, default=False
            Whether to keep the margin for random crops. To the estimator of
            `on_pixels`, such images are what X is to the estimator.

        Returns
        -------
        pixels : ndarray of uint8, shape (n_images, height, width, 3)
            Without the images that cannot be read.
        indices : ndarray of int
            Those of the images in X.
        """
        X = self.estimator._check_images(X, reset=False)
        preprocessing = self.neck.preprocessing
        if margin:
            preprocessing = with_margin(preprocessing)
        settings = self.estimator._extraction_settings()
        pixels, indices = load_readable(X, preprocessing, settings, warns=False)
        return pixels if len(indices) == len(pixels) else pixels[indices], indices

    def checked_targets(self, X, y):
        """Return y as `fit` would check it."""
        X = self.estimator._check_images(X, reset=False)
        return checked_y(self.estimator, y, X, dtype=self.estimator._y_dtype)

    def loss_of(self, y):
        """Return its task, its loss without smoothing, and its targets.

        Returns
        -------
        task : {"single", "multilabel", "regression"}
        loss : callable
            ``loss(outputs, targets) -> Tensor of shape (n_samples,)``
        targets : Tensor
        """
        targets = self.estimator._encode(y)
        loss = make_loss(self.estimator.loss, targets.task)
        return targets.task, loss, targets.tensor()

    def train_further(self, X, y, n_epochs, random_state, teacher=None):
        """Return a copy of the estimator that was trained for more epochs.

        Parameters
        ----------
        X, y : as for its `fit`
        n_epochs : int
        random_state : int or RandomState
        teacher : estimator, default=None
            Its outputs are learned in addition to y; see `as_teacher`.

        Returns
        -------
        estimator : BaseFineTune
        interrupted : bool
            Whether Ctrl-C ended the training early.
        """
        estimator = self.estimator
        params = estimator.get_params(deep=False)
        changed = {
            "warm_start": True,
            "max_epochs": n_epochs,
            "early_stopping": False,
            "unfreeze": params["unfreeze"] or "all",
            "teacher": teacher,
            "random_state": check_random_state(random_state).randint(2**31 - 1),
        }
        trained = self.with_networks(estimator.body_, estimator.head_, changed)
        trained.fit(X, y)
        done = trained.n_epochs_ - estimator.n_epochs_
        kept = {name: params[name] for name in changed}
        return trained.set_params(**kept), done < n_epochs

    def pixels_to_result(self):
        """Return what an export computes, its result's name, and metadata.

        Returns
        -------
        network : PixelsToResult
        name : str
        notes : dict of str to JSON types
        """
        finish, name, notes = self.estimator._export_result()
        head = self.estimator.head_
        return PixelsToResult(self.neck.trainable(), head, finish), name, notes

    def with_results(self, results):
        """Return a fitted estimator whose X is positions of known results.

        Parameters
        ----------
        results : ndarray
            What an exported file returns.
        """
        outputs = self.estimator._outputs_of_results(results)
        return with_outputs(self.estimator, outputs)


def on_pixels(estimator):
    """Return a fitted estimator like another one that takes decoded images."""
    return copy_with(estimator, **_ON_PIXELS)
