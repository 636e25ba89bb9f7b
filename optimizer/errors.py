"""What can go wrong while a model is optimized.

`GoalError` and `SourceError` end the job before it begins its work, `Cancelled` ends it; everything
else ends one candidate.
"""


class OptimizationError(Exception):
    """Root of all; the message says what was wrong, the value, and what was expected."""


class GoalError(OptimizationError):
    """What was asked for makes no sense or does not exist: unknown technique, impossible limit."""


class SourceError(OptimizationError):
    """The original model cannot be read, or needs a framework that is not installed."""


class ConversionError(OptimizationError):
    """A model cannot be converted, or what came out is not the same model; with the figure."""


class DataError(OptimizationError):
    """Calibration or validation data cannot be read or do not fit the model."""


class CalibrationError(OptimizationError):
    """A pass cannot use its calibration set."""


class PassError(OptimizationError):
    """A pass cannot be applied to this model, or did not keep what it promises."""


class Unavailable(OptimizationError):
    """A runtime, provider or library that is not on this machine: the candidate is skipped."""


class StageFailed(OptimizationError):
    """A stage's child process raised something that is no OptimizationError, or died."""


class StageTimeout(StageFailed):
    """A stage took longer than it was given and was ended."""


class Cancelled(OptimizationError):
    """The job was cancelled."""
