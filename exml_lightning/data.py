"""`ExpertStream`: supplies experts one by one, the buffer's mini-batches and the test stream."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.experts import Manifest, load_expert, read_manifest
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.loaders import BufferLoader, ImageLoader
from exml_lightning.scenarios import RUN_SEEDS, AuxiliaryImages, Scenario, TestPart

NO_SCENARIO = "which scenario? Give data.scenario, for instance with -c configs/split_digits.yaml"


class ExpertStream(LightningDataModule):
    """A stream of trained experts, one in memory at a time.

    One epoch of `Trainer.fit` is one experience: `n_iter` mini-batches from the buffer, which
    `SyntheticBufferCallback` fills. The training split of the scenario is never read.

    Args:
        scenario: The data set and how its classes are dealt to experiences; `exml generate` needs none.
        root: Folder of all data sets.
        run_id: Which of the five runs, 0 to 4; each deals the classes in another order.
        experts: Folder of the experts; default ``checkpoints/<scenario>/run<run_id>``.
        n_iter: Optimiser steps an expert.
        batch_size: Samples an optimiser step takes from the buffer (on each device).
        augmentation: Random changes of the buffer's images during distillation.
        auxiliary: Images for the auxiliary generator.
        seed: Seed of every random draw; default the run's (1234, 2345, 3456, 5678, 6789).
        eval_batch_size: Images at a time when accuracy is measured.
        download: Fetch missing data sets into `root`.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        root: str = "data",
        run_id: int = 0,
        experts: str | None = None,
        n_iter: int = 1000,
        batch_size: int = 128,
        augmentation: Augmentation | None = None,
        auxiliary: AuxiliaryImages | None = None,
        seed: int | None = None,
        eval_batch_size: int = 1000,
        download: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {
            "n_iter": n_iter,
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
        }.items():
            if value < 1:
                raise ExmlError(f"data.{name} is {value}: give 1 or more")
        self._scenario = scenario
        self.experiences = [] if scenario is None else scenario.experiences(run_id)
        self.root = Path(root)
        self.run_id = run_id
        self.experts = Path(experts) if experts else self._default_experts()
        self.n_iter = n_iter
        self.batch_size = batch_size
        self.augmentation = augmentation or Augmentation()
        self.auxiliary = auxiliary
        self.seed = RUN_SEEDS[run_id] if seed is None else seed
        self.eval_batch_size = eval_batch_size
        self.download = download

        self.experience = -1
        """The experience that `buffer` belongs to; -1 before the first."""
        self.buffer: Buffer | None = None
        self.completed = 0
        """Number of experiences learned to their last step."""
        self.test_parts: list[TestPart] = []
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest of the experts, read when first asked for.

        Raises:
            ExmlError: If there is none (names the command that trains experts), or it is broken.
        """
        if self._manifest is None:
            if self._scenario is None and not (self.experts / FILE_NAME).is_file():
                raise ExmlError(f"no experts in {self.experts}: {FILE_NAME} is missing (--data.experts DIR)")
            if not (self.experts / FILE_NAME).is_file():
                raise ExmlError(
                    f"no experts in {self.experts}: train them there with `{self._experts_command()}`, "
                    "or name another folder with --data.experts DIR"
                )
            self._manifest = read_manifest(self.experts)
        return self._manifest

    @property
    def scenario(self) -> Scenario:
        """The scenario.

        Raises:
            ExmlError: If none was given.
        """
        if self._scenario is None:
            raise ExmlError(NO_SCENARIO)
        return self._scenario

    def _default_experts(self) -> Path:
        return Path("checkpoints") / self.scenario.name / f"run{self.run_id}"

    def _experts_command(self) -> str:
        options = [
            f"--data.run_id {self.run_id}" if self.run_id else "",
            f"--data.root {self.root}" if self.root != Path("data") else "",
            f"--data.experts {self.experts}" if self.experts != self._default_experts() else "",
        ]
        return " ".join(filter(None, ["exml experts -c", f"configs/{self.scenario.name}.yaml", *options]))

    def prepare_data(self) -> None:
        """Fetch data sets, if `download`. Lightning calls this once a machine."""
        if self.download and self._scenario is not None:
            self.scenario.dataset.download(self.root)
            if self.auxiliary is not None:
                self.auxiliary.download(self.root)

    def setup(self, stage: str) -> None:
        """Read the manifest and the test stream. Lightning calls this first.

        Args:
            stage: ``fit``, ``validate`` or ``test``; all need the same.

        Raises:
            ExmlError: If the manifest or the data set is missing or broken, or they do not fit together.
        """
        self.check_manifest()
        if not self.test_parts:
            self.test_parts = self.scenario.test_stream(self.root, self.run_id)

    def check_manifest(self) -> None:
        """Compare the manifest with the scenario, if there is one.

        Raises:
            ExmlError: If they do not fit together.
        """
        manifest = self.manifest
        if self._scenario is None:
            return
        known = [i for i in range(len(manifest.experts)) if i < len(self.experiences)]
        names = self.scenario.dataset.class_names
        for i in known:
            expected = {names[c] for c in self.experiences[i].classes}
            if set(manifest.experts[i].classes) != expected:
                raise ExmlError(
                    f"{self.experts / FILE_NAME}: expert {i} knows {sorted(manifest.experts[i].classes)}, but "
                    f"experience {i} of {self.scenario.name} run {self.run_id} has {sorted(expected)}: "
                    f"these experts belong to {manifest.scenario} run {manifest.run} (--data.run_id, --data.experts)"
                )
        if manifest.input.shape != self.scenario.dataset.image_format.shape:
            raise ExmlError(
                f"{self.experts / FILE_NAME}: the experts take images of shape {list(manifest.input.shape)}, but "
                f"{self.scenario.name} has {list(self.scenario.dataset.image_format.shape)}"
            )

    def check_experts(self, check: Callable[[Expert], None]) -> None:
        """Read every expert once, one at a time, before any of them is learned.

        Args:
            check: Called with each expert that this run is to learn; raises if it will not do.

        Raises:
            ExmlError: If there are too few experts, or one is missing or broken.
        """
        manifest, trainer = self.manifest, self.trainer
        limit = -1 if trainer is None or trainer.max_epochs is None else trainer.max_epochs
        wanted = len(self.experiences) if limit < 0 else min(limit, len(self.experiences))
        if len(manifest.experts) < wanted:
            raise ExmlError(
                f"{self.experts / FILE_NAME} lists {len(manifest.experts)} of {wanted} experts: train the rest with "
                f"`{self._experts_command()}`, or learn these alone with --trainer.max_epochs {len(manifest.experts)}"
            )
        for index in range(len(manifest.experts)):
            expert = load_expert(self.experts, manifest, index)
            if limit < 0 or index < limit:
                check(expert)
            del expert  # else it would stay in memory while the next one is read

    def load_expert(self, index: int, device: torch.device) -> Expert:
        """Read one expert.

        Args:
            index: Place in the stream, from 0.
            device: Where to put it.

        Returns:
            The expert, frozen.
        """
        return load_expert(self.experts, self.manifest, index).to(device)

    def original_images(self) -> list[tuple[Tensor, Tensor]]:
        """Read the original training images: for Replay ED only, which is not data-free.

        Returns:
            For each experience, uint8 images ``(n, channels, height, width)`` and their class indices in the stream.

        Raises:
            ExmlError: If there is no scenario, or its training data are missing.
        """
        parts = self.scenario.train_images(self.root, self.experiences)
        return [(part.images, self._stream_labels(part.labels)) for part in parts]

    def train_dataloader(self) -> BufferLoader:
        """Return the mini-batches of an experience; the buffer is read when the first is asked for."""
        assert self.trainer is not None
        return BufferLoader(self, self.trainer.global_rank)

    def val_dataloader(self) -> list[ImageLoader]:
        """Return one loader for each part of the test stream."""
        assert self.trainer is not None
        return [
            ImageLoader(
                part.images,
                self._stream_labels(part.images.labels),
                part.task,
                self.manifest.input,
                self.eval_batch_size,
                self.trainer.global_rank,
                self.trainer.world_size,
            )
            for part in self.test_parts
        ]

    def test_dataloader(self) -> list[ImageLoader]:
        """Return one loader for each part of the test stream."""
        return self.val_dataloader()

    def _stream_labels(self, labels: Tensor) -> Tensor:
        """Turn indices into the data set's class names into class indices of the stream, matching the names."""
        names = self.scenario.dataset.class_names
        present = labels.unique().tolist()
        missing = [names[c] for c in present if names[c] not in self.manifest.class_names]
        if missing:
            raise ExmlError(
                f"{self.experts / FILE_NAME}: class_names lacks {missing}, which {self.scenario.name} tests"
            )
        table = torch.full((len(names),), -1)
        for c in present:
            table[c] = self.manifest.class_names.index(names[c])
        return table[labels]

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same for a run to continue."""
        return {
            "scenario": self.scenario.name,
            "run_id": self.run_id,
            "seed": self.seed,
            "n_iter": self.n_iter,
            "batch_size": self.batch_size,
            "augmentation": vars(self.augmentation),
            "auxiliary": None if self.auxiliary is None else self.auxiliary.describe(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer, its experience, and which experts were learned."""
        return {
            "experience": self.experience,
            "completed": self.completed,
            "buffer": None if self.buffer is None else self.buffer.state_dict(),
            "learned": [entry.sha256 for entry in self.manifest.experts[: self.experience + 1]],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved buffer; only a fit needs it.

        Raises:
            ExmlError: If the experts learned so far are not the first of this folder.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        learned = [entry.sha256 for entry in self.manifest.experts[: len(state["learned"])]]
        if learned != state["learned"]:
            raise ExmlError(
                f"{self.experts / FILE_NAME}: the experts that the checkpoint has learned are not the first "
                f"{len(state['learned'])} of this folder: resume with the folder the run was started with"
            )
        self.experience = state["experience"]
        self.completed = state["completed"]
        self.buffer = None if state["buffer"] is None else Buffer(**state["buffer"])
