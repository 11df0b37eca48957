"""Pictures of many runs, and their numbers: Figures 2 and 3, accuracy over time."""

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from exml_lightning.report.buffer_size import (
    buffer_size_csv,
    buffer_size_markdown,
    figure_name,
    save_buffer_size,
    with_sizes,
)
from exml_lightning.report.cells import build_columns
from exml_lightning.report.over_time import learned, over_time_csv, points, save_over_time
from exml_lightning.report.paper import STRATEGIES
from exml_lightning.report.runs import find_runs
from exml_lightning.report.samples_figure import sample_figures, save_sample_figure
from exml_lightning.report.styles import STYLES, styles_of
from tests.report.fake_runs import brightness, write_run, write_samples

DIGITS = [str(i) for i in range(10)]


def columns(tmp_path):
    return build_columns(find_runs([tmp_path])[0], [])


def has_color(path, color):
    """Whether a picture has pixels of just this colour, ``#rrggbb``."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.round(255 * imread(path)[..., :3]) == wanted).all(axis=2).any())


def test_each_strategy_has_a_colour_and_a_marker_of_its_own():
    assert {row.key for row in STRATEGIES} <= STYLES.keys()
    styles = styles_of(["my_way", "other_way", "replay"])
    assert len({color for color, _ in styles.values()}) == len(styles) == len(STYLES) + 2
    assert len({marker for _, marker in styles.values()}) == len(styles)


def test_stream_accuracy_against_buffer_size(tmp_path):
    # the third run of the largest buffer has no counterparts, so it takes no part
    for size, accuracies in ((10, (0.2, 0.3)), (100, (0.4, 0.4)), (5000, (0.9, 0.8, 0.1))):
        for k, accuracy in enumerate(accuracies):
            write_run(tmp_path, "split_mnist", "replay", k, accuracy, f"{size}-{k}", buffer__size=size)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.4)  # one size is no line
    found = columns(tmp_path)
    lines = with_sizes(found)
    assert list(lines) == ["split_mnist"]
    assert list(lines["split_mnist"]) == ["replay"]
    text = buffer_size_markdown(lines["split_mnist"], found["split_mnist"])
    assert "| buffer | 10 | 100 | 5,000 |" in text
    assert "| Replay ED | 25.00 ± 7.07 (2) | 40.00 ± 0.00 (2) | 85.00 ± 7.07 (2) |" in text
    rows = list(csv.DictReader(io.StringIO(buffer_size_csv(found))))
    assert [(row["buffer_size"], float(row["mean_percent"])) for row in rows] == [("10", 25), ("100", 40), ("5000", 85)]
    path = tmp_path / figure_name("split_mnist")
    save_buffer_size(path, "split_mnist", lines["split_mnist"], styles_of([]))
    assert path.name == "buffer_size_split_mnist.png"
    assert has_color(path, STYLES["replay"][0])
    assert not has_color(path, STYLES["model_inversion"][0])
    assert figure_name("mt_cifar10") == "figure_3.png"


def test_a_line_of_other_settings_than_the_table_says_so(tmp_path):
    for k in range(2):
        write_run(tmp_path, "split_mnist", "replay", k, 0.5)
    for size in (10, 100):
        write_run(tmp_path, "split_mnist", "replay", 0, 0.4, f"size{size}", buffer__size=size, data__n_iter=300)
    found = columns(tmp_path)
    text = buffer_size_markdown(with_sizes(found)["split_mnist"], found["split_mnist"])
    assert text.endswith("\nReplay ED: data.n_iter 300 instead of 1000  \n")


def test_runs_that_a_line_lacks_are_told(tmp_path):
    for k, size in enumerate((10, 100)):
        write_run(tmp_path, "split_mnist", "replay", k, 0.4, f"size{size}", buffer__size=size)
    found = columns(tmp_path)
    note = "points are of different runs"
    text = buffer_size_markdown(with_sizes(found)["split_mnist"], found["split_mnist"])
    assert text.endswith(f"\nReplay ED: {note}  \n")
    assert buffer_size_csv(found).count(note) == 2


def test_accuracy_over_time(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, experts=2, matrix=[[0.8, 0.0], [0.4, 0.6]])
    write_run(tmp_path, "split_mnist", "replay", 1, 0.7, experts=2, matrix=[[1.0, 0.0], [0.6, 0.8]])
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    write_run(tmp_path, "joint_mnist", "replay", 0, 0.9, experts=1)
    found = columns(tmp_path)
    assert learned(found["joint_mnist"]) == {}
    group = learned(found["split_mnist"])["replay"]
    half = 2**0.5 / 2  # the deviation of two values that are 1 apart
    assert points(group, None) == [(0, pytest.approx(45), pytest.approx(10 * half)), (1, 60, pytest.approx(20 * half))]
    assert points(group, 1) == [(0, 0, 0), (1, pytest.approx(70), pytest.approx(20 * half))]
    rows = list(csv.DictReader(io.StringIO(over_time_csv(found))))
    assert [(row["tested_on"], row["after_experts"]) for row in rows] == [
        (part, after) for part in ("stream", "experience 1", "experience 2") for after in ("1", "2")
    ]
    assert float(rows[3]["mean_percent"]) == 50
    path = tmp_path / "time.png"
    save_over_time(path, found["split_mnist"], styles_of([]))
    assert has_color(path, STYLES["replay"][0])
    assert not has_color(path, STYLES["model_inversion"][0])


def test_a_long_stream_makes_no_larger_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("exml_lightning.report.over_time.MOST_PARTS", 2)
    sizes = set()
    for experts in (2, 9):
        write_run(tmp_path, f"own{experts}", "replay", 0, 0.5, experts=experts)
        save_over_time(tmp_path / "time.png", columns(tmp_path)[f"own{experts}"], styles_of([]))
        sizes.add(imread(tmp_path / "time.png").shape)
    assert len(sizes) == 1


def test_samples_stand_class_by_class(tmp_path):
    joint = write_run(tmp_path, "joint_mnist", "replay", 0, 0.9, experts=1)
    write_samples(joint, [range(10)], DIGITS)
    split = [(5, 4), (2, 8)]
    for strategy in ("replay", "noise"):
        folder = write_run(tmp_path, "split_mnist", strategy, 0, 0.9)
        write_samples(folder, split if strategy == "replay" else [(4,), (2, 8)], DIGITS)  # noise: nothing is a 5
    write_run(tmp_path, "split_mnist", "auxiliary", 0, 0.9)
    pictures, _ = sample_figures(columns(tmp_path))
    assert list(pictures) == ["figure_2.png"]
    joint_block, split_block = pictures["figure_2.png"]["joint_mnist"], pictures["figure_2.png"]["split_mnist"]
    assert [name for name, _ in joint_block.classes] == DIGITS
    assert [name for name, _ in split_block.classes] == ["4", "5", "2", "8"]
    assert split_block.strategies - split_block.pixels.keys() == {"auxiliary"}
    for strategy, pixels in split_block.pixels.items():
        seen = [int(pixels[0, int(middle), 0]) for _, middle in split_block.classes]
        four, five, two, eight = (brightness(label, 10) for label in (4, 5, 2, 8))
        assert seen == [four, 255 if strategy == "noise" else five, two, eight]
        assert (pixels[-1] == pixels[0]).all()  # the second image of each class, which is the same here
    distances = [b - a for (_, a), (_, b) in pairwise(split_block.classes)]
    assert distances[1] > distances[0] == distances[2]  # experts a gap apart
    assert [k for k, _ in split_block.experts] == [0, 1]
    save_sample_figure(tmp_path / "figure_2.png", pictures["figure_2.png"])
    picture = np.round(255 * imread(tmp_path / "figure_2.png")[..., 0])
    for label in range(10):
        assert (picture == brightness(label, 10)).any()


def test_samples_are_of_the_run_that_most_strategies_have_samples_of(tmp_path):
    for strategy, runs in (("replay", (0, 1)), ("noise", (1,))):
        for k in runs:
            write_samples(write_run(tmp_path, "split_digits", strategy, k, 0.9), [(k, 5)], DIGITS)
    (name, blocks), *others = sample_figures(columns(tmp_path))[0].items()
    assert (name, others) == ("samples_split_digits.png", [])
    assert blocks["split_digits"].run_id == 1
    assert [name for name, _ in blocks["split_digits"].classes] == ["1", "5"]


def test_of_many_classes_the_first_experts_are_shown(tmp_path):
    folder = write_run(tmp_path, "core50_nc", "replay", 0, 0.9)
    names = [f"object {i}" for i in range(50)]
    write_samples(folder, [range(10), *(range(i, i + 5) for i in range(10, 50, 5))], names, size=4)
    blocks = sample_figures(columns(tmp_path))[0]["samples_core50.png"]
    assert list(blocks) == ["core50_nc"]
    assert [name for name, _ in blocks["core50_nc"].classes] == names[:20]
    assert (len(blocks["core50_nc"].experts), blocks["core50_nc"].num_experts) == (3, 9)


def test_a_broken_picture_costs_itself_only(tmp_path):
    folder = write_run(tmp_path, "split_digits", "replay", 0, 0.9)
    write_samples(folder, [(0, 1), (2, 3)], DIGITS)
    broken = folder / "samples" / "experience=0.png"
    broken.write_bytes(b"")
    pictures, left_out = sample_figures(columns(tmp_path))
    assert [name for name, _ in pictures["samples_split_digits.png"]["split_digits"].classes] == ["2", "3"]
    assert left_out == [f"{broken} holds no samples of a run: delete it"]
    (folder / "samples" / "experience=1.png").write_bytes(b"")
    pictures, left_out = sample_figures(columns(tmp_path))
    assert (pictures, len(left_out)) == ({}, 2)


def test_images_of_several_sizes_are_shown_as_large_as_the_largest(tmp_path):
    small, large = (write_run(tmp_path, "split_digits", strategy, 0, 0.9) for strategy in ("noise", "replay"))
    write_samples(small, [(0, 1)], DIGITS, size=8)
    write_samples(large, [(0, 1)], DIGITS, size=12)
    block = sample_figures(columns(tmp_path))[0]["samples_split_digits.png"]["split_digits"]
    np.testing.assert_array_equal(block.pixels["noise"], block.pixels["replay"])
    assert block.shape == (2 * 12 + 1, 2 * 12 + 1)  # two classes, two images of each, a gap of a twelfth


def test_names_are_drawn_as_they_are(tmp_path):
    """Between two dollars stands no formula."""
    name = "a$\\foo$b"
    for size in (5, 10):
        folder = write_run(tmp_path, "s", "replay", 0, 0.5, f"{size}", buffer__size=size, data__scenario__name=name)
    write_samples(folder, [(0, 1)], ["$5", "$\\foo$" * 50])
    found = columns(tmp_path)
    ((file, blocks),) = sample_figures(found)[0].items()
    save_sample_figure(tmp_path / file, blocks)
    save_over_time(tmp_path / "time.png", found[name], styles_of([]))
    save_buffer_size(tmp_path / "size.png", name, with_sizes(found)[name], styles_of([]))
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_scenario_of_the_name_of_a_familys_picture_joins_it(tmp_path):
    for scenario in ("cifar10", "joint_cifar10"):
        write_samples(write_run(tmp_path, scenario, "replay", 0, 0.5), [(0, 1)], DIGITS)
    pictures, _ = sample_figures(columns(tmp_path))
    assert {file: list(blocks) for file, blocks in pictures.items()} == {
        "samples_cifar10.png": ["joint_cifar10", "split_cifar10", "cifar10"]
    }
