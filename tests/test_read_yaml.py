"""YAML of strangers is plain data of a bounded size."""

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import read_yaml


def test_plain_yaml_is_read_with_anchors_merges_and_dates_as_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: [1, 2.5, null, yes]}\nb: {<<: *a, y: 2024-05-01}\nc: [*a, *a]\n")
    x = [1, 2.5, None, True]
    assert read_yaml(path) == {"a": {"x": x}, "b": {"x": x, "y": "2024-05-01"}, "c": [{"x": x}, {"x": x}]}
    path.write_text("")
    assert read_yaml(path) is None


def test_aliases_are_counted_as_if_written_out(tmp_path):
    """A list of 999 ones is 1,000 values: 999 of them in a list are 999,001, and 1,001 of them too many."""
    path = tmp_path / "a.yaml"
    ones = f"&a [{', '.join('1' * 999)}]"
    path.write_text(f"[{ones}{', *a' * 998}]")
    assert len(read_yaml(path)) == 999
    path.write_text(f"[{ones}{', *a' * 1000}]")
    with pytest.raises(ExmlError, match="1000000 values"):
        read_yaml(path)
