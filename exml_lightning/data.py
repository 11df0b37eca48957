"""`ExpertStream`: supplies experts one by one, the buffer's mini-batches and the test stream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.copies import changed_copies
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.loaders import BufferLoader, ImageLoader
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import Manifest, load_expert
from exml_lightning.experts.common_start import CommonStart
from exml_lightning.experts.matching import (
    check_same_run,
    check_same_stream,
    experts_command,
    experts_folder,
    heads_of,
    labelled_parts,
    stream_labels,
    with_tasks,
)
from exml_lightning.experts.selection import is_selection, list_file, read_experts
from exml_lightning.scenarios import RUN_SEEDS, AuxiliaryImages, Scenario, TestPart
from exml_lightning.shipped import found_experts
from exml_lightning.terminal import say

NO_SCENARIO = (
    "without a scenario there is no data set to train on or to replay: give data.scenario, for instance with "
    "-c configs/split_digits.yaml"
)


class ExpertStream(LightningDataModule):
    """A stream of trained experts, one in memory at a time.

    One epoch of `Trainer.fit` is one experience: `n_iter` mini-batches from the buffer, which
    `SyntheticBufferCallback` fills. Only Replay ED reads the training split of the scenario.

    Args:
        scenario: The data set and how its classes are dealt to experiences; null learns from a folder of experts alone,
            and measures accuracy only if there are `labelled` images.
        root: Folder of all data sets.
        run_id: Which of the five runs, 0 to 4; each deals the classes in another order.
        experts: Folder of the experts, or a selection of experts (`exml catalog`), needed where there is no scenario;
            default ``checkpoints/<scenario>/run<run_id>``, or the experts that ship where that is not there.
        labelled: Folder of labelled images to measure accuracy on, with a sub-folder for each class, of as many of the
            classes as there are images of; in place of the test split of a scenario, which is then not opened.
        n_iter: Mini-batches an expert, each an optimiser step unless the trainer accumulates gradients.
        batch_size: Samples an optimiser step takes from the buffer (on each device).
        augmentation: Random changes of the buffer's images during distillation.
        copies: Changed copies of each image that all steps of an experience draw from: both teachers are asked about
            them once, and a step is that of the ex-model alone; but in each step where there are too few for all of
            them (`n_iter` times `batch_size`), and the scale does not ask about all anyway. 0 changes images, and asks
            about them, in each step.
        auxiliary: Images of anything, for the default strategy, which draws some without them, and for those that need
            some, in place of the scenario's.
        seed: Seed of every random draw; default the run's (1234, 2345, 3456, 5678, 6789).
        download: Fetch missing data sets into `root`.

    Example:
        >>> from exml_lightning import ExpertStream
        >>> ExpertStream(experts="checkpoints/split_digits/run0").num_experts
        5
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        root: str = "data",
        run_id: int = 0,
        experts: str | None = None,
        labelled: str | None = None,
        n_iter: int = 1000,
        batch_size: int = 32,
        augmentation: Augmentation | None = None,
        copies: int = 0,
        auxiliary: AuxiliaryImages | None = None,
        seed: int | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"n_iter": n_iter, "batch_size": batch_size}.items():
            if value < 1:
                raise ExmlError(f"data.{name} is {value}: give 1 or more")
        if copies < 0:
            raise ExmlError(f"data.copies is {copies}: give 0 or more")
        if not 0 <= run_id < len(RUN_SEEDS):
            raise ExmlError(f"data.run_id is {run_id}: give 0 to {len(RUN_SEEDS) - 1}")
        if scenario is None and experts is None:
            raise ExmlError(
                "which experts? Give a folder of them with --data.experts DIR (`exml manifest` makes one), or a "
                "scenario, for instance with -c configs/split_digits.yaml"
            )
        if scenario is not None:
            scenario.dataset.open(Path(root), download)
        self._scenario = scenario
        self.experiences = [] if scenario is None else scenario.experiences(run_id, Path(root))
        self.root = Path(root)
        self.run_id = run_id
        self._own = Path(experts) if experts else experts_folder(self.scenario, run_id)
        self.experts = self._own if experts else found_experts(self._own)
        self.list_file = list_file(self.experts)
        self.labelled = None if labelled is None else Path(labelled)
        self.n_iter = n_iter
        self.batch_size = batch_size
        self.augmentation = augmentation or Augmentation()
        self.copies = copies if self.augmentation.changes else 0
        self.left_out = "data.copies (nothing changes images)" if copies and not self.copies else ""
        self.auxiliary = auxiliary
        self.seed = RUN_SEEDS[run_id] if seed is None else seed
        self.download = download
        self.test_parts: list[TestPart] = []
        """The test stream, once it is set up; labels are class indices of the stream of experts."""
        self._manifest: Manifest | None = None
        self._common_start: CommonStart | None = None
        self._kept = False
        self._experience = -1
        self._buffer: Buffer | None = None
        self._shown: Buffer | None = None
        self._completed = 0

    @property
    def experience(self) -> int:
        """The experience that the buffer belongs to; -1 before the first."""
        return self._experience

    @property
    def completed(self) -> int:
        """Number of experiences learned to their last step."""
        return self._completed

    @property
    def buffer(self) -> Buffer:
        """The samples of the experience."""
        assert self._buffer is not None, "no experience has begun"
        return self._buffer

    @property
    def shown(self) -> Buffer:
        """The samples that mini-batches are drawn from: those of the buffer, or changed copies of them."""
        if not self.copies:
            return self.buffer
        if self._shown is None:
            draws = keyed_generator("copies", self.seed, self._experience)
            self._shown = changed_copies(self.buffer, self.copies, self.augmentation, self.manifest.input, draws)
        return self._shown

    @property
    def step_changes(self) -> Augmentation:
        """How each step changes the images it is shown: not at all where these are changed copies."""
        return Augmentation() if self.copies else self.augmentation

    @property
    def has_buffer(self) -> bool:
        """Whether an experience has begun."""
        return self._buffer is not None

    def keep_images(self, kept: bool) -> None:
        """Say whether the images of the first experience stay for the whole stream."""
        self._kept = kept

    def remember(self, targets: torch.Tensor | None) -> None:
        """Keep what all experts so far say of the images of the buffer."""
        self._buffer = replace(self.buffer, targets=targets)

    def begin(self, experience: int, buffer: Buffer) -> None:
        """Begin an experience, given its place in the stream and the samples that its mini-batches are drawn from."""
        self._experience, self._buffer, self._shown = experience, buffer, None

    def move_buffer(self, device: torch.device) -> Buffer:
        """Put the buffer where the work is (a checkpoint brings it back on the CPU), and return it."""
        self._buffer, self._shown = self.buffer.to(device), None
        return self._buffer

    def complete(self) -> None:
        """Count the experience as learned."""
        self._completed = self._experience + 1

    @property
    def manifest(self) -> Manifest:
        """The manifest, read when first asked for; `ExmlError` if broken or missing (says how to train experts)."""
        if self._manifest is None:
            if self._scenario is None and not is_selection(self.experts) and not self.experts.exists():
                raise ExmlError(f"there is no {self.experts}: give the folder of your experts by --data.experts DIR")
            if not is_selection(self.experts) and not self.list_file.is_file():
                command = f"exml manifest {self.experts} ..." if self._scenario is None else self.experts_command()
                several = any(self.experts.glob(f"*/{self.list_file.name}"))
                below = f"; `exml catalog {self.experts} --output selection.yaml` makes one stream of the folders in it"
                raise ExmlError(
                    f"no experts in {self.experts}: make manifest.yaml there by `{command}`, or give --data.experts DIR"
                    f"{below if several else ''}"
                )
            if self.experts != self._own and self._own.parent.is_dir():  # with other runs
                say(f"there is no {self._own}: the experts that ship with exml_lightning are taken")
            self._manifest = with_tasks(read_experts(self.experts), self.experiences)
        return self._manifest

    @property
    def heads(self) -> list[int] | None:
        """The task of each class of the stream, for a multi-head ex-model; None where all experts have one task."""
        return heads_of(self.manifest)

    @property
    def scenario(self) -> Scenario:
        """The scenario; `ExmlError` if none was given."""
        if self._scenario is None:
            raise ExmlError(NO_SCENARIO)
        return self._scenario

    @property
    def other_images(self) -> AuxiliaryImages | None:
        """The images of ``data.auxiliary``, else those of the scenario, if there are any."""
        if self.auxiliary is not None or self._scenario is None:
            return self.auxiliary
        return self._scenario.auxiliary

    @property
    def scenario_name(self) -> str | None:
        """The name of the scenario; None without one."""
        return None if self._scenario is None else self._scenario.name

    @property
    def statistics(self) -> bool:
        """Whether any expert has published statistics."""
        return any(entry.statistics is not None for entry in self.manifest.experts[: self.num_experts])

    @property
    def measures_accuracy(self) -> bool:
        """Whether there are labelled images, a scenario's or others."""
        return self._scenario is not None or self.labelled is not None

    def experts_command(self) -> str:
        """Return the command that trains the experts of the scenario."""
        return experts_command(self.scenario, self.run_id, self.root, self.experts)

    def prepare_data(self) -> None:
        """Fetch data sets, if `download`. Lightning calls this once a machine."""
        if self.download and self._scenario is not None:
            self._scenario.dataset.download(self.root)
        if self.download and self.other_images is not None:
            self.other_images.download(self.root)

    def setup(self, stage: str) -> None:
        """Read manifest and test stream, at any stage; `ExmlError` if missing, broken, or they do not fit together."""
        self.check_manifest()
        assert self.trainer is not None
        if not self.test_parts:
            with _first_process_first(self.trainer):  # it decodes image files, the others then find them decoded
                self.test_parts = self._open_test_stream()

    def _open_test_stream(self) -> list[TestPart]:
        if self.labelled is not None:
            return labelled_parts(self.labelled, self.manifest, self.num_experts)
        if self._scenario is None:
            return []
        parts = self._scenario.test_stream(self.root, self.experiences)
        return [replace(part, images=self._in_stream(part.images)) for part in parts]

    def check_manifest(self) -> None:
        """Raise `ExmlError` if the manifest does not fit the scenario, where there is one."""
        if self._scenario is not None:
            check_same_stream(self.manifest, self.list_file, self._scenario, self.experiences)

    @property
    def num_experts(self) -> int:
        """The experts to learn or to ask: ``trainer.max_epochs``, or all; `ExmlError` if there are too few."""
        there, trainer = len(self.manifest.experts), self.trainer
        limit = -1 if trainer is None or trainer.max_epochs is None else trainer.max_epochs
        wanted = len(self.experiences) if limit < 0 else min(limit, len(self.experiences))
        if there < wanted:
            raise ExmlError(
                f"{self.list_file} lists {there} of {wanted} experts: train the rest with "
                f"`{self.experts_command()}`, or learn these alone with --trainer.max_epochs {there}"
            )
        return there if limit < 0 else min(limit, there)

    def images_stay(self, asked_anyway: bool) -> bool:
        """Say whether mini-batches hold images of the buffer alone, unchanged, and it pays to ask about all at once.

        It does for an experience that has steps enough for all of them, for images that stay for the whole stream, and
        where both teachers are asked about all of them anyway, for the scale of their answers.
        """
        pays = asked_anyway or self.n_iter * self.batch_size >= len(self.shown)
        return self._kept or (pays and not self.step_changes.changes)

    def load_expert(self, index: int, device: torch.device) -> Expert:
        """Read the expert at a place in the stream, from 0, onto a device, frozen."""
        expert = load_expert(self.experts, self.manifest, index)
        self._common_start = self._common_start or CommonStart(self.experts, self.manifest)
        expert.guess_initial = self._common_start.of
        return expert.to(device)

    def original_images(self) -> Callable[[int], LabelledImages]:
        """Open the original training images: for Replay ED only, which is not data-free.

        Returns:
            The images of an experience, with class indices in the stream for labels, one experience at a time; it
            raises `ExmlError` for one that has none.

        Raises:
            ExmlError: If there is no scenario, or its training data are missing.
        """
        originals = self.scenario.train_images(self.root, self.experiences)

        def read(experience: int) -> LabelledImages:
            return self._in_stream(originals[experience])

        return read

    def train_dataloader(self) -> BufferLoader:
        """Return the mini-batches of an experience; the buffer is read when the first is asked for."""
        assert self.trainer is not None
        return BufferLoader(
            lambda: (self._experience, self.shown),
            self.n_iter,
            self.batch_size,
            self.step_changes,
            self.seed,
            self.manifest.input,
            self.trainer.global_rank,
            self.trainer.world_size,
        )

    def val_dataloader(self) -> list[ImageLoader]:
        """Return one loader for each part of the test stream."""
        assert self.trainer is not None
        return self.test_loaders(self.trainer.global_rank, self.trainer.world_size)

    def test_loaders(self, rank: int = 0, world_size: int = 1) -> list[ImageLoader]:
        """Return the same, for a process of so many, each of which is served its share."""
        same = (self.manifest.input, self.manifest.input.chunk, rank, world_size)
        return [ImageLoader(part.images, part.task, *same) for part in self.test_parts]

    test_dataloader = val_dataloader

    def _in_stream(self, images: LabelledImages) -> LabelledImages:
        return stream_labels(images, self.manifest, self.list_file, self.scenario)

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same for a run to continue."""
        return {
            "scenario": self.scenario_name,
            "labelled": None if self.labelled is None else "given",
            "run_id": self.run_id,
            "seed": self.seed,
            "n_iter": self.n_iter,
            "batch_size": self.batch_size,
            "input": repr(self.manifest.input),
            "augmentation": vars(self.augmentation),
            **({"copies": self.copies} if self.copies else {}),
            "auxiliary": None if self.other_images is None else self.other_images.describe(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the buffer, its experience, which experts were learned and the classes of the stream so far."""
        return {
            "scenario": self.scenario_name,
            "class_names": list(self.manifest.class_names),
            "experience": self._experience,
            "completed": self._completed,
            "buffer": None if self._buffer is None else self._buffer.state_dict(),
            "learned": [entry.identity for entry in self.manifest.experts[: self._experience + 1]],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved buffer, which only a fit needs; `ExmlError` if the checkpoint is of another run."""
        check_same_run(state, self.manifest, self.list_file, self.scenario_name)
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        self._experience = state["experience"]
        self._completed = state["completed"]
        self._buffer = None if state["buffer"] is None else self._grown(Buffer(**state["buffer"]))

    def _grown(self, buffer: Buffer) -> Buffer:
        """Give the targets of a buffer columns for the classes that are new."""
        if buffer.targets is None:
            return buffer
        new = len(self.manifest.class_names) - buffer.targets.shape[1]
        return replace(buffer, targets=F.pad(buffer.targets, (0, new)))


@contextmanager
def _first_process_first(trainer: Trainer) -> Iterator[None]:
    """Let the first process of a machine do something before the others do it, too."""
    first = trainer.local_rank == 0
    if not first:
        trainer.strategy.barrier("first process first")
    yield
    if first:
        trainer.strategy.barrier("first process first")
