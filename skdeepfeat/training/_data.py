"""The inputs of a training run, with their targets and weights."""

import numpy as np
import torch

from .._utils._random import seeded
from ._augment import draw_parts
from ._distillation import TaughtTargets
from ._loop import seed_of


class FeatureData:
    """Features, for training a head.

    Parameters
    ----------
    inputs : ndarray of float32, shape (n_samples, n_features)
    targets : Tensor, shape (n_samples,) or (n_samples, n_outputs); or TaughtTargets
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

    def arrays(self):
        """Return the arrays that make up the data, for a digest."""
        return [self.inputs.numpy(), *_target_arrays(self)]


class StackedPixels:
    """Concatenated arrays of images, without a copy of them.

    Parameters
    ----------
    *parts : ndarray of uint8, shape (n_images, height, width, 3)
        May be memory-mapped.
    """

    def __init__(self, *parts):
        self.parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self):
        return int(self._starts[-1])

    def __getitem__(self, rows):
        """Return the images at some indices."""
        rows = np.asarray(rows)
        result = np.empty((len(rows), *self.parts[0].shape[1:]), np.uint8)
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        for k, part in enumerate(self.parts):
            here = part_of == k
            result[here] = part[rows[here] - self._starts[k]]
        return result


class PixelData:
    """Stored images, for training a whole network.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_samples, height, width, 3), or StackedPixels
        May be memory-mapped.
    targets, weights : Tensor
        As `FeatureData` has them.
    augment : Augmentation or None
        None for a class with a `batch` of its own.
    rows : ndarray of int, default=None
        The images to train on, by default all; targets and weights belong to these.
        The other images are not read, as they may be on disk.
    n_views : int or None, default=None
        How many views there are of each image: those of epoch e are those of epoch
        e - `n_views`, whatever the order. None: each epoch draws new ones.
    seed : int, default=0
        Determines these views.
    """

    def __init__(
        self, pixels, targets, weights, augment, rows=None, n_views=None, seed=0
    ):
        self.pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else rows
        self.targets = targets
        self.weights = weights
        self.augment = augment
        # The center of an image is its only view.
        has_one_view = augment is not None and not augment.is_random
        self.n_views = 1 if has_one_view else n_views
        self._seed = seed
        self._view = 0

    def __len__(self):
        return len(self.rows)

    @property
    def suits_threads(self):
        """Whether `batch` may run in a thread: nothing draws from torch's generators.

        False for classes with a `batch` of their own.
        """
        return self.augment is not None and not self.augment.draws_from_torch

    def begin(self, epoch):
        """Choose the views of an epoch, counted from 0."""
        self._view = epoch % (self.n_views or 1)

    def view_numbers(self, rows):
        """Return a number below ``n_views * len(self)`` for the view of each image.

        None if each is seen only once.
        """
        return None if self.n_views is None else self._view * len(self) + rows

    def batch(self, rows, rng, positions, n_total):
        """Return augmented images; see `Augmentation` for the last two."""
        if self.n_views is not None and self.augment.is_random:
            if len(rows):
                return self._draw_views(rows)
            # A process without images draws no more from `rng` than the others.
            rng = np.random.default_rng(0)
        return self.augment(self.pixels[self.rows[rows]], rng, n_total, positions)

    def _draw_views(self, rows):
        """Return the current views of images: always the same, in whatever batch."""
        seeds = [seed_of(self._seed, self._view, row) for row in rows]
        rngs = [np.random.default_rng(seed) for seed in seeds]
        if not self.augment.draws_from_torch:
            draws = np.concatenate([draw_parts(rng, 1) for rng in rngs])
            return self.augment.drawn(self.pixels[self.rows[rows]], draws)
        views = []
        for row, seed, rng in zip(rows, seeds, rngs, strict=True):
            with seeded(seed):
                views.append(self.augment(self.pixels[self.rows[[row]]], rng))
        return torch.cat(views)

    def arrays(self):
        """Return the arrays that make up the data, for a digest."""
        is_stacked = isinstance(self.pixels, StackedPixels)
        parts = self.pixels.parts if is_stacked else [self.pixels]
        return [*parts, self.rows, *_target_arrays(self)]


class PairData(PixelData):
    """Stored images, two views of which are a pair.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
        May be memory-mapped.
    views : PairViews
    rows : ndarray of int
        The images to train on.
    groups : ndarray of int, shape (n_rows,), default=None
        The second view is of another image of the same group. None: of the same image.
    """

    def __init__(self, pixels, views, rows, groups=None):
        # The loss of pairs has no targets. A checkpoint identifies the groups by them.
        groups = np.arange(len(rows)) if groups is None else groups
        targets, weights = torch.from_numpy(groups), torch.ones(len(rows))
        super().__init__(pixels, targets, weights, None, rows)
        self.views = views
        # Where each group begins among the rows in the order of their groups.
        self._order = np.argsort(groups, kind="stable")
        self._place = np.argsort(self._order)
        self._first = np.searchsorted(groups[self._order], groups)
        self._size = np.bincount(groups)[groups]

    @property
    def suits_threads(self):
        """Whether `batch` may run in a thread: no transform of the user's is called."""
        return not self.views.draws_from_torch

    def batch(self, rows, rng, positions, n_total):
        """Return pairs of views; see `Augmentation` for the last two."""
        # A step of 1 to size - 1 around the group never ends at the image itself.
        draws = rng.random(n_total)[positions]
        size = self._size[rows]
        steps = np.where(size > 1, 1 + np.floor(draws * (size - 1)), 0).astype(int)
        places = self._first[rows]
        partners = self._order[places + (self._place[rows] - places + steps) % size]
        first, second = (self.pixels[self.rows[part]] for part in (rows, partners))
        return self.views(first, second, rng, n_total, positions)


def _target_arrays(data):
    is_taught = isinstance(data.targets, TaughtTargets)
    tensors = data.targets.tensors() if is_taught else [data.targets]
    return [tensor.numpy() for tensor in [*tensors, data.weights]]
