import os
import stat

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import (
    NotWrittenError,
    check_file,
    check_folder,
    natural_order,
    read_yaml,
    remove_parts,
    write_text,
    write_whole,
)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_text(path, "first")

    def fail(part):
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(NotWrittenError, match=r"a\.json cannot be written \(disk full\): make room"):
        write_whole(path, fail)
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    write_text(path, "second")
    assert path.read_text() == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_was_begun_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "in").mkdir()
    kept = [tmp_path / "a.json", tmp_path / ".hidden", tmp_path / "in" / "b.json"]
    begun = [tmp_path / ".01234567.part.a.json", tmp_path / "in" / ".01234567.part.b.json"]
    for path in (*kept, *begun):
        path.write_text("")
    remove_parts(tmp_path, older_than=3600)
    assert all(path.exists() for path in begun)
    remove_parts(tmp_path)
    assert [path.exists() for path in begun] == [False, True]
    remove_parts(tmp_path / "in")
    assert not begun[1].exists()
    assert all(path.exists() for path in kept)


def test_pipes_are_not_replaced_and_links_are_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotWrittenError, match="is no regular file"):
        write_text(tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in ("there/new/a.csv", "a.csv", "file"):
        check_file(tmp_path / path, "output")
    check_folder(tmp_path / "new" / "er", "output")
    file, folder = "name another file with --output FILE", "name another folder with --output DIR"
    for check, path, said in (
        (check_file, "there", "there is a folder: name a file with --output FILE"),
        (check_file, "file/a.csv", rf"/a\.csv cannot be written: \S+/file is a file; {file}"),
        (check_file, "pipe", f"/pipe cannot be written: it is no regular file; {file}"),
        (check_folder, "file/new", rf"/new cannot be written: \S+/file is a file; {folder}"),
    ):
        with pytest.raises(ExmlError, match=said):
            check(tmp_path / path, "output")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe", "there"]


@pytest.mark.parametrize("mode", [0o500, 0o600, 0o000])
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, mode):
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "locked").chmod(mode)
    try:
        if os.access(tmp_path / "locked", os.W_OK | os.X_OK):
            pytest.skip("root may write everywhere")
        with pytest.raises(ExmlError, match="may not be written to; name another file with --output FILE"):
            check_file(tmp_path / "locked" / "a.csv", "output")
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_natural_order():
    names = ["b", "expert_10.pt", "a11", "expert_2.pt", "a2", "2", "10"]
    assert sorted(names, key=natural_order) == ["2", "10", "a2", "a11", "b", "expert_2.pt", "expert_10.pt"]


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!python/object/apply:os.system ['true']", "line 1: the tag .*python/object/apply:os.system"),
        ("a: &a [*a]", "an alias stands within what it repeats"),
        (f"a: {'1' * 101}", "line 1: a number of 101 characters"),
        ("[" * 66 + "]" * 66, "nested more than 64 deep"),
        ("[" * 1_000_000, "nesting"),
        ("- " * 100_000, "nested more than 64 deep"),
        ("a: b: c", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        pytest.param("#" * (16 * 2**20 + 1), "more than 16 MB", id="large"),
    ],
)
def test_yaml_is_read_within_bounds(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ExmlError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 600


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"pipe": "cannot be read", "none": "is missing", ".": "cannot be read"}.items():
        with pytest.raises(ExmlError, match=message):
            read_yaml(tmp_path / name)


def test_whole_numbers_are_read_as_people_write_them(tmp_path):
    """YAML 1.1 takes 007 for 7, 1_000 for 1000 and 12:30 for 750."""
    path = tmp_path / "a.yaml"
    path.write_text("names: [007, 1_000, 12:30, 0x1F, 0o17, 7, -1, 0]\n")
    assert read_yaml(path) == {"names": ["007", "1_000", "12:30", "0x1F", "0o17", 7, -1, 0]}
