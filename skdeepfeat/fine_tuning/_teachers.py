"""Fitted estimators as teachers: their checks, and what they say of images.

A teacher of this package is asked during the training about the very images that the
student sees ("consistent teaching", Beyer et al. 2022). Any other estimator is asked
once about each image.
"""

import contextlib
import copy
import functools
import logging
from dataclasses import dataclass

import joblib
import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional as F

from .._utils._digests import digest_arrays
from .._utils._parameter_errors import choice_error, first_line
from .._utils._shown import shown
from ..exceptions import BadImageError, NonFiniteOutputError
from ..feature_extraction import errors_about, errors_at
from ._export import ScaleTargets
from ._parameters import FineTuneParameters

logger = logging.getLogger(__name__)

# Number of teachers whose predictions are stored for the next fit with that teacher.
_N_REMEMBERED = 4
# Number of images that a later fit asks about again, as a teacher's state does not show
# a change of its code. In float32, predictions differ by up to 1e-5 of the largest.
_N_ASKED_AGAIN = 4
_TOLERANCE = 1e-4


def frozen(teacher):
    """Return a value of the parameter `teacher` in a form that `clone` leaves fitted.

    Parameters
    ----------
    teacher : estimator, list or tuple of estimators, or None
    """
    if isinstance(teacher, (list, tuple)):
        members = [frozen(one) for one in teacher]
        is_same = all(a is b for a, b in zip(members, teacher, strict=True))
        return teacher if is_same else type(teacher)(members)
    if hasattr(teacher, "fit") and not isinstance(teacher, (type, FrozenEstimator)):
        return FrozenEstimator(teacher)
    return teacher


@dataclass
class _Member:
    """One of the teachers.

    Attributes
    ----------
    teacher : estimator
    columns : list of int or None
        Where it has the outputs of the student; None if at the same places.
    answers : dict
        What it has said, by image.
    recalled : set
        The images whose answers are those of an earlier fit.
    """

    teacher: object
    columns: list | None
    answers: dict
    recalled: set


