"""Predictions of time: training, inference, language models. Pure functions of a chip, a load and a calibration.

`predict_training(chip, TrainingRun, calibration)`, `predict_inference(chip, InferenceLoad, calibration)` and
`predict_language_model(chip, config, DecoderTraffic, calibration, …)` each return a prediction with intervals and
reasons. Names are imported when first used, so that each part loads alone and fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.calibration.store import Calibration, Interval, builtin, read_calibration
    from planner.performance.checks import DoesNotFit, PerformanceError
    from planner.performance.chip import Chip
    from planner.performance.inference import InferenceLoad, InferencePrediction, predict_inference
    from planner.performance.language_model import DecoderTraffic
    from planner.performance.parallel import Parallelism
    from planner.performance.queueing import BatchQueue, Overloaded, queue_times
    from planner.performance.serving import LanguageModelPrediction, predict_language_model
    from planner.performance.training import TrainingPrediction, TrainingRun, predict_training

_HOMES = {
    "planner.calibration.store": ("Calibration", "Interval", "builtin", "read_calibration"),
    "planner.performance.checks": ("DoesNotFit", "PerformanceError"),
    "planner.performance.chip": ("Chip",),
    "planner.performance.inference": ("InferenceLoad", "InferencePrediction", "predict_inference"),
    "planner.performance.language_model": ("DecoderTraffic",),
    "planner.performance.parallel": ("Parallelism",),
    "planner.performance.queueing": ("BatchQueue", "Overloaded", "queue_times"),
    "planner.performance.serving": ("LanguageModelPrediction", "predict_language_model"),
    "planner.performance.training": ("TrainingPrediction", "TrainingRun", "predict_training"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BatchQueue",
    "Calibration",
    "Chip",
    "DecoderTraffic",
    "DoesNotFit",
    "InferenceLoad",
    "InferencePrediction",
    "Interval",
    "LanguageModelPrediction",
    "Overloaded",
    "Parallelism",
    "PerformanceError",
    "TrainingPrediction",
    "TrainingRun",
    "builtin",
    "predict_inference",
    "predict_language_model",
    "predict_training",
    "queue_times",
    "read_calibration",
]


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
