"""What every run has, from the command line as from Python: defaults of the trainer, callbacks, the strategy's name."""

from typing import Any

from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks import AccuracyCallback, AgreementCallback, ExModelWriter, StageProgressBar

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "devices": 1,
    "enable_model_summary": False,
}
"""Where they are not Lightning's; -1 epochs stands for an epoch for each expert."""


def run_callbacks(command: str, strategy: str, with_data_set: bool, with_bar: bool) -> list[Callback]:
    """Make the callbacks that come after those of the configuration, in their order.

    Args:
        command: The command line of the run, or the call, for its files.
        strategy: Its name.
        with_data_set: Whether accuracy can be measured; agreement else.
        with_bar: Show a progress bar.
    """
    bar = [StageProgressBar()] if with_bar else []
    results = (AccuracyCallback if with_data_set else AgreementCallback)(command)
    return [*bar, results, ExModelWriter(strategy)]
