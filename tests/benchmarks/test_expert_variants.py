"""The benchmark that trains the experts of split MNIST in other ways (`benchmarks/expert_variants`)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.expert_variants.__main__ import PAPER, measure, table
from benchmarks.expert_variants.variants import VARIANTS, PaddedMNIST
from tests.scenarios.test_datasets import write_idx


def tiny_mnist(root: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for prefix, count in (("train", 200), ("t10k", 50)):
        images = torch.randint(256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(root / "MNIST" / "raw", prefix, images, torch.arange(count) % 10)


def test_the_table_has_a_row_for_each_variant_measured_and_one_for_the_paper():
    figures = {"joint": None, "oracle": 99.44, "ensemble_average": 1.0, "min_entropy": 2.0, "parameter_average": 3.0}
    figures["auxiliary"] = None
    rows = table({"own": {"what": "words", **figures}}).splitlines()
    assert rows[2] == "| words | - | 99.4 | 1.0 | 2.0 | 3.0 | - |"
    assert rows[3] == "| **the paper**, 5 runs | 93.7 | 99.4 | 33.4 | 39.4 | 20.1 | 35.5 |"
    assert len(rows) == 4


def test_padded_images_keep_their_pixels_in_the_middle(tmp_path):
    tiny_mnist(tmp_path)
    images = PaddedMNIST().load(tmp_path, train=False).images
    assert images.shape == (50, 1, 32, 32)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:30, 2:30] = False
    assert (images[:, 0, border] == 0).all()
    assert images[:, 0, 2:30, 2:30].float().std() > 20


@pytest.mark.slow
def test_experts_with_initial_models_of_their_own(tmp_path):
    tiny_mnist(tmp_path)
    variant = replace(VARIANTS["fast_own"], epochs=1, joint=1, distil=False)
    figures = measure(variant, str(tmp_path), tmp_path / "scratch")
    assert figures.keys() == {"what", "seconds", *PAPER}
    assert all(0 <= figures[name] <= 100 for name in PAPER if name != "auxiliary")
    weights = [(tmp_path / "scratch" / f"alone_{k}" / "initial.safetensors").read_bytes() for k in range(5)]
    assert len(set(weights)) == 5
