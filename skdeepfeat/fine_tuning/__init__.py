"""Pretrained networks with a new head, fine-tuned as classifiers and regressors."""

from ._body_phase import auto_epochs, make_training_run
from ._classifier import FineTuneClassifier
from ._export import example_pixels
from ._fit_settings import BodySettings
from ._fitted_estimator import FittedEstimator, PixelsToResult, on_pixels
from ._learning_check import LearningCheck, check_can_learn
from ._onnx import convert_to_onnx
from ._parameters import BODY_CONSTRAINTS
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from ._regressor import FineTuneRegressor
from ._saving import at_rest
from ._score_modules import score_modules
from ._stage_gradients import stage_gradients
from ._trial import require_fine_tune
from ._views import with_margin

__all__ = [
    "BODY_CONSTRAINTS",
    "BodySettings",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "FittedEstimator",
    "LearningCheck",
    "LearningRateRangeTest",
    "PixelsToResult",
    "at_rest",
    "auto_epochs",
    "check_can_learn",
    "convert_to_onnx",
    "example_pixels",
    "learning_rate_range_test",
    "make_training_run",
    "on_pixels",
    "require_fine_tune",
    "score_modules",
    "stage_gradients",
    "with_margin",
]
