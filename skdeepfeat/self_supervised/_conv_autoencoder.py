"""ConvAutoencoder: images as codes of a few numbers."""

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._choices import DEFAULT_MAX_PIXELS
from .._utils._constraints import AT_LEAST_2, POSITIVE_INT
from .._utils._device import free_device_memory, resolve_device
from .._utils._parameter_errors import check_sizes, choice_error
from .._utils._preprocessing import MAX_SIDE, Preprocessing
from .._utils._public_function import public_function
from ..feature_extraction import ExtractionSettings, ImageEstimatorMixin, load_readable
from ..networks import copy_module
from ..training import LoopSettings, PixelData, TrainingRun, make_optimizer
from ._conv_network import ConvNetwork
from ._corruptions import CORRUPTIONS, FeatureRanges, check_level
from ._restoring import (
    CONSTRAINTS,
    check_codes,
    compute_in_parts,
    hold_out,
    make_validate,
)

# max_epochs="auto": enough steps for hundreds of images, few epochs for thousands.
_N_STEPS = 3000
_AUTO_EPOCHS = (5, 200)

_N_AT_ONCE = 256

_HISTORY = ["epoch", "train_loss", "validation_loss", "learning_rate", "seconds"]


class ConvAutoencoder(ImageEstimatorMixin, LearnedTransformer):
    """A convolutional network that squeezes images into codes and restores them.

    `transform` returns the code, which has `n_components` numbers. An image of 32 x 32
    pixels has 3,072. With a `corruption`, the network learns to restore clean images
    from damaged ones.

    Parameters
    ----------
    n_components : int, default=64
        Number of floats of the code.

    image_size : int or pair of int, default=32
        Height and width in pixels that images are resized to.

    model : str, torch.nn.Module or None, default=None
        The encoder up to the code, as for `PretrainedFeatureExtractor`. None is a small
        network of convolutions, which is trained from scratch.

    weights : str, path-like or torchvision weights, default="default"
        Of `model`, as for `PretrainedFeatureExtractor`.

    corruption : {"mask", "gaussian", "salt_pepper"} or None, default=None
        How training damages the inputs, as for `Autoencoder`: ``"mask"`` makes values
        black, and ``"salt_pepper"`` makes them black or white.

    corruption_level : float, default=0.3
        For ``"gaussian"``, the standard deviation of the noise, in standard deviations
        of the pixels. Otherwise the fraction of the damaged values, in [0, 1].

    max_epochs : int or "auto", default="auto"
        Number of epochs. ``"auto"`` aims at about 3,000 steps, with at least 5 and at
        most 200 epochs.

    batch_size : int, default=64
        Number of images in a step.

    learning_rate : float, default=2e-3
        Highest learning rate of AdamW, on a one-cycle schedule. The stages of a `model`
        learn at a tenth of this rate.

    early_stopping : bool, default=False
        Whether to stop when the error of held-out images has not improved for
        `n_iter_no_change` epochs, and to restore the best weights.

    validation_fraction : float, default=0.1
        Fraction of the images, in (0, 1), that early stopping holds out.

    n_iter_no_change : int, default=10
        Number of epochs without a smaller error before training stops.

    device : str or torch.device, default="auto"
        ``"auto"`` selects the first of cuda, mps and xpu that is available, and the CPU
        otherwise.

    random_state : int, RandomState instance or None, default=None
        Determines the first weights, the order of the images, the corruption and the
        held-out images.

    on_error : {"raise", "nan"}, default="raise"
        What to do with an image that cannot be read: raise a `BadImageError`, or leave
        it out of the training and return a row of NaN for it, with one warning.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a `model` of your own, as for `PretrainedFeatureExtractor`.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused before they are decoded.

    storage_options : dict or None, default=None
        As for `PretrainedFeatureExtractor`.

    verbose : int, default=0
        Above 0, show progress bars.

    Attributes
    ----------
    network_ : torch.nn.Module
        The trained network, on the CPU.

    image_shape_ : tuple of (int, int, int)
        Height, width and channels of restored images.

    history_ : DataFrame
        One row per epoch: ``epoch``, ``train_loss``, ``validation_loss``,
        ``learning_rate`` and ``seconds``.

    best_epoch_ : int or None
        With early stopping, the epoch whose weights were kept.

    n_features_in_ : int
        Number of columns of X: 1, or the length of flat rows.

    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    Autoencoder : The same for rows of numbers.
    skdeepfeat.plotting.ReconstructionDisplay : Shows restored images.

    Notes
    -----
    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The tasks of `fit` are its phases, and their tasks
    are epochs. A callback whose ``on_fit_task_end`` returns True ends the phase.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import ConvAutoencoder
    >>> X = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    >>> autoencoder = ConvAutoencoder(4, image_size=16, max_epochs=1).fit(X)
    >>> autoencoder.transform(X).shape
    (8, 4)
    >>> autoencoder.inverse_transform(autoencoder.transform(X)).shape
    (8, 16, 16, 3)
    """

    _parameter_constraints: dict = {
        **ImageEstimatorMixin._parameter_constraints,
        **CONSTRAINTS,
        "n_components": [POSITIVE_INT],
        "image_size": [POSITIVE_INT, "array-like"],
        "model": [str, nn.Module, None],
        "batch_size": [AT_LEAST_2],
        "device": [str, torch.device],
    }

    # ImageEstimatorMixin asks for it; codes are not cached, as they take milliseconds.
    cache = None

    def __init__(
        self,
        n_components=64,
        *,
        image_size=32,
        model=None,
        weights="default",
        corruption=None,
        corruption_level=0.3,
        max_epochs="auto",
        batch_size=64,
        learning_rate=2e-3,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        device="auto",
        random_state=None,
        on_error="raise",
        preprocessing=None,
        flat_image_shape=None,
        max_pixels=DEFAULT_MAX_PIXELS,
        storage_options=None,
        verbose=0,
    ):
        self.n_components = n_components
        self.image_size = image_size
        self.model = model
        self.weights = weights
        self.corruption = corruption
        self.corruption_level = corruption_level
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.random_state = random_state
        self.on_error = on_error
        self.preprocessing = preprocessing
        self.flat_image_shape = flat_image_shape
        self.max_pixels = max_pixels
        self.storage_options = storage_options
        self.verbose = verbose

    @public_function
    @with_callbacks
    def fit(self, X, y=None):
        """Train on images.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            As for `PretrainedFeatureExtractor`.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If fewer than 2 images can be read.
        BadImageError
            With ``on_error="raise"``, at the first image that cannot be read.
        TrainingDivergedError
            If the loss is NaN or infinite. The estimator then has the weights of the
            last good epoch.

        Warns
        -----
        RuntimeWarning
            If the training was interrupted. The estimator then has the weights so far.
        """
        self._validate_params()
        check_level(self.corruption, self.corruption_level)
        callbacks = FitCallbacks(self, 1, X, y)
        X = self._check_images(X, reset=True)
        device = resolve_device(self.device)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        pixels, rows = self._pixels(X, self._size(), in_training=True)
        if len(rows) < 2:
            raise ValueError(
                f"X must have at least 2 images that can be read. Got {len(rows)}."
            )
        body, pretrained = self._body()
        self.image_shape_ = (*self._size(), 3)
        self.network_ = ConvNetwork(self._size(), self.n_components, body, seed)
        rows, held_out = hold_out(self, rows, seed)
        try:
            self._train(pixels, rows, held_out, pretrained, device, seed, callbacks)
        finally:
            free_device_memory(device)
        callbacks.close()
        return self

    def _train(self, pixels, rows, held_out, pretrained, device, seed, callbacks):
        """Train the network on some of the images, and record its epochs."""
        # A low rate, to preserve the features of the pretrained network.
        known = {id(one) for _, one in pretrained}
        new = [
            one for one in self.network_.named_parameters() if id(one[1]) not in known
        ]
        self.network_.to(device)
        optimizer = make_optimizer(
            "adamw",
            [pretrained, new],
            learning_rate=self.learning_rate,
            layer_decay=0.1,
        )
        settings = LoopSettings.one_cycle(
            self, len(rows), _N_STEPS, _AUTO_EPOCHS,
            phase="network", max_grad_norm=1.0, seed=seed,
        )  # fmt: skip
        run = TrainingRun(self.network_, optimizer, _squared_errors, settings, device)
        data = _RestoredImages(pixels, rows, self.corruption, self.corruption_level)

        def attributes():
            return {
                "network_": copy_module(self.network_).cpu().eval(),
                "history_": pd.DataFrame(run.history, columns=_HISTORY),
                "best_epoch_": run.best_epoch,
            }

        validate = None
        if held_out is not None:
            unseen = _as_tensor(pixels[held_out])
            validate = make_validate(_squared_errors, unseen, _N_AT_ONCE, device)
        self._learn(callbacks, run, data, rows, attributes, validate)

    @public_function
    def transform(self, X):
        """Return the codes of images.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            The images.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
            One row per sample.
        """
        return self._encode(X)[0]

    @public_function
    def inverse_transform(self, X):
        """Return the images that codes decode to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.

        Returns
        -------
        ndarray of uint8, shape (n_samples, height, width, 3)
            RGB images.
        """
        check_is_fitted(self)
        codes = check_codes(self, X)
        return np.round(255 * self._decode(codes)).astype(np.uint8)

    @public_function
    def resized(self, X):
        """Return images as the network sees them.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            The images.

        Returns
        -------
        ndarray of uint8, shape (n_samples, height, width, 3)
            RGB images.
        """
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        return self._pixels(X, self.image_shape_[:2])[0]

    @public_function
    def reconstruction_error(self, X):
        """Return how far restored images are from the images themselves.

        Parameters
        ----------
        X : array-like of images, shape (n_samples,)
            The images.

        Returns
        -------
        ndarray of float64, shape (n_samples,)
            Mean squared error of each image, for values in [0, 1]. NaN for an image
            that cannot be read.
        """
        codes, pixels, readable = self._encode(X)
        errors = np.full(len(codes), np.nan)
        restored = self._decode(codes[readable])
        differences = restored - pixels[readable] / 255.0
        errors[readable] = (differences**2).mean(axis=(1, 2, 3))
        return errors

    @property
    def _n_features_out(self):
        return self.network_.to_code.out_features

    def _size(self):
        size = check_sizes("image_size", self.image_size, least=4)
        if len(size) > 2 or max(size) > MAX_SIDE:
            wanted = f"an int or a pair of int, from 4 to {MAX_SIDE}"
            raise choice_error("image_size", wanted, self.image_size)
        return size[0], size[-1]

    def _pixels(self, X, size, *, in_training=False):
        """Return the resized images, and which of them could be read."""
        height, width = size
        # A square is the center of the image.
        resize = height if height == width else (height, width)
        return load_readable(
            X,
            Preprocessing(resize, (height, width)),
            ExtractionSettings.of(self),
            in_training=in_training,
        )

    def _body(self):
        """Return the encoder of `model`, and its parameters with their names."""
        if self.model is None:
            return None, []
        body = self._neck_of_parameters(image_size=self._size()).trainable()
        body.train_parts(range(body.n_stages), freeze_statistics=True)
        return body, [one for group in body.parameter_groups() for one in group]

    def _encode(self, X):
        """Return codes, the images, and which of them could be read."""
        check_is_fitted(self)
        X = self._check_images(X, reset=False)
        pixels, readable = self._pixels(X, self.image_shape_[:2])
        codes = np.full((len(pixels), self._n_features_out), np.nan, np.float32)
        if len(readable):
            images = _as_tensor(pixels[readable])
            found = compute_in_parts(self.network_.encode, images, _N_AT_ONCE)
            codes[readable] = found.numpy()
        return codes, pixels, readable

    def _decode(self, codes):
        """Return images as float64 in [0, 1]."""
        if not len(codes):
            return np.empty((0, *self.image_shape_))
        # A copy, because a frame's values are read-only.
        codes = torch.tensor(codes)
        logits = compute_in_parts(self.network_.decode, codes, _N_AT_ONCE).double()
        return logits.sigmoid().permute(0, 2, 3, 1).numpy()


