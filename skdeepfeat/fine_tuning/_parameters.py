"""The parameters that FineTuneClassifier and FineTuneRegressor have in common."""

import numbers
import os

import torch
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import nn

from .._utils._choices import PRECISIONS
from .._utils._constraints import (
    COUNT,
    FACTOR,
    FRACTION,
    INNER_FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_INT,
)
from .._utils._parameter_errors import choice_error, is_int
from ..cache import CACHE_CONSTRAINT
from ..feature_extraction import ImageEstimatorMixin
from ..training import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, make_optimizer
from ._views import VIEWS

# Of the parameters of all estimators that train a body.
BODY_CONSTRAINTS: dict = {
    **ImageEstimatorMixin._parameter_constraints,
    "model": [str, nn.Module],
    "image_size": [POSITIVE_INT, "array-like", None],
    "learning_rate": [POSITIVE],
    "layer_decay": [FACTOR],
    "weight_decay": [NOT_NEGATIVE],
    "ema_decay": [FRACTION],
    "precision": [StrOptions(set(PRECISIONS))],
    "device": [str, torch.device],
    "random_state": ["random_state"],
    "cache": CACHE_CONSTRAINT,
    "checkpoint": [str, os.PathLike, None],
}


class FineTuneParameters:
    """The parameters that both estimators have, and their checks.

    `document` adds what is documented here to their own documentation.

    Parameters
    ----------
    model : str or torch.nn.Module, default="efficientnet_lite0"
        The network whose body is used, as for `PretrainedFeatureExtractor`.
        ``"efficientnet_lite0"`` is installed with this package. Other bare names are
        looked up in torchvision first and then in timm. A network of your own is copied
        and not changed. Its last linear layer counts as the old head.

    weights : str, path-like or torchvision weights, default="default"
        As for `PretrainedFeatureExtractor`.

    image_size : int, pair of int or None, default=None
        Input size in pixels, instead of the one that the weights were trained with.
        Halving the size makes training about four times as fast.

    hidden_layer_sizes : array-like of int, default=()
        Number of units of each hidden layer (ReLU) of the new head. If empty, the head
        is linear.

    dropout : float, default=0.0
        Probability, in [0, 1), that an input of a layer of the head is dropped during
        training.

    unfreeze : str, int, tuple of (str or int), or None, default="all"
        What phase two trains in addition to the head. ``"all"`` is the whole body. An
        int k is the last k stages, or all if there are fewer (see
        `skdeepfeat.list_layers`). ``"gradual"`` adds the stages one by one, from the
        last to the first, during the first half of the epochs (Howard and Ruder 2018
        [2]_). None trains the head only, and there is no phase two.

        A tuple lists the parts to train (surgical fine-tuning, Lee et al. 2023 [6]_).
        An int in a tuple is the number of a stage: 0 is the first, with the stem, and
        -1 the last. So ``(0,)`` is the first stage only, but ``1`` is the last. A
        str is the name of a layer and selects all weights in it, as in
        ``("layer1", "layer4.1")``, or ``"normalization"`` for the scales and shifts of
        all batch, layer and group normalizations. A single name needs no tuple.

    max_epochs : int or "auto", default="auto"
        Number of epochs of phase two. ``"auto"`` aims at about 1,500 steps, with at
        least 8 and at most 30 epochs.

    batch_size : int, default=32
        Number of images in a step, over all devices. If a device runs out of memory,
        the batch is split and the gradients of its parts are added.

    learning_rate : float, default=4e-4
        Highest learning rate of the head in phase two.

    layer_decay : float, default=0.8
        Factor by which the learning rate shrinks from each stage to the one before it.

    optimizer : {"adamw", "adam", "sgd"}, default="adamw"
        The torch optimizer of phase two.

    optimizer_params : dict or None, default=None
        Keyword arguments for the torch optimizer, such as ``{"betas": (0.9, 0.98)}``.
        None uses the defaults of torch, and for ``"sgd"`` a Nesterov momentum of 0.9. A
        dict replaces these. The learning rate and the weight decay have their own
        parameters.

    weight_decay : float, default=0.05
        Weight decay of kernels and matrices. Biases, normalizations, class tokens and
        position embeddings do not decay.

    schedule : {"constant", "step", "exponential", "sqrt", "inverse", "cosine", \
    "one_cycle"}, default="one_cycle"
        How the learning rate changes over the T steps of phase two. ``"constant"``
        keeps it. ``"step"`` divides it by 10 after one half and after three quarters.
        ``"exponential"`` falls to a hundredth. ``"sqrt"`` is sqrt(1 - t / T) and
        ``"inverse"`` 1 / (1 + 9 t / T). ``"cosine"`` falls to 0. ``"one_cycle"`` rises
        for 30 % of the steps and then falls to almost 0 (Smith and Topin 2018 [3]_).

    warmup : float, default=0.0
        Fraction of the steps, at the beginning, during which the learning rate rises
        linearly. Not used by ``"one_cycle"``, which has its own rise.

    max_grad_norm : float or None, default=1.0
        Gradients with a larger norm are scaled down to this norm. None turns this off.

    ema_decay : float, default=0.99
        Decay of the exponential moving average of the weights, which is the result of
        the fit. With 0, the weights of the last step are the result.

    freeze_batch_norm : bool, default=True
        Whether batch normalizations of the body keep their pretrained statistics while
        their stage is trained. Their scale and shift are trained in any case. The head
        was fitted to features that use these statistics.

    augment : {"flip_crop", "trivial"}, callable or None, default="flip_crop"
        Random changes to training images. ``"flip_crop"`` takes a random part of half
        to all of the image, and mirrors it with a probability of 1/2. ``"trivial"``
        also applies one random operation to each image (TrivialAugment [4]_). None
        takes the center. A torchvision v2 transform is called with whole batches, uint8
        tensors of shape (n_images, 3, height, width), and its result is cropped to the
        center. Training images are decoded and resized once, with the margin that the
        preprocessing of the network cuts off. A CUDA device resizes the random parts
        itself, without antialiasing.

    n_views : int or None, default=None
        Number of random views of each image. Epoch e then trains on the views of epoch
        e - `n_views`. The outputs of the frozen stages before the trained ones are
        stored: in memory up to 1 GiB, then in a temporary file up to 16 GiB. With
        ``unfreeze=1``, an epoch that finds them is several times faster. A transform of
        your own is then called with one image at a time. None draws new views in every
        epoch.

    mixup : float, default=0.0
        Parameter of the Beta distribution of the shares with which pairs of images are
        mixed (Zhang et al. 2018 [5]_). 0 turns mixing off.

    activation_l1 : float, default=0.0
        Phase two adds this many times the mean output of the ReLUs to the loss: the
        mean over the ReLUs of the trained layers of the mean output of each. This
        drives whole channels to zero, and ``compress(method="prune",
        criterion="apoz")`` removes them. Only for networks whose activations are all
        ReLU or ReLU6.

    test_time_augmentation : {"flip", "flip_crop"} or None, default=None
        Average the predictions over an image and its mirror image (``"flip"``), or over
        ten views (``"flip_crop"``): the center and the four corners, each also
        mirrored.

    early_stopping : bool, default=False
        Whether to stop when the validation score has not improved for
        `n_iter_no_change` epochs, and to restore the best weights. The validation set
        is the one passed to `fit`, or else a random `validation_fraction` of the
        images.

    validation_fraction : float, default=0.1
        Fraction of the images, in (0, 1), that early stopping uses as validation set.

    n_iter_no_change : int, default=5
        Number of epochs without a better validation score before training stops.

    scoring : str, callable or None, default=None
        Score of the validation set after each epoch, which early stopping maximizes. A
        str is the name of a scorer of scikit-learn. A callable is called as
        ``scoring(estimator, X, y)``, where X holds the indices of the validation
        images, and the methods of the estimator take X or a part of it. None uses the
        `score` of this estimator.

    head_epochs : int, default=20
        Number of epochs of phase one, if it trains by gradient descent. They run on
        cached features, so they take little time.

    warm_start : bool, default=False
        Whether `fit` continues with the body and head of the previous fit.

    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        The precision of the network's computations. The weights are always float32
        (mixed precision). ``"tf32"`` is float32 with the factors rounded to 10 bits on
        NVIDIA GPUs that support it, and float32 elsewhere.

    device : str or torch.device, default="auto"
        ``"auto"`` selects the first of cuda, mps and xpu that is available, and the CPU
        otherwise. Unlike in `PretrainedFeatureExtractor`, this is a single device; the
        Notes say how to train on several.

    random_state : int, RandomState instance or None, default=None
        Determines the validation set, the order of the images, augmentation, dropout
        and random heads. On one CPU, two fits with the same int give identical weights.

    cache : "default", path-like, FeatureCache, mapping or None, default="default"
        Where features are stored, as for `PretrainedFeatureExtractor`, which shares the
        features of the frozen body.

    checkpoint : path-like or None, default=None
        File that is written after each epoch of phase two. If it exists, the same call
        resumes from it and ends with the weights of an uninterrupted fit. The file
        remains after the fit. Delete it to start over. It belongs to one fit, so it
        must be None in a cross-validation or a search, whose fits have different data.

    preprocessing : Preprocessing, dict, transform or None, default=None
        For a network of your own and for weights from a file, as for
        `PretrainedFeatureExtractor`.

    flat_image_shape : tuple of (int, int) or (int, int, int), or None, default=None
        (height, width) or (height, width, channels) of the images if X is a table with
        one flattened image per row. None if X is not such a table.

    max_pixels : int or None, default=89478485
        Images with more pixels are refused before they are decoded.

    storage_options : dict or None, default=None
        With None, paths in X that are addresses (``s3://...``) cannot be read. With a
        dict, which may be empty, fsspec reads them, as for
        `PretrainedFeatureExtractor`. Pickles contain it, but the `repr` and `save` do
        not.

    verbose : int, default=0
        Above 0, show progress bars.

    Attributes
    ----------
    body_ : torch.nn.Module or None
        The network with its tuned weights, on the CPU. Other pipelines can use it with
        ``PretrainedFeatureExtractor(fitted.body_)``. None if the body was not trained.

    head_ : torch.nn.Sequential
        The new head, on the CPU.

    history_ : DataFrame
        One row per epoch: phase ("head" or "body"), epoch, train_loss, validation_loss,
        validation_score, learning_rate, seconds. `partial_fit`, and `fit` with
        ``warm_start=True``, append their epochs.

    n_epochs_ : int
        Number of epochs of phase two, including those of the fits that this one
        continued.

    best_epoch_, best_validation_score_ : int, float or None
        The epoch of phase two, as counted in `history_`, whose weights were kept, and
        its score. None without early stopping.

    probe_predictions_ : ndarray, shape (n_epochs, n_images, n_outputs), or None
        Predictions for the `X_probe` passed to `fit`, as float32, after each epoch of
        both phases: probabilities of the classes, or targets. A classifier that
        estimates no probabilities records the scores of the classes. Images that cannot
        be read have NaN. With `ema_decay`, the averaged weights predict. The epochs are
        the last ones of `history_`, including those of the fits that this one
        continued, if these recorded as many images. None without `X_probe`.

    n_features_in_ : int
        Number of columns seen in `fit`: 1, or the length of flattened images.

    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        The names of the columns, if X was a data frame.

    See Also
    --------
    PretrainedFeatureExtractor : Features of a frozen network for any estimator.

    Notes
    -----
    X may be anything that `PretrainedFeatureExtractor` takes. With a `model` of your
    own and no `flat_image_shape`, X may also be a table of numbers, one sample per row.
    The network then gets float32 tensors of shape (n_samples, n_features). In this case
    `augment`, `image_size`, `weights`, `preprocessing` and `cache` are not used, each
    module with a weight matrix is a stage, and ONNX export is not supported. Put a
    `StandardScaler` before the estimator.

    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The tasks of `fit` are its phases, and their tasks
    are epochs. `sklearn.callback.ScoringMonitor` sends X through the network once more
    in each epoch. A callback whose ``on_fit_task_end`` returns True ends the phase.

    To train on several devices, start the program with ``torchrun`` or ``accelerate
    launch``. Every process holds all images, computes its part of each batch and ends
    with the same weights.

    References
    ----------
    .. [1] Kumar et al., "Fine-tuning can distort pretrained features and underperform
       out-of-distribution", ICLR 2022.
    .. [2] Howard and Ruder, "Universal language model fine-tuning for text
       classification", ACL 2018.
    .. [3] Smith and Topin, "Super-convergence: Very fast training of neural networks
       using large learning rates", 2018.
    .. [4] Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data
       augmentation", ICCV 2021.
    .. [5] Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.
    .. [6] Lee et al., "Surgical fine-tuning improves adaptation to distribution
       shifts", ICLR 2023.
    .. [7] Hinton et al., "Distilling the knowledge in a neural network", 2015.
    .. [8] Beyer et al., "Knowledge distillation: A good teacher is patient and
       consistent", CVPR 2022.
    """

    _parameter_constraints: dict = {
        **BODY_CONSTRAINTS,
        "hidden_layer_sizes": ["array-like"],
        "dropout": [FRACTION],
        "unfreeze": [str, COUNT, tuple, list, None],
        "max_epochs": [StrOptions({"auto"}), COUNT],
        "batch_size": [POSITIVE_INT],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "optimizer_params": [dict, None],
        "schedule": [StrOptions(set(SCHEDULES))],
        "warmup": [FRACTION],
        "max_grad_norm": [POSITIVE, None],
        "freeze_batch_norm": ["boolean"],
        "augment": [StrOptions(set(AUGMENTATIONS) - {None}), callable, None],
        "n_views": [POSITIVE_INT, None],
        "mixup": [NOT_NEGATIVE],
        "activation_l1": [NOT_NEGATIVE],
        "test_time_augmentation": [StrOptions(set(VIEWS)), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [INNER_FRACTION],
        "n_iter_no_change": [POSITIVE_INT],
        "scoring": [str, callable, None],
        "head_epochs": [COUNT],
        "teacher": [HasMethods("predict"), list, tuple, None],
        "distill_weight": [Interval(numbers.Real, 0, 1, closed="both")],
        "warm_start": ["boolean"],
    }

    def _validate_params(self):
        super()._validate_params()
        sizes = self.hidden_layer_sizes
        is_number = getattr(sizes, "ndim", 1) == 0  # an array without axes
        if is_number or not all(is_int(size) and size >= 1 for size in sizes):
            wanted = "integers of at least 1, one for each hidden layer"
            raise choice_error("hidden_layer_sizes", wanted, sizes)
        unfreeze = self.unfreeze
        if isinstance(unfreeze, (tuple, list)) and not _are_parts(unfreeze):
            wanted = "numbers of stages and names of layers, at least one, if a tuple"
            raise choice_error("unfreeze", wanted, unfreeze)
        names = get_scorer_names()
        if isinstance(self.scoring, str) and self.scoring not in names:
            wanted = (
                "a name of sklearn.metrics.get_scorer_names(), a callable "
                "scoring(estimator, X, y) or None"
            )
            raise choice_error("scoring", wanted, self.scoring, names)
        # The error about `optimizer_params` comes before any image is read.
        make_optimizer(
            self.optimizer,
            [[("weight", nn.Parameter(torch.zeros(1)))]],
            learning_rate=self.learning_rate,
            params=self.optimizer_params,
        )


def _are_parts(unfreeze):
    return len(unfreeze) > 0 and all(
        is_int(part) or (isinstance(part, str) and part != "") for part in unfreeze
    )
