import os
import stat

import pytest

from exml_lightning.files import NotWrittenError, remove_parts, write_text, write_whole


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
