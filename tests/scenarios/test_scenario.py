from pathlib import Path

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.scenarios import RUN_SEEDS, ImageDataset, LabelledImages, Scenario


class Tiny(ImageDataset):
    """Six classes, two sessions; each image says in its pixels what it is: 10 * class + session."""

    class_names = ("ant", "bee", "cat", "dog", "elk", "fox")
    image_format = ImageFormat((1, 2, 2), (0.5,), (0.5,))

    def load(self, root: Path, train: bool) -> LabelledImages:
        labels = torch.arange(6).repeat_interleave(4 if train else 2)
        groups = torch.tensor([0, 1]).repeat(len(labels) // 2)
        pixels = (10 * labels + groups).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        return LabelledImages(pixels, labels, groups)


def dealt(run_id=0, **options):
    return Scenario("tiny", Tiny(), **options).experiences(run_id)


@pytest.mark.parametrize("run_id", range(5))
def test_nc_deals_all_classes_in_the_order_of_the_run(run_id):
    experiences = dealt(run_id, classes_per_experience=2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(RUN_SEEDS[run_id])).tolist()
    assert [list(e.classes) for e in experiences] == [order[0:2], order[2:4], order[4:6]]
    assert {e.task for e in experiences} == {0}


def test_runs_differ():
    assert len({tuple(e.classes for e in dealt(r, classes_per_experience=2)) for r in range(5)}) == 5


def test_joint_has_one_experience_with_all_classes():
    (experience,) = dealt(shuffle_classes=False)
    assert experience.classes == (0, 1, 2, 3, 4, 5)


def test_sizes_may_differ():
    assert [len(e.classes) for e in dealt(classes_per_experience=[4, 1, 1])] == [4, 1, 1]


def test_mt_labels_the_tasks():
    assert [e.task for e in dealt(classes_per_experience=2, task_labels=True)] == [0, 1, 2]


def test_ni_deals_sessions_of_all_classes():
    scenario = Scenario("tiny", Tiny(), groups=[[0], [1]], shuffle_classes=False)
    experiences = scenario.experiences(0)
    assert [e.classes for e in experiences] == [(0, 1, 2, 3, 4, 5)] * 2
    parts = scenario.train_images(Path(), experiences)
    assert [set(p.groups.tolist()) for p in parts] == [{0}, {1}]
    assert [len(p) for p in parts] == [12, 12]
    # one test stream that cannot be split: every test image once, from the first experience on
    (test,) = scenario.test_stream(Path(), 0)
    assert (len(test.images), test.first_seen) == (12, 0)


def test_nic_with_overlapping_classes_tests_each_image_once():
    scenario = Scenario(
        "tiny",
        Tiny(),
        classes=[["ant", "bee"], ["bee", "cat"], ["ant"], ["fox"]],
        groups=[[0], [1], [1], [0, 1]],
    )
    experiences = scenario.experiences(3)
    assert [e.classes for e in experiences] == [(0, 1), (1, 2), (0,), (5,)]
    parts = scenario.test_stream(Path(), 3)
    assert [(p.first_seen, sorted(set(p.images.labels.tolist()))) for p in parts] == [
        (0, [0, 1]),
        (1, [2]),
        (3, [5]),
    ]
    train = scenario.train_images(Path(), experiences)
    assert set(train[1].images.flatten().tolist()) == {11, 21}


def test_train_and_test_images_belong_to_the_classes_of_their_experience():
    scenario = Scenario("tiny", Tiny(), classes_per_experience=3)
    experiences = scenario.experiences(1)
    for part, test, e in zip(
        scenario.train_images(Path(), experiences), scenario.test_stream(Path(), 1), experiences, strict=True
    ):
        assert set(part.labels.tolist()) == set(test.images.labels.tolist()) == set(e.classes)
        assert torch.equal(part.images[:, 0, 0, 0].long() // 10, part.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_experience": 0}, "classes_per_experience"),
        ({"classes_per_experience": 4}, "classes_per_experience"),
        ({"classes_per_experience": [3, 4]}, "classes_per_experience"),
        ({"classes": [["ant"], ["unicorn"]]}, "unicorn"),
        ({"classes": [["ant"], []]}, "one class or more"),
        ({"classes": []}, "one class or more"),
        ({"classes": [["ant", "ant"]]}, "each of them once"),
        ({"classes": [["ant"]], "classes_per_experience": 2}, "both"),
        ({"classes": [["ant"], ["bee"]], "groups": [[0], [1], [0]]}, "groups"),
    ],
)
def test_impossible_partitions_are_refused(options, message):
    with pytest.raises(ExmlError, match=message):
        dealt(**options)


@pytest.mark.parametrize("run_id", [-1, 5])
def test_there_are_five_runs(run_id):
    with pytest.raises(ExmlError, match="run_id"):
        dealt(run_id, classes_per_experience=2)
