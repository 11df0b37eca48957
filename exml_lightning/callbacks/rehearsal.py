"""A rehearsal: each expert goes once through all that the strategy does with it, on a few images, before any work."""

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from exml_lightning.core.buffer import Buffer, share
from exml_lightning.core.errors import ExmlError, foreign_code
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_logits, sane
from exml_lightning.core.generators.generator import FEW
from exml_lightning.core.layout import fast_layout
from exml_lightning.core.loaders import Batch, BufferLoader
from exml_lightning.core.rng import derive_seed, seed_layers
from exml_lightning.core.targets import Answers
from exml_lightning.experts.architecture import units_of
from exml_lightning.generation.samples import Sampler
from exml_lightning.module import ExModelModule, make_optimizer


class Rehearsal:
    """Makes a few samples of each expert, asks it as a teacher and computes the loss, in the order of the stream.

    With the first one an ex-model built anew takes a step of the optimiser. Nothing of the run changes: not the
    ex-model, no optimiser of it, no random state.

    Args:
        module: The ex-model in training, on its device, with a trainer.
        sampler: Makes the samples.
        size: N, the samples that the buffer holds.
    """

    def __init__(self, module: ExModelModule, sampler: Sampler, size: int) -> None:
        self._module, self._sampler, self._size = module, sampler, size
        manifest, learned = module.stream.manifest, range(module.stream.completed)
        self._known = torch.zeros(len(manifest.class_names), dtype=torch.bool, device=module.device)
        self._known[[c for k in learned for c in manifest.classes_of(k)]] = True
        self._stepped = False
        self.unfamiliar: list[int] = []
        """Experts with no layer that tells how familiar an image is, though that is asked for."""
        self.unknown_start: list[int] = []
        """Experts whose layers tell it by their weights as they are: nobody knows what training changed."""

    def __call__(self, expert: Expert) -> None:
        """Take the next expert, on the device of the run, through it; `ExmlError` if anything in it fails."""
        module, device = self._module, self._module.device
        known = self._known.index_fill(0, expert.classes, True)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_layers(derive_seed("rehearsal", module.stream.seed), device)
            samples = self._sampler.rehearse(expert, share(self._size, expert.experience))
            batch = self._batch(samples, expert.experience)
            answers = self._ask(expert, samples.images, batch.images)
            # the same for all experts: what the ex-model makes of an image does not depend on whom it learns from
            blank = torch.zeros(len(batch.images), len(known), device=device)
            module.loss_terms(blank, answers, batch, known)
            if not self._stepped:
                self._step(answers, batch, known)
        self._known, self._stepped = known, True

    def _batch(self, samples: Buffer, experience: int) -> Batch:
        """Draw a mini-batch as the run will."""
        stream = self._module.stream
        size, settings = min(FEW, stream.batch_size), (stream.augmentation, stream.seed, stream.manifest.input)
        return next(iter(BufferLoader(lambda: (experience, samples), 1, size, *settings)))

    def _ask(self, expert: Expert, samples: Tensor, images: Tensor) -> Answers:
        """Ask it about a mini-batch, and the previous ex-model; its logits are compared with those of samples."""
        scale = type(self._module.distillation.normalize).__name__
        remedy = "give another model.normalize, or leave this expert out of the manifest"
        with foreign_code(expert.name, f"asking it as a teacher, by {scale},", remedy):
            teachers = self._module.teachers_of(expert, self._known, samples, False, lambda network: network)
            with self._module.trainer.precision_plugin.forward_context():
                answers = teachers.ask(images)
        if teachers.familiarity_of_none:
            self.unfamiliar.append(expert.experience)
        elif teachers.looks_into_layers and expert.began_with() is None:
            self.unknown_start.append(expert.experience)
        check_logits(sane(answers.expert), expert, "images made of it before work")
        return answers

    def _step(self, answers: Answers, batch: Batch, known: Tensor) -> None:
        """Let an ex-model that is built as that of the run take a step; it is not that of the run."""
        module, stream = self._module, self._module.stream
        assert module.architecture is not None
        name = f"model.architecture {module.architecture.class_path}"
        with foreign_code(name, "a step of its training", "name another network, or another model.optimizer"):
            shape = stream.manifest.input.shape
            student = fast_layout(module.architecture.empty(shape, stream.seed, "ex-model"), shape).to(module.device)
            optimizer, _ = make_optimizer(student, module.optimizer, module.lr_scheduler, stream.n_iter)

            def closure() -> float:
                optimizer.zero_grad()
                with module.trainer.precision_plugin.forward_context():
                    logits = student(batch.images)
                units_of(logits, len(batch.images), f"{name}, while it is trained,")
                loss = module.loss_terms(logits.float(), answers, batch, known)["loss"]
                if not loss.requires_grad:
                    raise ExmlError(
                        f"{name} gives its weights no gradient (no_grad or detach in its forward), so it cannot learn: "
                        "name another network by --model.architecture.class_path"
                    )
                loss.backward()
                return float(loss.detach())

            optimizer.step(closure)
        unused = [
            name for name, weights in student.named_parameters() if weights.requires_grad and weights.grad is None
        ]
        strategy = module.trainer.strategy
        if unused and isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ExmlError(
                f"{name}: the loss does not depend on all of its weights ({unused[0]}), and processes would wait for "
                "these: give --trainer.strategy ddp_find_unused_parameters_true, or, if they are of auxiliary "
                "classifiers, init_args {aux_logits: false}"
            )
