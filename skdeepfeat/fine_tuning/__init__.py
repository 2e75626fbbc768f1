"""Pretrained networks with a new head, fine-tuned as classifiers and regressors."""

from ._classifier import FineTuneClassifier
from ._learning_check import LearningCheck, check_can_learn
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from ._refit import (
    decode_images,
    fitted_neck,
    loss_of,
    on_pixels,
    train_further,
    with_networks,
)
from ._regressor import FineTuneRegressor
from ._stage_gradients import stage_gradients

__all__ = [
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "check_can_learn",
    "decode_images",
    "fitted_neck",
    "learning_rate_range_test",
    "loss_of",
    "on_pixels",
    "train_further",
    "with_networks",
    "stage_gradients",
]
