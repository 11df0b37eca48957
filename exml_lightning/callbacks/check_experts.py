"""`CheckExperts`: a look at the experts still to be learned, and a rehearsal with each, before work begins."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.rehearsal import Rehearsal
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.errors import SHOWN, ExmlError, printable
from exml_lightning.core.first_look import FirstLook, draw_everything, far_from_others, first_look
from exml_lightning.experts import Manifest
from exml_lightning.experts.catalog import architecture_words, class_words
from exml_lightning.generation.samples import Sampler
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import Bar, print_rows, say

LISTED = 20
"""Experts of a stream that are listed; of a longer one also those whose scale is far from the others'."""
HEADINGS = "", "file", "network", "classes", "input", "confidence", "logits"


class CheckExperts(Callback):
    """Refuses a fit that would fail at one of its experts, that the ex-model cannot start, or whose epochs are none.

    It prints a line for each expert: how sure it is of drawings, and how far its logits are spread there.
    """

    def __init__(self, buffer: SyntheticBufferCallback) -> None:
        self._buffer = buffer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise `ExmlError`, which names the key, if a trainer's epoch would not be an experience."""
        if stage == "fit":
            _check_trainer(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check experts; Lightning has restored a checkpoint, so those learned before need no files any more.

        `ExmlError` if one still to be learned is missing or broken, or neither ex-model nor generator can work with it.
        """
        assert isinstance(pl_module, ExModelModule)
        pl_module.prepare_start()
        stream = pl_module.stream
        left = range(stream.completed, stream.num_experts)
        if left:
            self._rehearse(trainer, pl_module, left)
        if trainer.is_global_zero and trainer.ckpt_path is not None:
            begin = "; to begin anew, delete the folder or name another with --trainer.default_root_dir DIR"
            learned = f"{stream.completed} of {stream.num_experts} experts are learned"
            say(f"going on with {trainer.ckpt_path}: {learned}{'' if left else begin}")

    def _rehearse(self, trainer: Trainer, module: ExModelModule, left: range) -> None:
        """Look at experts, and rehearse the work with each; see `on_fit_start`."""
        stream, manifest, device = module.stream, module.stream.manifest, module.device
        rehearsal = Rehearsal(module, Sampler(self._buffer.generator, stream, None, False), self._buffer.size)
        drawings, looks = draw_everything(manifest.input, stream.seed, device), {}
        shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
        with Bar("looking at the experts", len(left), shown, leave=False) as bar:
            for index in left:
                expert = stream.load_expert(index, device)
                looks[index] = first_look(expert, drawings)
                rehearsal(expert)
                if self._buffer.makes_from_statistics(expert):
                    Sampler(self._buffer.statistics, stream, None, False).rehearse(expert)
                del expert  # else it would stay in memory while the next one is read
                bar.advance()
        if trainer.is_global_zero:
            print_looks(looks, manifest, len(drawings))
            if rehearsal.unfamiliar:
                say(
                    f"left out: how familiar images are to {_experts(rehearsal.unfamiliar)}, no layer of which tells it"
                )
            if rehearsal.unknown_start:
                say(
                    f"what the training of {_experts(rehearsal.unknown_start)} began with is not known: how familiar "
                    "images are is told by the weights as they are, less well (training.initial in docs/manifest.md)"
                )


def _experts(indices: list[int]) -> str:
    names = ", ".join(str(index + 1) for index in indices[:SHOWN])
    more = f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else ""
    return f"expert{'s' if len(indices) > 1 else ''} {names}{more}"


def print_looks(looks: dict[int, FirstLook], manifest: Manifest, drawings: int) -> None:
    """Print a line for each expert, the first and the odd ones of a long stream, and say whose scale is odd."""
    indices = list(looks)
    odd = {indices[k]: times for k, times in far_from_others([look.spread for look in looks.values()]).items()}
    listed = sorted({*indices[:LISTED], *list(odd)[:LISTED]})
    many = "" if len(listed) == len(looks) else f", {len(listed)} of {len(looks)} are listed"
    rows = []
    for index in listed:
        entry, look = manifest.experts[index], looks[index]
        shape = "x".join(map(str, (entry.input or manifest.input).shape))
        words = printable(architecture_words(entry.architecture)), printable(class_words(entry.classes), 200), shape
        figures = f"{100 * look.confidence:.0f} %", f"{look.spread:.3g}{' !' if index in odd else ''}"
        rows.append((str(index + 1), printable(entry.file), *words, *figures))
    same = [column for column in ("network", "input") if len({row[HEADINGS.index(column)] for row in rows}) == 1]
    of_all = ", ".join(rows[0][HEADINGS.index(column)] for column in same)
    shown = [k for k, heading in enumerate(HEADINGS) if heading not in same]
    title = (
        f"experts before the work{f' (all {of_all})' if same else ''}: mean confidence in {drawings} drawings, and how "
        f"far logits are spread{many}"
    )
    print_rows(title, [HEADINGS[k] for k in shown], [[row[k] for k in shown] for row in rows])
    if files := [printable(manifest.experts[k].file) for k, look in looks.items() if look.other_in_company]:
        others = " and others" if len(files) > SHOWN else ""
        what = "an image is answered otherwise in other company; has batch norm no running statistics?"
        say(f"! {', '.join(files[:SHOWN])}{others}: {what}")
    if odd:
        named = [f"{printable(manifest.experts[k].file)} {times:.2g} times" for k, times in odd.items()]
        names = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")
        say(
            f"! logits on another scale than the median expert's: {names}. Where raw logits are "
            "compared (Center, NoScale, concat), the larger outshout the smaller; NormalScores puts all on one scale"
        )


def _check_trainer(trainer: Trainer) -> None:
    """Refuse settings of the trainer under which an epoch would not be an experience."""
    if trainer.max_epochs == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to learn, or -1 for all")
    if trainer.max_steps != -1:
        raise ExmlError("trainer.max_steps would stop within an experience: set data.n_iter, or trainer.max_epochs")
    if trainer.check_val_every_n_epoch != 1:
        raise ExmlError("trainer.check_val_every_n_epoch must be 1: accuracy is measured after each experience")
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise ExmlError(f"trainer.precision is {trainer.precision}: give 32-true, 16-mixed or bf16-mixed")
