"""Pretrained networks with a new head, fine-tuned as classifiers and regressors."""

from ._classifier import FineTuneClassifier
from ._learning_check import LearningCheck, check_can_learn
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from ._regressor import FineTuneRegressor
from ._score_modules import score_modules
from ._stage_gradients import stage_gradients

__all__ = [
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "check_can_learn",
    "learning_rate_range_test",
    "score_modules",
    "stage_gradients",
]
