"""Streams of experts some of which have published statistics: what is made of them, and whose answers are kept."""

import shutil
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.baselines import PublishedStatistics, StatisticsAlone
from exml_lightning.callbacks import CheckExperts, SyntheticBufferCallback
from exml_lightning.cli.main import main
from exml_lightning.core.buffer import NOBODY
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.features import Features
from exml_lightning.core.generators import StatisticsInversion
from exml_lightning.core.losses import distillation_kl
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.scales import Center, NormalScores, StatisticsScale
from exml_lightning.core.targets import Target
from exml_lightning.data import ExpertStream
from exml_lightning.experts import load_expert, read_manifest, write_manifest
from exml_lightning.experts.statistics_file import publish
from exml_lightning.module import ExModelModule
from tests.conftest import EXPERTS, refused


@pytest.fixture(scope="module")
def zoo_once(tmp_path_factory):
    folder = shutil.copytree(EXPERTS, tmp_path_factory.mktemp("published") / "zoo")
    manifest = replace(read_manifest(folder), experts=read_manifest(folder).experts[:3])
    entries = list(manifest.experts)
    for k in (0, 2):
        pixels = Strokes().draw(60, (1, 32, 32), keyed_generator("drawn", k), torch.device("cpu"))
        entries[k] = publish(load_expert(folder, manifest, k), entries[k], folder, pixels, torch.arange(60) % 2)
    write_manifest(replace(manifest, experts=tuple(entries)), folder)
    return folder


@pytest.fixture
def zoo(zoo_once, tmp_path):
    """Three of the shipped experts, of which the first and the third have statistics of drawings."""
    return shutil.copytree(zoo_once, tmp_path / "zoo")


class Kept(Callback):
    """Keeps the buffer and the ex-model at the end of each experience."""

    def __init__(self) -> None:
        self.buffers, self.networks = [], []

    def on_train_epoch_end(self, trainer, module):
        self.buffers.append(module.stream.buffer)
        self.networks.append(deepcopy(module.network).eval())


