"""Pretrained networks with a new head, fine-tuned as classifiers and regressors."""

from ._body_phase import make_training_run
from ._classifier import FineTuneClassifier
from ._learning_check import LearningCheck, check_can_learn
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from ._regressor import FineTuneRegressor
from ._resume import resume
from ._stage_gradients import stage_gradients
from ._views import MAX_BYTES_IN_MEMORY, with_margin

__all__ = [
    "MAX_BYTES_IN_MEMORY",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "check_can_learn",
    "learning_rate_range_test",
    "make_training_run",
    "resume",
    "stage_gradients",
    "with_margin",
]
