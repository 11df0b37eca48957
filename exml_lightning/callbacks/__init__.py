"""Lightning callbacks: the buffer, checkpoints, results, the finished ex-model, progress, signals."""

from exml_lightning.callbacks.accuracy import AccuracyCallback
from exml_lightning.callbacks.agreement import AgreementCallback
from exml_lightning.callbacks.check_experts import CheckExperts
from exml_lightning.callbacks.ex_model import ExModelWriter
from exml_lightning.callbacks.loggers import StartLoggers
from exml_lightning.callbacks.progress import StageProgressBar
from exml_lightning.callbacks.same_settings import SameSettings
from exml_lightning.callbacks.stop_on_signal import StopOnSignal
from exml_lightning.callbacks.stream_checkpoint import StreamCheckpoint
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.callbacks.time_budget import TimeBudget

__all__ = [
    "AccuracyCallback",
    "AgreementCallback",
    "CheckExperts",
    "ExModelWriter",
    "SameSettings",
    "StageProgressBar",
    "StartLoggers",
    "StopOnSignal",
    "StreamCheckpoint",
    "SyntheticBufferCallback",
    "TimeBudget",
]