def learn(experts, folder, checkpoint=None, epochs=-1, module=None):
    stream = ExpertStream(experts=str(experts), n_iter=3, batch_size=4)
    buffer, kept = SyntheticBufferCallback(20, statistics=StatisticsInversion(steps=2), cache=None), Kept()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[CheckExperts(buffer), buffer, kept],
                      default_root_dir=folder, **quiet)  # fmt: skip
    module = module or ExModelModule()
    folder.mkdir(exist_ok=True)
    trainer.fit(module, datamodule=stream, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module, kept


def test_images_of_statistics_stay_beside_drawings_with_what_everyone_said(zoo, tmp_path):
    module, kept = learn(zoo, tmp_path)
    assert isinstance(module.distillation.normalize, StatisticsScale)
    assert module.distillation.lambda_ce == 1  # of the labels of images that are of their class for certain
    first, second, third = kept.buffers
    assert first.experiences.tolist() == [NOBODY] * 4 + [0] * 16
    assert torch.equal(second.images, first.images)  # the second expert has nothing to make images of
    counts = [third.experiences.tolist().count(k) for k in (NOBODY, 0, 2)]
    assert counts == [4, 11, 5]
    stream = ExpertStream(experts=str(zoo))
    for k, buffer in ((0, first), (2, third)):
        expert = stream.load_expert(k, torch.device("cpu"))
        with Features(expert, "features.6")() as look, torch.no_grad():
            logits = expert(buffer.images)
            scores = 0.3 * logits - expert.statistics.strangeness(look.pop(buffer.images))[:, None] + 3
        torch.testing.assert_close(buffer.targets[:, expert.classes], scores.clamp(-10, 10), rtol=1e-4, atol=1e-4)
    known = [4, 5, 2, 8]
    old, new = third.experiences != 2, third.experiences == 2
    kept_rows = [(image == first.images).flatten(1).all(dim=1).nonzero()[0, 0] for image in third.images[old]]
    assert torch.equal(third.targets[old][:, known], second.targets[torch.stack(kept_rows)][:, known])
    with torch.no_grad():  # of images that the experts before never saw, the ex-model says what they would
        said = kept.networks[1](third.images[new])
    torch.testing.assert_close(third.targets[new][:, known], said[:, known], rtol=1e-4, atol=1e-4)


def test_the_loss_has_the_labels_of_images_of_statistics_alone(zoo, tmp_path):
    class Losses(ExModelModule):
        def loss_terms(self, logits, answers, batch, known):
            terms = super().loss_terms(logits, answers, batch, known)
            if batch.rows is None or not self.stream.has_buffer:  # the rehearsal
                return terms
            experiences = self.stream.buffer.experiences[batch.rows]
            each = torch.nn.functional.cross_entropy(logits[:, known], known.cumsum(0)[batch.labels] - 1,
                                                     reduction="none", ignore_index=-2)  # fmt: skip
            own = experiences != NOBODY
            assert torch.equal(batch.labels[own], self.stream.buffer.labels[batch.rows][own])
            torch.testing.assert_close(terms["cross_entropy"], each[own].sum() / len(own))
            torch.testing.assert_close(terms["loss"], terms["kl"] + terms["cross_entropy"])
            seen.append(int((~own).sum()))
            return terms

    seen: list[int] = []
    learn(zoo, tmp_path, module=Losses())
    assert len(seen) == 9
    assert sum(seen) > 0


def test_experts_that_do_not_compete_make_images_of_their_statistics_too(zoo, tmp_path):
    """Of several tasks, and alone: their logits are compared as they would be without."""
    manifest = read_manifest(zoo)
    tasks = tuple(replace(entry, task=k) for k, entry in enumerate(manifest.experts))
    for name, entries in (("tasks", tasks), ("alone", manifest.experts[:1])):
        write_manifest(replace(manifest, experts=entries), zoo)
        module, kept = learn(zoo, tmp_path / name)
        assert isinstance(module.distillation.normalize, Center)
        assert (module.distillation.lambda_ce, module.distillation.softness) == (1, 2)
        assert kept.buffers[0].experiences.tolist() == [NOBODY] * 4 + [0] * 16
        assert int((kept.buffers[-1].experiences >= 0).sum()) == 16
    write_manifest(replace(manifest, experts=(replace(manifest.experts[1], statistics=None),)), zoo)
    module, _ = learn(zoo, tmp_path / "without")
    assert module.distillation.lambda_ce == 0


def test_the_same_module_is_fitted_again_and_a_weight_of_ones_own_is_taken(zoo, tmp_path):
    module, _ = learn(zoo, tmp_path)
    assert learn(zoo, tmp_path / "again", module=module)[0].distillation.lambda_ce == 1
    assert learn(zoo, tmp_path / "own", module=ExModelModule(lambda_ce=0.3))[0].distillation.lambda_ce == 0.3


def test_a_stream_of_them_goes_on_to_the_same_weights(zoo, tmp_path):
    whole, _ = learn(zoo, tmp_path)
    learn(zoo, tmp_path, epochs=2)
    resumed, _ = learn(zoo, tmp_path, checkpoint=tmp_path / "2.ckpt")
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def test_stored_experts_are_asked_on_this_scale_and_without_their_networks(zoo):
    manifest = read_manifest(zoo)
    with pytest.raises(ExmlError, match="expert 1 has published no statistics"):
        PublishedStatistics().check(manifest)
    expert = load_expert(zoo, manifest, 2)
    images = torch.randn(6, 1, 32, 32, generator=keyed_generator("images"))
    with Features(expert, "features.6")() as look, torch.no_grad():
        logits, away = expert(images), expert.statistics.log_distance(look.pop(images))
    mean, deviation = expert.statistics.distance
    whole = (0.3 * logits - ((away.amin(dim=1) - mean) / deviation)[:, None] + 3).clamp(-10, 10)
    for baseline, expected in ((PublishedStatistics(), whole), (StatisticsAlone(), (mean - away) / deviation)):
        with torch.no_grad():
            scores = baseline.answer(expert, images, 0, 10)
        torch.testing.assert_close(scores[:, expert.classes], expected)
        assert int(scores.isfinite().sum()) == 12


def test_a_class_none_of_these_competes_where_one_has_statistics():
    assert NormalScores().fitted(3, None, True) == (StatisticsScale(), "")
    assert NormalScores().fitted(3, None, False) == (NormalScores(), "")
    assert StatisticsScale().fitted(3, None, False) == (NormalScores(), "")  # given by hand, and nobody publishes
    assert not NormalScores().fitted(1, None, True)[0].none_of_these
    assert not NormalScores().fitted(3, [0, 1], True)[0].none_of_these


def test_the_divergence_with_none_of_these_is_that_of_one_more_class():
    draws = keyed_generator("divergence")
    logits, wanted = torch.randn(5, 3, generator=draws), torch.randn(5, 3, generator=draws)
    target = Target(wanted, torch.tensor([True, True, False]).expand(5, 3))
    p, q = (torch.cat([x[:, :2], torch.zeros(5, 1)], dim=1).div(2).softmax(dim=1) for x in (wanted, logits))
    expected = 4 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(distillation_kl(logits, target, 2.0, none_of_these=True), expected)


def test_statistics_that_came_since_a_run_began_are_told(zoo, tmp_path, capsys):
    """Which no setting undoes."""
    manifest = read_manifest(zoo)
    write_manifest(replace(manifest, experts=tuple(replace(e, statistics=None) for e in manifest.experts)), zoo)
    fit = ["fit", "--quiet", "-c", "configs/from_folder.yaml", "-c", "configs/trainer/cpu.yaml"]
    fit += ["--data.experts", str(zoo), "--trainer.default_root_dir", str(tmp_path / "run")]
    fit += ["--data.n_iter", "2", "--buffer.size", "20", "--buffer.cache", "null"]
    main(fit)
    before = (tmp_path / "run" / "ex_model" / "manifest.yaml").read_bytes()
    write_manifest(manifest, zoo)
    said = refused(fit, capsys)
    assert "experts have published statistics since the run began" in said
    assert "--trainer.default_root_dir DIR" in said
    assert (tmp_path / "run" / "ex_model" / "manifest.yaml").read_bytes() == before
    main([*fit, "--trainer.default_root_dir", str(tmp_path / "mixed")])
    assert "none_of_these" not in read_manifest(tmp_path / "mixed" / "ex_model").experts[0].training  # one has none
    entries = (manifest.experts[0], manifest.experts[2])
    write_manifest(replace(manifest, experts=entries), zoo)
    main([*fit, "--trainer.default_root_dir", str(tmp_path / "all")])
    assert 0 < read_manifest(tmp_path / "all" / "ex_model").experts[0].training["none_of_these"] < 1


def test_a_strategy_that_does_not_look_at_statistics_goes_on_with_them(zoo, tmp_path):
    manifest = read_manifest(zoo)
    write_manifest(replace(manifest, experts=tuple(replace(e, statistics=None) for e in manifest.experts)), zoo)
    fit = ["fit", "--quiet", "-c", "configs/from_folder.yaml", "--strategy", "noise", "-c", "configs/trainer/cpu.yaml"]
    fit += ["--data.experts", str(zoo), "--trainer.default_root_dir", str(tmp_path / "run")]
    fit += ["--data.n_iter", "2", "--buffer.size", "20", "--buffer.cache", "null"]
    main(fit)
    write_manifest(manifest, zoo)
    main(fit)
    assert "experts_with_statistics" not in (tmp_path / "run" / "summary.json").read_text()
