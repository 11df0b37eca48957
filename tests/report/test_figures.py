import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from exml_lightning.report import figures
from exml_lightning.report.figures import save_accuracy_over_time, save_matrix


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_accuracy_over_time_is_a_picture_of_its_numbers(tmp_path):
    save_accuracy_over_time(tmp_path / "a.png", [0.2, 0.4, 0.6], [1.0, 0.8, 0.6], "title", {})
    save_accuracy_over_time(tmp_path / "b.png", [0.2, 0.4, 0.1], [1.0, 0.8, 0.1], "title", {})
    first, second = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert first.shape == second.shape
    assert (first != second).any()
    save_accuracy_over_time(tmp_path / "c.png", [0.9], [0.9], "one experience", {})  # joint
    assert pixels(tmp_path / "c.png").std() > 0


def test_chance_and_stored_experts_stand_beside_the_ex_model(monkeypatch, tmp_path):
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    beside = {"stored experts": [0.2, 0.3], "chance": [0.1, 0.12]}
    save_accuracy_over_time(tmp_path / "a.png", [0.2, 0.4], [1.0, 0.8], "title", beside)
    save_matrix(tmp_path / "b.png", [[1.0, 0.0], [0.9, 0.7]], ["a", "b"], "title", totals=beside)
    lines = {line.get_label(): list(line.get_ydata()) for line in drawn[0].axes[0].lines}
    assert (lines["stored experts"], lines["chance"]) == ([20, 30], [10, 12])
    axis = drawn[1].axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "stored\nexperts", "chance"]
    cells = {text.get_position(): text.get_text() for text in axis.texts}
    assert [cells[column, 1] for column in (0, 1, 3, 4)] == ["90", "70", "30", "12"]
    assert (2, 1) not in cells  # the gap


def test_the_matrix_is_darker_where_accuracy_is_higher(tmp_path):
    names = [f"part {i}" for i in range(20)]
    low, high = [[0.0] * 20] * 11, [[1.0] * 20] * 11  # more cells than are written out
    save_matrix(tmp_path / "low.png", low, names, "low")
    save_matrix(tmp_path / "high.png", high, names, "high")
    middle = [pixels(tmp_path / name)[250:260, 300:310].mean() for name in ("low.png", "high.png")]
    assert middle[0] > 230
    assert middle[1] < 100


def test_a_long_stream_makes_no_larger_picture(tmp_path):
    for columns in (1, 30, 300):
        matrix = [[0.5] * (i + 1) for i in range(columns)]
        save_matrix(tmp_path / f"{columns}.png", matrix, [f"expert {i + 1}" for i in range(columns)], "agreement")
    assert pixels(tmp_path / "300.png").shape[1] == pixels(tmp_path / "30.png").shape[1]
