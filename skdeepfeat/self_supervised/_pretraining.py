"""One fit of a SelfSupervisedExtractor: a body is trained on pairs of views."""

import copy
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from .._utils._device import compute_context
from .._utils._random import RandomStream
from ..fine_tuning import BodySettings, make_training_run
from ..training import (
    PAIR_LOSSES,
    LossOfPairs,
    PairData,
    PairViews,
    ResumableFit,
    alignment,
    uniformity,
)
from ._pair_network import PairNetwork, make_head

# Images whose embeddings are measured after each epoch.
_N_MEASURED = 256


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings(BodySettings):
    """How to train: parameters of the estimator."""

    method: str
    projection: tuple


class Pretraining(ResumableFit):
    """The state of a fit while it runs, and its result.

    Parameters
    ----------
    settings : PretrainingSettings
    neck : Neck
    device : str or torch.device
        As the parameter of the estimator.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    body : Module
        The result.
    history : list of dict
    """

    def __init__(self, settings, neck, device, random_state):
        super().__init__(settings, device, random_state)
        self.neck = neck
        method = PAIR_LOSSES[settings.method]
        self.training_loss, self.teachers = LossOfPairs(method), None
        head = make_head(
            neck.n_features()[0], settings.projection, method.has_target, self.seed
        )
        self.result = SimpleNamespace(head=head)
        self.body = None
        self.history = []

    def run(self, pixels, rows, groups, callbacks, attributes):
        """Train on stored images.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n_images, height, width, 3)
        rows : ndarray of int
            The images to train on.
        groups : ndarray of int or None
            See `PairData`.
        callbacks : FitCallbacks
        attributes : callable
            ``attributes(body, history)`` returns the fitted attributes.
        """
        views = PairViews(
            self.settings.augment, self.neck.preprocessing.crop, self.device
        )
        data = PairData(pixels, views, rows, groups)
        body, run = make_training_run(self, len(data), network=PairNetwork)
        save = self.resume(run, data)

        def snapshot():
            with run.averaged_model():
                return attributes(copy.deepcopy(body.network), run.history)

        def after_epoch(run):
            run.history[-1] |= self._measure(run, data)
            save(run)

        def finish():
            self.body, self.history = body.network, run.history

        callbacks.train(
            run, data, rows, snapshot, finish, after_epoch=after_epoch, name="pairs"
        )

    def _measure(self, run, data):
        """Return alignment, uniformity, effective rank and spread of embeddings."""
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(len(data))[:_N_MEASURED]
        model, stream = run.model, RandomStream(self.seed)
        with run.averaged_model(), compute_context(self.device, "float32"):
            model.eval()
            parts = []
            for start in range(0, len(rows), self.settings.batch_size):
                part = rows[start : start + self.settings.batch_size]
                with stream.drawing():  # for a user's transform
                    views = data.batch(part, rng, np.arange(len(part)), len(part))
                images = views.flatten(0, 1).to(self.device)
                embeddings = model.head.projector(model.neck(images)).float().cpu()
                parts.append(embeddings.unflatten(0, (len(part), 2)))
            first, second = torch.cat(parts).double().unbind(1)
        return {
            "alignment": float(alignment(first, second)),
            "uniformity": float(uniformity(first)),
            "effective_rank": effective_rank(first),
            "spread": spread(first),
        }


def effective_rank(embeddings):
    """Return exp(H(s / sum s)) of the singular values s of centered embeddings.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    values = torch.linalg.svdvals(embeddings - embeddings.mean(0))
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values[values > 0] / total
    return math.exp(-float((shares * shares.log()).sum()))


def spread(embeddings):
    """Return the mean deviation of coordinates on the unit sphere, times sqrt(d).

    It is 1 for points that are spread evenly, and 0 if all are equal (Chen and He,
    "Exploring simple siamese representation learning", CVPR 2021).
    """
    rows = torch.nn.functional.normalize(embeddings)
    return float(rows.std(0).mean()) * math.sqrt(embeddings.shape[1])
