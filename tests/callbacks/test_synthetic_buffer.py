"""Images that stay for the whole stream: what is kept of every expert's answers, and that nobody is asked twice."""

import json
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks import CheckExperts, SyntheticBufferCallback
from exml_lightning.cli.main import main
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.familiarity import LayerShares
from exml_lightning.core.generators import DataImpression, Generator, ModelInversion, Noise, Unrelated
from exml_lightning.core.score_table import ScoreTable
from exml_lightning.core.teachers import Teachers
from exml_lightning.data import ExpertStream
from exml_lightning.module import ExModelModule
from tests.conftest import EXPERTS, refused
from tests.test_from_folder import write_stream


class Kept(Callback):
    """Keeps the buffer at the end of each experience; whoever asks the previous ex-model about images fails."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def on_fit_start(self, trainer, module):
        def fail(network, images):
            raise AssertionError("the previous ex-model was asked")

        module.previous.register_forward_pre_hook(fail)

    def on_train_epoch_end(self, trainer, module):
        self.buffers.append(module.stream.buffer)


def learn(experts: Path, checkpoint: Path) -> list[Buffer]:
    """Learn experts in three steps each, or go on, and write a checkpoint; return the buffer after each experience."""
    stream = ExpertStream(experts=str(experts), n_iter=3, batch_size=4)
    buffer, kept = SyntheticBufferCallback(20, Unrelated(), cache=None), Kept()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        callbacks=[CheckExperts(buffer), buffer, kept],
        default_root_dir=checkpoint.parent,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(ExModelModule(), datamodule=stream, ckpt_path=str(checkpoint) if checkpoint.exists() else None)
    trainer.save_checkpoint(checkpoint)
    return kept.buffers


@pytest.mark.parametrize(
    ("generator", "weight"),
    [(ModelInversion(steps=1), 1), (DataImpression(steps=1), 1), (Noise(), 0), (Unrelated(), 0)],
)
def test_labels_count_where_images_are_made_for_them_unless_told(tmp_path, generator: Generator, weight):
    stream, module = ExpertStream(experts=str(EXPERTS), n_iter=1, batch_size=4), ExModelModule()
    callbacks = [SyntheticBufferCallback(20, generator, cache=None)]
    plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    Trainer(accelerator="cpu", max_epochs=1, callbacks=callbacks, default_root_dir=tmp_path, **plain).fit(
        module, stream
    )
    assert module.distillation.lambda_ce == weight


def test_targets_are_the_scores_of_all_experts_so_far_merged(tmp_path):
    """Of three architectures and four classes, some of which two experts know, and of a fourth with a new class."""
    experts, checkpoint = tmp_path / "experts", tmp_path / "end.ckpt"
    buffers = learn(write_stream(experts, 3), checkpoint)
    assert all(buffer.images is buffers[0].images for buffer in buffers)
    assert [buffer.targets.shape[1] for buffer in buffers] == [4] * 3
    buffers += learn(write_stream(experts, 4), checkpoint)
    stream = ExpertStream(experts=str(experts))
    expected, known = torch.zeros(20, 5), set()
    for k, buffer in enumerate(buffers):
        expert = stream.load_expert(k, torch.device("cpu"))
        shares = LayerShares(expert)
        logits, taken = shares(expert, expert.image_format.to_input(buffers[0].images))
        counts = shares.weights * (taken.std(dim=0, correction=0) > 1e-5)
        familiar = ScoreTable(taken)(taken) @ counts / counts.sum().clamp_min(1e-12)  # none behind batch norm
        scores = ScoreTable(logits)(logits) + 0.3 * logits + 2 * familiar[:, None]
        for column, c in enumerate(expert.classes.tolist()):
            both = c in known
            expected[:, c] = (expected[:, c] + scores[:, column]) / 2 if both else scores[:, column]
        known |= set(expert.classes.tolist())
        torch.testing.assert_close(buffer.targets, expected[:, : buffer.targets.shape[1]], rtol=1e-4, atol=1e-4)
        assert torch.equal(buffer.images, buffers[0].images)
    assert (len(buffers), known, buffers[3].targets.shape[1]) == (4, {0, 1, 2, 3, 4}, 5)


UNRELATED = [
    *("--buffer.generator", "Unrelated", "--model.lambda_ce", "0", "--model.normalize", "NormalScores"),
    *("--data.augmentation.shift", "0", "--data.augmentation.rotation", "0", "--trainer.max_epochs"),
]


def test_they_resume_within_and_between_experiences_to_the_same_weights(small_run, tmp_path):
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 3}}])
    main([*small_run("whole", data__n_iter=2), *UNRELATED, "3"])
    main([*small_run("cut", data__n_iter=2), *UNRELATED, "1"])
    main([*small_run("cut", data__n_iter=2), *UNRELATED, "3", "--trainer.callbacks", stop])
    cut = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (cut["ExpertStream"]["completed"], cut["global_step"]) == (1, 3)  # within the second experience
    main([*small_run("cut", data__n_iter=2), *UNRELATED, "3"])
    whole, cut = (tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_changed_copies_are_asked_about_once_and_are_the_same_after_a_resume(small_run, tmp_path, monkeypatch, capsys):
    asked, original = [], Teachers.ask

    def ask(self, images, rows=None):
        asked.append(self.all_answers is None)
        return original(self, images, rows)

    monkeypatch.setattr(Teachers, "ask", ask)
    copies = ["--data.augmentation.shift", "0.1", "--data.copies", "2", "--model.normalize", "StandardScores"]
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 7}}])
    main([*small_run("whole", data__n_iter=5), *copies])
    assert (len(asked), sum(asked)) == (2 + 2 * 5, 2)  # anew in the rehearsal of each expert alone
    main([*small_run("cut", data__n_iter=5), *copies, "--trainer.callbacks", stop])
    cut = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (cut["ExpertStream"]["completed"], cut["global_step"]) == (1, 7)
    assert "data.copies was" in refused([*small_run("cut", data__n_iter=5), *copies[:2]], capsys)
    main([*small_run("cut", data__n_iter=5), *copies])
    whole, cut = (tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    asked.clear()
    main([*small_run("few", data__n_iter=1), *copies])  # steps too few for all of them
    assert (len(asked), sum(asked)) == (2 + 2, 2)  # the scale asks both about all anyway
    asked.clear()
    main([*small_run("centred", data__n_iter=1), *copies[:4]])
    assert (len(asked), sum(asked)) == (2 + 2, 2 + 2)


def test_copies_of_images_that_nothing_changes_are_left_out(small_run, capsys):
    main([*small_run(data__n_iter=1), *UNRELATED, "2", "--data.copies", "2"])
    assert "left out, since it does not apply here: data.copies (nothing changes images)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.lambda_ce", "1"], "no labels: set model.lambda_ce to 0 and model.merge to unit"),
        (["--model.merge", "sample"], "no labels: set model.lambda_ce to 0 and model.merge to unit"),
        (["--data.augmentation.shift", "0.1"], "no step may change them: set shift and rotation of data.augmentation"),
    ],
)
def test_what_does_not_go_with_them_is_refused(small_run, capsys, options, said):
    assert said in refused([*small_run(), *UNRELATED, "2", *options], capsys)
