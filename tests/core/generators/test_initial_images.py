"""Samples that are optimised from drawings in place of noise."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import DataImpression, Generator, ModelInversion
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator

WHERE = "exml_lightning.core.procedural"


def test_a_nested_mixture_is_configured_by_a_file():
    parts = [
        {"class_path": f"{WHERE}.Strokes", "init_args": {"curves": [2, 4]}},
        {"class_path": f"{WHERE}.Mixture", "init_args": {"parts": [{"class_path": f"{WHERE}.DeadLeaves"}]}},
    ]
    images = {"class_path": f"{WHERE}.Mixture", "init_args": {"parts": parts}}
    parser = ArgumentParser()
    parser.add_subclass_arguments(Generator, "generator")
    for kind, key in (("Unrelated", "images"), ("ModelInversion", "initial")):
        config = {"class_path": f"exml_lightning.core.generators.{kind}", "init_args": {key: images}}
        parsed = parser.parse_object({"generator": config})
        again = parser.parse_string(parser.dump(parsed))
        for each in (parsed, again):
            made = getattr(parser.instantiate_classes(each).generator, key)
            assert made == Mixture([Strokes(curves=(2, 4)), Mixture([DeadLeaves()])])


def linear_expert():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    network[1].weight.data = torch.linspace(-1, 1, 320).sin().view(5, 64)
    network[1].bias.data.zero_()
    return Expert(network, (1, 3), (1, 3), ImageFormat((1, 8, 8), (0.3,), (0.5,)), classifier="1")


@pytest.mark.parametrize(
    ("kind", "pixels", "total"),
    [
        (ModelInversion, [-0.449559, 0.580009, -0.035094, -0.308580, -0.101097, 1.294245], 44.42596),
        (DataImpression, [-0.152754, 1.201141, 1.120762, -0.303099, 0.815143, -0.313944], 38.85951),
    ],
)
def test_without_initial_images_nothing_has_changed(kind, pixels, total):
    """The numbers are those of commit ac44be4, which had no initial images."""
    buffer = kind(steps=3, batch_size=4).generate(linear_expert(), 6, keyed_generator("pinned"))
    assert buffer.labels.tolist() == [1, 3, 1, 3, 1, 3]
    torch.testing.assert_close(buffer.images[:, 0, 3, 4], torch.tensor(pixels), atol=1e-4, rtol=0)
    assert buffer.images.sum().item() == pytest.approx(total, abs=0.01)
    assert "initial" not in kind().settings()


def test_images_are_refined_from_the_initial_ones(make_expert):
    initial = Strokes(curves=(1, 2), width=(0.1, 0.2))
    inversion = ModelInversion(steps=1, lr=1e-6, initial=initial)
    buffer = inversion.generate(make_expert(), 9, keyed_generator("refine"))
    generator = keyed_generator("refine")
    torch.randperm(2, generator=generator)  # the classes
    drawn = initial.draw(9, (1, 8, 8), generator, torch.device("cpu"))
    torch.testing.assert_close(buffer.images, (drawn / 255 - 0.3) / 0.5, atol=1e-5, rtol=0)
    assert inversion.settings()["initial"] == initial.settings()
