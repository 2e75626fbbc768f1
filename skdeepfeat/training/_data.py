"""The inputs of a training run, with their targets and weights."""

import numpy as np
import torch


class FeatureData:
    """Features, for training a head.

    Parameters
    ----------
    inputs : ndarray of float32, shape (n_samples, n_features)
    targets : Tensor, shape (n_samples,) or (n_samples, n_outputs)
    weights : Tensor of float32, shape (n_samples,)
        Weights of the samples in the loss; their mean is 1.
    """

    def __init__(self, inputs, targets, weights):
        self.inputs = torch.as_tensor(np.ascontiguousarray(inputs))
        self.targets = targets
        self.weights = weights

    def __len__(self):
        return len(self.inputs)

    def batch(self, rows, rng, positions, n_total):
        """Return the inputs of some samples."""
        return self.inputs[rows]


class PixelData:
    """Stored images, for training a whole network.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_samples, height, width, 3)
        May be memory-mapped.
    targets, weights : Tensor
        As `FeatureData` has them.
    augment : Augmentation
    rows : ndarray of int, default=None
        The images to train on, by default all; targets and weights belong to these.
        The other images are not read, as they may be on disk.
    """

    def __init__(self, pixels, targets, weights, augment, rows=None):
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else rows
        self.targets = targets
        self.weights = weights
        self.augment = augment

    def __len__(self):
        return len(self.rows)

    def batch(self, rows, rng, positions, n_total):
        """Return augmented images; see `Augmentation` for the last two."""
        return self.augment(self.pixels[self.rows[rows]], rng, n_total, positions)
