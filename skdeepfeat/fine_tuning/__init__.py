"""Pretrained networks with a new head, fine-tuned as classifiers and regressors."""

from ._body_phase import auto_epochs, make_training_run
from ._classifier import FineTuneClassifier
from ._export import (
    PixelsToResult,
    checked_targets,
    decode_for_network,
    example_pixels,
    pixels_to_result,
    with_results,
)
from ._learning_check import LearningCheck, check_can_learn
from ._onnx import convert_to_onnx
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from ._refit import (
    as_teacher,
    decode_images,
    fitted_neck,
    loss_of,
    on_pixels,
    train_further,
    with_networks,
)
from ._regressor import FineTuneRegressor
from ._resume import draw_seed, resume
from ._saving import at_rest
from ._score_modules import score_modules
from ._stage_gradients import stage_gradients
from ._trial import require_fine_tune
from ._views import with_margin

__all__ = [
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "PixelsToResult",
    "as_teacher",
    "at_rest",
    "auto_epochs",
    "check_can_learn",
    "checked_targets",
    "convert_to_onnx",
    "decode_for_network",
    "decode_images",
    "draw_seed",
    "example_pixels",
    "fitted_neck",
    "learning_rate_range_test",
    "loss_of",
    "make_training_run",
    "on_pixels",
    "pixels_to_result",
    "require_fine_tune",
    "resume",
    "score_modules",
    "stage_gradients",
    "train_further",
    "with_margin",
    "with_networks",
    "with_results",
]