class Teachers:
    """The teachers of one fit, which are one or several.

    Their probabilities or targets are averaged, as `VotingClassifier` does it.

    Parameters
    ----------
    estimator : BaseFineTune
        The student, which knows its targets.
    targets : Targets
        Its targets.
    images : dict of str to images
        By the name of the parameter, ``"X"`` and perhaps ``"X_unlabeled"``: what the
        user gave, which other estimators are asked about.

    Raises
    ------
    ValueError, TypeError
        If something is wrong with the parameter `teacher`.
    """

    def __init__(self, estimator, targets, images):
        value = estimator.teacher
        members = list(value) if isinstance(value, (list, tuple)) else [value]
        if not members:
            raise choice_error("teacher", _WANTED[targets.task], value)
        members = [_unwrapped(one) for one in members]
        self._task, self._n_outputs = targets.task, targets.n_outputs
        self._student = estimator
        self._input = _input_of(estimator)
        self._images = {name: X for name, X in images.items() if X is not None}
        self._members = []
        for one in members:
            columns, answers = self._checked_columns(one), dict(_stored_answers(one))
            self._members.append(_Member(one, columns, answers, set(answers)))
        self._own = [one for one in self._members if _is_own(one.teacher)]

    @property
    def own_fraction(self):
        """How much of the soft targets `network` gives."""
        return len(self._own) / len(self._members)

    def network(self, device):
        """Return the teachers that are asked during the training, or None.

        Returns
        -------
        Module or None
            From batches of images to a Tensor of shape (n_images, n_outputs).
        """
        if not self._own:
            return None
        networks = [
            _TeacherNetwork(one, self._finish(one.teacher)) for one in self._own
        ]
        return _MeanOf(networks).to(device)

    def soft_targets(self, name, rows, digests, images, *, own=False):
        """Return the mean of what teachers say of some images.

        Parameters
        ----------
        name : str
            The parameter that holds the images.
        rows : ndarray of int
        digests : list of bytes or None
            Of all images of this parameter.
        images : images
            This parameter as it was checked.
        own : bool, default=False
            Whether the teachers of `network` are asked as well.

        Returns
        -------
        ndarray of float32, shape (n_rows, n_outputs), or None
            None if no teacher was asked.
        """
        asked = [one for one in self._members if own or not _is_own(one.teacher)]
        if not asked:
            return None
        pairs = list(zip(_keys(images, rows, digests), rows.tolist(), strict=True))
        mean = sum(self._answers(one, name, pairs) for one in asked) / len(asked)
        if self._task == "regression":  # in units of the student
            mean = (mean - self._student._y_mean) / self._student._y_scale
        return mean.astype(np.float32)

    def check_outputs(self):
        """Raise if the network of a teacher of this package returns no numbers.

        Raises
        ------
        NonFiniteOutputError
            If it returns NaN or infinite values for the images of a parameter.
        """
        for member in self._own:
            for name, images in self._images.items():
                try:
                    self._ask(member, name, list(range(len(images))))
                except NonFiniteOutputError:
                    raise
                except Exception:  # other errors do not explain the NaN
                    logger.debug("a teacher cannot be asked", exc_info=True)

    # -- Checks

    def _checked_columns(self, teacher):
        """Return where a teacher has the student's outputs, or raise."""
        method = "predict" if self._task == "regression" else "predict_proba"
        if teacher is self._student:
            raise ValueError(
                "The 'teacher' parameter must be another estimator, because fitting "
                f"changes this {type(teacher).__name__}. Pass a copy of it, "
                "copy.deepcopy(estimator)."
            )
        is_estimator = not isinstance(teacher, (type, str)) and hasattr(teacher, "fit")
        if not is_estimator or not hasattr(teacher, method):
            raise choice_error("teacher", _WANTED[self._task], teacher)
        if self._task == "regression" and is_classifier(teacher):
            raise choice_error("teacher", _WANTED[self._task], teacher)
        try:
            check_is_fitted(teacher)
        except NotFittedError:
            raise choice_error(
                "teacher",
                "a fitted estimator. In the grid of a search it has to be a "
                "sklearn.frozen.FrozenEstimator, because the search clones what is in "
                "the grid, and a clone is not fitted",
                teacher,
                error=NotFittedError,
            ) from None
        if _is_own(teacher) and (found := _input_of(teacher)) != self._input:
            raise ValueError(
                f"The 'teacher' parameter must take {self._input}, as X holds them. "
                f"Got a {type(teacher).__name__} that was fitted to {found} instead."
            )
        if self._task == "regression":
            if _is_own(teacher):
                self._check_n_outputs(teacher, len(teacher._y_mean))
            return None
        return self._columns_of_classes(teacher)

    def _columns_of_classes(self, teacher):
        classes = getattr(teacher, "classes_", None)
        # With several labels, `classes_` may be a list with the classes of each.
        has_several = isinstance(classes, list) or getattr(teacher, "multilabel_", None)
        if has_several not in (None, self._task == "multilabel"):
            raise choice_error("teacher", _WANTED[self._task], teacher)
        if classes is None:
            return None
        if self._task == "multilabel":
            self._check_n_outputs(teacher, len(classes))
            return None
        wanted, found = self._student.classes_.tolist(), np.asarray(classes).tolist()
        if set(wanted) != set(found):
            differing = sorted(set(wanted) ^ set(found), key=str)
            raise ValueError(
                "The 'teacher' parameter must be fitted to the classes of y, "
                f"{shown(wanted)}. Got a {type(teacher).__name__} for "
                f"{shown(found)} instead: {shown(differing)} are in one and not in the "
                "other. Fit it to labels of the same classes."
            )
        return None if wanted == found else [found.index(one) for one in wanted]

    def _check_n_outputs(self, teacher, n_found):
        if n_found != self._n_outputs:
            what = "target" if self._task == "regression" else "label"
            raise ValueError(
                f"The 'teacher' parameter must have as many outputs as y, "
                f"{self._n_outputs} {what}(s). Got a {type(teacher).__name__} with "
                f"{n_found} instead. Fit it to such a y."
            )

    # -- Predictions

    def _answers(self, member, name, pairs):
        """Return what a teacher says, by pairs of a key and a row of its image."""
        self._forget_if_changed(member, name, pairs)
        missing = {key: row for key, row in pairs if key not in member.answers}
        if missing:
            try:
                some = self._ask(member, name, list(missing.values()))
            except NonFiniteOutputError as error:
                bad = {key for key, row in missing.items() if row in error.indices}
                raise error.at([row for key, row in pairs if key in bad]) from None
            member.answers.update(zip(missing, some, strict=True))
            # Predicting may have changed its state, such as a counter, but not its
            # predictions.
            _stored_answers(member.teacher).update(member.answers)
        return np.stack([member.answers[key] for key, _ in pairs])

    def _forget_if_changed(self, member, name, pairs):
        """Forget what a teacher said in earlier fits if it says something else now."""
        known = [one for one in pairs if one[0] in member.recalled][:_N_ASKED_AGAIN]
        if not known:
            return
        member.recalled.clear()  # once in a fit is enough
        found = self._ask(member, name, [row for _, row in known])
        wanted = np.stack([member.answers[key] for key, _ in known])
        stored = _stored_answers(member.teacher)
        if np.abs(found - wanted).max() > _TOLERANCE * np.abs(wanted).max():
            member.answers = {}
            stored.clear()
        stored.update(member.answers)

    def _ask(self, member, name, rows):
        """Return what a teacher says, float64 of shape (n_rows, n_outputs)."""
        teacher, images = member.teacher, self._images[name]
        if len(rows) < len(images) or rows != list(range(len(images))):
            images = _safe_indexing(images, rows)
        answer = _targets if self._task == "regression" else _probabilities
        try:
            with errors_about(name), errors_at(np.array(rows)):
                found = answer(teacher, images)
        except BadImageError:
            raise
        except NonFiniteOutputError as error:
            whose = f"This network is the 'teacher', a {type(teacher).__name__}."
            raise NonFiniteOutputError(
                f"{whose} {error.cause}", error.indices, error.source, error.kind
            ) from error
        except (ValueError, TypeError) as error:
            cause = first_line(error).rstrip(".")
            raise ValueError(
                "The 'teacher' parameter must be an estimator that takes images as "
                f"they are in {name}. A {type(teacher).__name__} raised "
                f"{type(error).__name__}: {cause}. Make a pipeline of the steps that "
                "it needs, such as PretrainedFeatureExtractor, and the teacher."
            ) from error
        self._check_n_outputs(teacher, found.shape[1])
        in_range = self._task == "regression" or ((found >= 0) & (found <= 1)).all()
        if len(found) != len(rows) or not (np.isfinite(found).all() and in_range):
            what = "targets" if self._task == "regression" else "probabilities"
            raise ValueError(
                f"The 'teacher' parameter must give finite {what} for each image of "
                f"{name}. Got {shown(found)} from a {type(teacher).__name__} instead."
            )
        return found if member.columns is None else found[:, member.columns]

    def _finish(self, teacher):
        """Return a module from raw outputs of a teacher to soft targets."""
        if self._task != "regression":
            finish, _, _ = teacher._export_result()
            return finish
        student = self._student
        scale = teacher._y_scale / student._y_scale
        mean = (teacher._y_mean - student._y_mean) / student._y_scale
        return ScaleTargets(mean, scale, dtype=torch.float32)


