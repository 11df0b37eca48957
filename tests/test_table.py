import re

from exml_lightning.terminal import MOST, print_matrix


def test_of_a_long_stream_the_newest_rows_and_columns_are_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    matrix = [[0.001 * (i + 1)] * (i + 1) for i in range(100)]
    print_matrix("agreement", matrix, [f"E{j + 1}" for j in range(100)], {"mean": [row[0] for row in matrix]})
    out = capsys.readouterr().out
    assert "agreement, the last 12 of 100" in out
    assert re.findall(r"E\d+", out) == [f"E{j}" for j in range(89, 101)]
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("expert ")]
    assert [int(row[1]) for row in rows] == list(range(89, 101))
    assert [len(row) for row in rows] == [2 + n + 1 for n in range(1, MOST + 1)]  # expert 89 was asked first
    assert rows[-1][2:] == ["10.0"] * 13


def test_a_short_stream_is_printed_whole(capsys):
    print_matrix("accuracy", [[1.0, 0.0], [0.5, 0.75]], ["a", "b"], {"all": [0.5, 0.625]})
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("expert ")]
    assert rows == [["expert", "1", "100.0", "0.0", "50.0"], ["expert", "2", "50.0", "75.0", "62.5"]]
