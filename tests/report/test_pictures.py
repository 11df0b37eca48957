"""Pictures of many runs, and their numbers: Figures 2 and 3, accuracy over time."""

from itertools import pairwise

import numpy as np
from matplotlib.image import imread

from exml_lightning.report import buffer_size, over_time, samples_figure
from exml_lightning.report.figures import save_figure
from exml_lightning.report.paper import TITLES
from exml_lightning.report.pictures import draw_pictures
from exml_lightning.report.rows import sort_runs
from exml_lightning.report.runs import find_runs
from exml_lightning.report.styles import STYLES, styles_of
from tests.report.fake_runs import brightness, write_run, write_samples

DIGITS = [str(i) for i in range(10)]


def report(tmp_path):
    return sort_runs(find_runs([tmp_path])[0], [])


def pixels(figure, tmp_path):
    save_figure(figure, tmp_path / "figure.png")
    return np.round(255 * imread(tmp_path / "figure.png")[..., :3])


def has_color(picture, color):
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((picture == wanted).all(axis=2).any())


def test_each_strategy_has_a_colour_and_a_marker_of_its_own():
    assert TITLES.keys() <= STYLES.keys()
    styles = styles_of(["my_way", "other_way", "replay"])
    assert len({color for color, _ in styles.values()}) == len(styles) == len(STYLES) + 2
    assert len({marker for _, marker in styles.values()}) == len(styles)


def test_stream_accuracy_against_buffer_size(tmp_path):
    # the third run of the largest buffer has no counterparts, so it takes no part
    for size, accuracies in ((10, (0.2, 0.3)), (100, (0.4, 0.4)), (5000, (0.9, 0.8, 0.1))):
        for k, accuracy in enumerate(accuracies):
            write_run(tmp_path, "split_mnist", "replay", k, accuracy, f"{size}-{k}", buffer__size=size)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.4)  # one size is no line
    for k, size in enumerate((10, 100)):  # without a common run, all take part
        write_run(tmp_path, "split_digits", "replay", k, 0.4, f"size{size}", buffer__size=size)
    assert buffer_size.curves(report(tmp_path)["split_digits"]) == {"replay": {10: [40], 100: [40]}}
    curves = buffer_size.curves(report(tmp_path)["split_mnist"])
    assert list(curves) == ["replay"]
    headings, rows = buffer_size.numbers(curves)
    assert headings == ["buffer", "10", "100", "5,000"]
    assert rows == [["Replay ED", "25.00 ± 7.07 (2)", "40.00 ± 0.00 (2)", "85.00 ± 7.07 (2)"]]
    lines = buffer_size.long_form("split_mnist", curves)
    assert [(line[3], line[4], round(line[5], 6)) for line in lines] == [(10, 2, 25), (100, 2, 40), (5000, 2, 85)]
    picture = pixels(buffer_size.draw("split_mnist", curves, STYLES), tmp_path)
    assert has_color(picture, STYLES["replay"][0])
    assert not has_color(picture, STYLES["model_inversion"][0])
    assert buffer_size.picture_name("mt_cifar10") == "figure_3.png"


def test_a_smaller_buffer_with_more_runs_stays_in_the_table(tmp_path):
    for size, runs in ((10, 1), (100, 3), (1000, 2), (5000, 2)):
        for k in range(runs):
            write_run(tmp_path, "split_mnist", "replay", k, 0.5, f"{size}-{k}", buffer__size=size)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.4)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "long", buffer__size=50, data__n_iter=9000)
    rows = buffer_size.without_smaller(report(tmp_path)["split_mnist"])
    kept = [(row.strategy, row.settings["buffer.size"], len(row.runs)) for row in rows]
    assert kept == [("replay", 100, 3), ("replay", 5000, 2), ("replay", 50, 1), ("noise", 5000, 1)]


def test_experiences_are_named_by_the_classes_that_all_runs_say(tmp_path):
    for k, second in enumerate((["c", "$d"], ["e"])):
        results = {"expert_classes": [["a", "b"], second]}
        write_run(tmp_path, "split_mnist", "replay", k, 0.5, experts=2, results=results)
    write_run(
        tmp_path, "split_mnist", "noise", 0, 0.5, experts=2, results={"expert_classes": [["a", "b"], ["c", "$d"]]}
    )

    def titles(found):
        return [axis.get_title() for axis in over_time.draw(found, [], STYLES).axes if "experience" in axis.get_title()]

    rows = over_time.learned(report(tmp_path)["split_mnist"])
    assert titles(rows) == ["experience 1: a, b", "experience 2"]
    assert titles([row for row in rows if row.strategy == "noise"]) == ["experience 1: a, b", r"experience 2: c, \$d"]


