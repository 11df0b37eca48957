from pathlib import Path

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios import RUN_SEEDS, ImageDataset, Scenario


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
    return Scenario("tiny", Tiny(), **options).experiences(run_id, Path())


@pytest.mark.parametrize("run_id", range(5))
def test_nc_deals_all_classes_in_the_order_of_the_run(run_id):
    experiences = dealt(run_id, classes_per_experience=2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(RUN_SEEDS[run_id])).tolist()
    assert [list(e.classes) for e in experiences] == [order[0:2], order[2:4], order[4:6]]
    assert {e.task for e in experiences} == {0}
    assert [e.task for e in dealt(run_id, classes_per_experience=2, task_labels=True)] == [0, 1, 2]
    assert [e.classes for e in dealt(run_id, classes_per_experience=[4, 2])] == [tuple(order[:4]), tuple(order[4:])]
    assert [e.classes for e in dealt(run_id)] == [tuple(order)]


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 6), (2, [2, 2, 2]), (3, [3, 3]), (4, [6]), (5, [6]), (6, [6])])
def test_a_number_that_does_not_divide_the_classes_is_the_least(size, sizes):
    assert [len(e.classes) for e in dealt(classes_per_experience=size)] == sizes


def test_the_first_experiences_get_the_classes_that_are_left():
    class Five(Tiny):
        class_names = Tiny.class_names[:5]

    scenario = Scenario("five", Five(), classes_per_experience=2, shuffle_classes=False)
    assert [e.classes for e in scenario.experiences(0, Path())] == [(0, 1, 2), (3, 4)]


def test_a_data_set_is_opened_before_its_classes_are_dealt():
    class Late(Tiny):
        class_names = ()

        def open(self, root: Path, download: bool = False) -> None:
            self.class_names = tuple(root.name)

    assert sorted(*[e.classes for e in Scenario("late", Late()).experiences(0, Path("abc"))]) == [0, 1, 2]


def test_ni_deals_sessions_of_all_classes():
    scenario = Scenario("tiny", Tiny(), groups=[[0], [1]], shuffle_classes=False)
    experiences = scenario.experiences(0, Path())
    assert [e.classes for e in experiences] == [(0, 1, 2, 3, 4, 5)] * 2
    train = scenario.train_images(Path(), experiences)
    parts = [train[0], train[1]]
    assert [set(p.groups.tolist()) for p in parts] == [{0}, {1}]
    assert [len(p) for p in parts] == [12, 12]
    # one test stream that cannot be split: every test image once, from the first experience on
    (test,) = scenario.test_stream(Path(), experiences)
    assert (len(test.images), test.first_seen) == (12, 0)


def test_nic_with_overlapping_classes_tests_each_image_once():
    classes = [["ant", "bee"], ["bee", "cat"], ["ant"], ["fox"]]
    scenario = Scenario("tiny", Tiny(), classes=classes, groups=[[0], [1], [1], [0, 1]])
    experiences = scenario.experiences(3, Path())
    assert [e.classes for e in experiences] == [(0, 1), (1, 2), (0,), (5,)]
    parts = scenario.test_stream(Path(), experiences)
    assert [(p.first_seen, p.images.labels.unique().tolist()) for p in parts] == [(0, [0, 1]), (1, [2]), (3, [5])]
    train = scenario.train_images(Path(), experiences)
    assert set(train[1].images.flatten().tolist()) == {11, 21}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes_per_experience": 7}, "classes_per_experience"),
        ({"classes_per_experience": [3, 4]}, "classes_per_experience"),
        ({"classes": [["ant"], ["unicorn"]]}, "unicorn"),
        ({"classes": [["ant"], []]}, "one class or more"),
        ({"classes": [["ant", "ant"]]}, "each of them once"),
        ({"classes": [["ant"]], "classes_per_experience": 2}, "both"),
        ({"classes": [["ant"], ["bee"]], "groups": [[0], [1], [0]]}, "groups"),
        ({"classes": [["ant"], ["ant", "bee"]], "task_labels": True}, "a class belongs to one task"),
        ({"protocol": "nc"}, "Tiny has no protocols"),
        ({"protocol": "nc", "groups": [[0]]}, "leave out groups"),
        ({"protocol": "nc", "shuffle_classes": False}, "leave out shuffle_classes"),
    ],
)
def test_impossible_partitions_are_refused(options, message):
    with pytest.raises(ExmlError, match=message):
        dealt(**options)
    with pytest.raises(ExmlError, match="run_id"):
        dealt(5)


class Own(Tiny):
    """Has a protocol, and in its second session no ant; no cats and dogs to test with."""

    def load(self, root: Path, train: bool) -> LabelledImages:
        split = super().load(root, train)
        gone = (split.labels == 0) & (split.groups == 1) if train else (split.labels == 2) | (split.labels == 3)
        return split[(~gone).nonzero().flatten()]

    def protocol(self, name, run_id, root):
        return [((0, 1), ((0,), (0,))), ((2, 3), ((0, 1), (0, 1))), ((0,), ((1,),)), ((4, 5), ((0,), (run_id,)))]


def test_a_train_experience_without_images_is_named_when_it_is_asked_for():
    scenario = Scenario("own", Own(), protocol="any")
    experiences = scenario.experiences(0, Path())
    assert [e.classes for e in experiences] == [(0, 1), (2, 3), (0,), (4, 5)]
    train = scenario.train_images(Path(), experiences)
    assert torch.equal(train[1].images[:, 0, 0, 0].long() // 10, train[1].labels)
    assert [len(train[k]) for k in (0, 1, 3)] == [4, 8, 4]
    with pytest.raises(ExmlError, match=r"own has no training images for expert 2, of ant in session 1: .*data\.root"):
        train[2]
    with pytest.raises(ExmlError, match="own has 4 experiences: none for expert 4"):
        train[4]


def test_parts_of_the_test_stream_without_images_are_left_out():
    scenario = Scenario("own", Own(), protocol="any")
    parts = scenario.test_stream(Path(), scenario.experiences(0, Path()))
    assert [(p.first_seen, p.images.labels.unique().tolist()) for p in parts] == [(0, [0, 1]), (3, [4, 5])]
    with pytest.raises(ExmlError, match="own has no test images of its first experience, cat, dog"):
        scenario.test_stream(Path(), scenario.experiences(0, Path())[1:])


def test_a_part_is_read_when_it_is_asked_for_and_the_whole_is_never_copied():
    split = Tiny().load(Path(), train=True)
    whole = split[torch.arange(len(split))]
    assert whole.images.data_ptr() == split.images.data_ptr()
    part = split[torch.tensor([5, 20, 9])]
    again = part[torch.tensor([2, 1])]
    assert again.split.data_ptr() == split.images.data_ptr()
    assert again.images[:, 0, 0, 0].tolist() == [21, 50]
    assert part.read(torch.tensor([1]))[:, 0, 0, 0].tolist() == [50]