class _RestoredImages(PixelData):
    """Images whose targets are the images themselves, and whose inputs are damaged."""

    def __init__(self, pixels, rows, corruption, level):
        super().__init__(
            pixels, _Targets(pixels, rows), torch.ones(len(rows)), None, rows
        )
        self._corrupt = CORRUPTIONS.get(corruption)
        self._level = level
        if self._corrupt is not None:
            # A sample is enough for the deviation of the noise.
            scale = pixels[rows[:1000]].std(axis=(0, 1, 2), dtype=np.float64) / 255
            black, white = np.zeros(3, np.float32), np.ones(3, np.float32)
            self._ranges = FeatureRanges(black, black, white, scale.astype(np.float32))

    def batch(self, rows, rng, positions, n_total):
        """Return images (n, 3, H, W), uint8 or floats in [0, 1]."""
        images = self.pixels[self.rows[rows]]
        if self._corrupt is not None:
            clean = images.astype(np.float32) / 255
            images = self._corrupt(clean, self._level, rng, self._ranges).clip(0, 1)
            images = images.astype(np.float32)
        return _as_tensor(images)


class _Targets:
    """The images as targets, read when they are needed."""

    def __init__(self, pixels, rows):
        self._pixels = pixels
        self._rows = rows

    def __getitem__(self, rows):
        return _as_tensor(self._pixels[self._rows[rows]])


def _squared_errors(outputs, targets):
    return (outputs.sigmoid() - targets.float() / 255).pow(2).mean(dim=(1, 2, 3))


def _as_tensor(pixels):
    """Return images as a tensor of shape (n_images, 3, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