def test_accuracy_over_time(tmp_path, monkeypatch):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, experts=2, matrix=[[0.8, 0.0], [0.4, 0.6]])
    write_run(tmp_path, "split_mnist", "replay", 1, 0.7, experts=2, matrix=[[1.0, 0.0], [0.6, 0.8]])
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    write_run(tmp_path, "joint_mnist", "replay", 0, 0.9, experts=1)
    found = report(tmp_path)
    assert over_time.learned(found["joint_mnist"]) == []
    (row,) = over_time.learned(found["split_mnist"])
    std = 100 * np.std([0.4, 0.5], ddof=1), 100 * np.std([0.5, 0.7], ddof=1)
    np.testing.assert_allclose(over_time.points(row, None), [(1, 45, std[0]), (2, 60, std[1])])
    np.testing.assert_allclose([p[1] for p in over_time.points(row, 1)], [0, 70])
    assert over_time.numbers([row])[1] == [["Replay ED", "45.00 ± 7.07", "60.00 ± 14.14"]]
    lines = over_time.long_form([row])
    assert [(line[3], line[4]) for line in lines] == [
        (after, tested) for tested in ("stream", "experience 1", "experience 2") for after in (1, 2)
    ]
    monkeypatch.setattr(over_time, "MOST_PARTS", 1)
    picture = pixels(over_time.draw([row], found["split_mnist"][:1], STYLES), tmp_path)
    assert has_color(picture, STYLES["replay"][0])
    assert picture.shape[1] < 1000


def test_samples_stand_class_by_class(tmp_path):
    joint = write_run(tmp_path, "joint_mnist", "replay", 0, 0.9)
    split = write_run(tmp_path, "split_mnist", "replay", 0, 0.9)
    other = write_run(tmp_path, "split_mnist", "noise", 0, 0.9)
    write_samples(joint, [range(10)], DIGITS)
    write_samples(split, [(1, 7), (0, 3)], DIGITS, size=12)
    write_samples(other, [(1, 7), (3,)], DIGITS)  # the expert called no noise a 0
    ((name, blocks),) = samples_figure.sample_blocks(report(tmp_path), []).items()
    assert (name, list(blocks)) == ("figure_2.png", ["joint_mnist", "split_mnist"])
    block = blocks["split_mnist"]
    assert [name for name, _ in block.classes] == ["1", "7", "0", "3"]
    distances = [b - a for (_, a), (_, b) in pairwise(block.classes)]
    assert distances[1] > distances[0] == distances[2]  # experts a gap apart
    assert [name for name, _ in block.experts] == ["expert 1", "expert 2"]
    for strategy, shown in (("replay", "1703"), ("noise", "17.3")):  # of the same size, though noise was smaller
        for (name, middle), expected in zip(block.classes, shown, strict=True):
            red, *_, alpha = block.strips[strategy][3, int(middle)]
            assert (red, alpha) == ((0, 0) if expected == "." else (brightness(int(name), 10), 255))
    picture = pixels(samples_figure.draw(blocks), tmp_path)
    for label in range(10):
        assert (picture == brightness(label, 10)).any()


def test_samples_are_of_the_run_that_most_strategies_have_samples_of(tmp_path):
    for strategy, runs in (("replay", (0, 1)), ("noise", (1,))):
        for k in runs:
            write_samples(write_run(tmp_path, "split_digits", strategy, k, 0.9), [(k, 5)], DIGITS)
    blocks = samples_figure.sample_blocks(report(tmp_path), [])["samples_split_digits.png"]
    assert blocks["split_digits"].title == "split_digits, run 1"
    assert [name for name, _ in blocks["split_digits"].classes] == ["1", "5"]


def test_of_many_classes_the_first_experts_are_shown(tmp_path):
    folder = write_run(tmp_path, "core50_nc", "replay", 0, 0.9)
    names = [f"object {i}" for i in range(50)]
    write_samples(folder, [range(10), *(range(i, i + 5) for i in range(10, 50, 5))], names, size=4)
    block = samples_figure.sample_blocks(report(tmp_path), [])["samples_core50.png"]["core50_nc"]
    assert [name for name, _ in block.classes] == names[:20]


def test_a_broken_picture_costs_itself_only(tmp_path):
    folder = write_run(tmp_path, "split_digits", "replay", 0, 0.9)
    write_samples(folder, [(0, 1), (2, 3)], DIGITS)
    left_out = []
    for k, classes in ((0, ["2", "3"]), (1, None)):
        broken = folder / "samples" / f"experience={k}.png"
        broken.write_bytes(b"")
        blocks = samples_figure.sample_blocks(report(tmp_path), left_out)
        shown = [[name for name, _ in block["split_digits"].classes] for block in blocks.values()]
        assert shown == ([] if classes is None else [classes])
        assert left_out[-1] == f"{broken} holds no samples of a run: delete it"


def test_names_are_drawn_as_they_are(tmp_path):
    """Between two dollars stands no formula."""
    name = "a$\\foo$b"
    for size in (5, 10):
        folder = write_run(tmp_path, "s", "replay", 0, 0.5, f"{size}", buffer__size=size, data__scenario__name=name)
    write_samples(folder, [(0, 1)], ["$5", "$\\foo$" * 50])
    for i, picture in enumerate(draw_pictures(report(tmp_path), [])):
        save_figure(picture.figure, tmp_path / f"{i}.png")
    assert len(list(tmp_path.glob("*.png"))) == 3