_WANTED = {
    "single": "a fitted classifier with predict_proba, or a list of such classifiers",
    "multilabel": "a fitted classifier of several labels with predict_proba, or a list "
    "of such classifiers",
    "regression": "a fitted regressor, or a list of regressors",
}


def _unwrapped(teacher):
    while isinstance(teacher, FrozenEstimator):
        teacher = teacher.estimator
    return teacher


def _is_own(teacher):
    return isinstance(teacher, FineTuneParameters)


def _input_of(estimator):
    if estimator._takes_rows:
        return f"rows of {estimator.n_features_in_} numbers"
    return "images"


def _targets(teacher, images):
    found = np.asarray(teacher.predict(images), np.float64)
    return found.reshape(len(found), -1)


def _probabilities(teacher, images):
    found = teacher.predict_proba(images)
    if not isinstance(found, list):
        found = np.asarray(found, np.float64)
        return found.reshape(len(found), -1)
    # With several labels, there is one array for each, as from forests.
    columns = []
    for classes, each in zip(teacher.classes_, found, strict=True):
        is_one = np.asarray(classes) == 1
        columns.append(np.asarray(each, np.float64)[:, is_one].sum(axis=1))
    return np.stack(columns, axis=1)


# -- Stored predictions


def _keys(images, rows, digests):
    """Return for each image what identifies it to an estimator."""
    if isinstance(images, torch.Tensor):
        images = images.numpy(force=True)
    if isinstance(images, (np.ndarray, list, tuple)):
        # Digests are those of 8-bit pixels, and estimators may see more than that.
        return [
            digest_arrays(images[row])
            if isinstance(images[row], np.ndarray) and images[row].dtype != object
            else digests[row]
            for row in rows.tolist()
        ]
    return [digests[row] for row in rows.tolist()]


def _stored_answers(teacher):
    """Return what a teacher in this state has said, a dict that may be added to."""
    # A teacher that cannot be pickled is not recognized. Pickling can raise anything.
    with contextlib.suppress(Exception):
        return _answers_of(joblib.hash(teacher))
    return {}


@functools.lru_cache(_N_REMEMBERED)
def _answers_of(digest):
    return {}


# -- Teachers of this package


class _TeacherNetwork(nn.Module):
    """From images as the student sees them, or rows, to soft targets."""

    def __init__(self, member, finish):
        super().__init__()
        neck = member.teacher._fitted_neck()
        self._size = None if neck.takes_rows else tuple(neck.preprocessing.crop)
        self.neck = neck.trainable()
        self.head = copy.deepcopy(member.teacher.head_)
        self.finish = finish
        self._columns = member.columns

    def forward(self, images):
        if self._size is not None and tuple(images.shape[-2:]) != self._size:
            if images.dtype == torch.uint8:
                images = images.float() / 255
            images = F.interpolate(images, self._size, mode="bilinear", antialias=True)
        found = self.finish(self.head(self.neck(images)).float())
        return found if self._columns is None else found[:, self._columns]


class _MeanOf(nn.Module):
    """The mean of several teachers, none of which learns."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.requires_grad_(False).eval()

    def forward(self, images):
        return torch.stack([member(images) for member in self.members]).mean(0)
