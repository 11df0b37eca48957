"""`metrics.csv`: what is written when, and what a resume keeps of it."""

import pytest

from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.files import write_whole


def lines(folder):
    return (folder / "metrics.csv").read_text().splitlines()


def test_new_columns_come_after_the_others(tmp_path):
    logger = RunLogger(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    logger.log_metrics({"loss": 0.25}, 1)
    logger.save()
    logger.log_metrics({"accuracy": 1.0}, 1)
    logger.save()
    assert lines(tmp_path) == ["step,loss,accuracy", "0,0.5,", "1,0.25,", "1,,1.0"]


def test_a_resume_keeps_the_rows_before_its_step(tmp_path):
    first = RunLogger(str(tmp_path))
    for step in range(5):
        first.log_metrics({"loss": float(step)}, step)
    first.save()
    second = RunLogger(str(tmp_path))
    second.keep(3)
    assert lines(tmp_path) == ["step,loss", "0,0.0", "1,1.0", "2,2.0"]
    second.log_metrics({"loss": 7.0}, 3)
    second.finalize("success")
    assert lines(tmp_path) == ["step,loss", "0,0.0", "1,1.0", "2,2.0", "3,7.0"]


def test_a_run_that_starts_anew_replaces_the_file(tmp_path):
    first = RunLogger(str(tmp_path))
    first.log_metrics({"loss": 1.0}, 0)
    first.save()
    second = RunLogger(str(tmp_path))
    second.keep(0)
    second.log_metrics({"loss": 2.0}, 0)
    second.save()
    assert lines(tmp_path) == ["step,loss", "0,2.0"]


def test_the_row_of_a_checkpoint_does_not_wait(tmp_path):
    logger = RunLogger(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()  # as a checkpoint after step 1 does, before Lightning logs that step
    logger.log_metrics({"loss": 2.0}, 1)
    assert lines(tmp_path) == ["step,loss", "0,1.0", "1,2.0"]
    logger.log_metrics({"loss": 3.0}, 2)
    assert len(lines(tmp_path)) == 3


def test_a_longer_file_is_written_less_often(tmp_path):
    logger = RunLogger(str(tmp_path), save_every=2)
    writes = 0
    for step in range(1000):
        before = logger._written
        logger.log_metrics({"loss": 0.0}, step)
        writes += logger._written != before
    # 2 rows a write up to 20 rows, then a tenth more each time: about 10 + log(1000 / 20) / log(1.1)
    assert 30 < writes < 60
    assert len(lines(tmp_path)) > 900


def test_a_write_interrupted_after_the_file_has_its_name_is_repeated_not_doubled(tmp_path, monkeypatch):
    logger = RunLogger(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()

    def interrupted(path, write):
        write_whole(path, write)
        raise KeyboardInterrupt

    monkeypatch.setattr("exml_lightning.callbacks.run_logger.write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"accuracy": 2.0}, 1)
    monkeypatch.undo()
    logger.finalize("interrupted")
    assert lines(tmp_path) == ["step,loss,accuracy", "0,1.0,", "1,,2.0"]
