"""`StreamTrainer`: Lightning's trainer with help texts in users' words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer


class StreamTrainer(Trainer):
    """Where and how it runs (Lightning's Trainer).

    The methods are Lightning's, but that no checkpoint is ever unpickled (`weights_only` is always true). Their
    docstrings are the help of the command line.

    Example:
        >>> import tempfile
        >>> from exml_lightning import (
        ...     Augmentation, ExModelModule, ExpertStream, Noise, StreamTrainer, SyntheticBufferCallback)
        >>> experts = "checkpoints/split_digits/run0"
        >>> stream = ExpertStream(experts=experts, n_iter=2, augmentation=Augmentation(shift=0.1))
        >>> module = ExModelModule(lambda_ce=0.1)
        >>> buffer = SyntheticBufferCallback(size=8, generator=Noise(), cache=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = StreamTrainer(accelerator="cpu", max_epochs=2, default_root_dir=folder, callbacks=[buffer],
        ...                             enable_checkpointing=False, num_sanity_val_steps=0, **quiet)
        ...     trainer.fit(module, datamodule=stream)
        >>> module.known.nonzero().flatten().tolist()  # the classes of the first two experts: 5 4 and 8 2
        [2, 4, 5, 8]
    """

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Learn one ex-model from a stream of experts, one epoch an expert.

        Args:
            model: As Lightning takes it.
            train_dataloaders: As Lightning takes it.
            val_dataloaders: As Lightning takes it.
            datamodule: As Lightning takes it.
            ckpt_path: ``last`` continues the run of this run folder where it stopped; or a checkpoint file.
            weights_only: Always true, whatever is given.
        """
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only=True)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = False,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[Mapping[str, float]]:
        """Print the accuracy of a checkpoint, or of a baseline, on the test stream.

        Args:
            model: As Lightning takes it.
            dataloaders: As Lightning takes it.
            ckpt_path: ``last`` for the newest checkpoint of this run folder; or a checkpoint file.
            verbose: As Lightning takes it.
            datamodule: As Lightning takes it.
            weights_only: Always true, whatever is given.

        Returns:
            What Lightning returns.
        """
        return super().validate(model, dataloaders, ckpt_path, verbose, datamodule, weights_only=True)

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = False,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[Mapping[str, float]]:
        """Measure a checkpoint, or a baseline, on the test stream and write ``test.json`` into the run folder.

        Args:
            model: As Lightning takes it.
            dataloaders: As Lightning takes it.
            ckpt_path: ``last`` for the newest checkpoint of this run folder; or a checkpoint file.
            verbose: As Lightning takes it.
            datamodule: As Lightning takes it.
            weights_only: Always true, whatever is given.

        Returns:
            What Lightning returns.
        """
        return super().test(model, dataloaders, ckpt_path, verbose, datamodule, weights_only=True)
