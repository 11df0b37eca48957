import csv
import itertools
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import RUN_SEEDS, CORe50, Experience, Scenario
from exml_lightning.scenarios.core50_frames import Frame, list_frames

DATA = Path(__file__).parents[2] / "data"
real_core50 = pytest.mark.skipif(not (DATA / "core50" / "meta").is_dir(), reason="data/core50 is not there")
TRAIN, TEST = (1, 2, 4, 5, 6, 8, 9, 11), (3, 7, 10)


def line(session, obj, number, label=None, end="\n"):
    path = f"s{session}/o{obj}/C_{session:02d}_{obj:02d}_{number:03d}.png"
    return f"{path} {obj - 1 if label is None else label}{end}"


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(lines).encode())


@pytest.fixture
def sample(tmp_path) -> Path:
    """Two objects in one training and one test session, two frames each; a pixel says which is which."""
    lines = []
    for session, obj, number in itertools.product((2, 3), (7, 50), (0, 120)):
        lines.append(line(session, obj, number))
        path = tmp_path / "core50" / "core50_128x128" / lines[-1].split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (128, 128), (session, obj, number)).save(path)
    write(tmp_path / "core50" / "core50_128x128" / "filelist.txt", *lines)
    return tmp_path


def test_a_split_is_its_sessions_whose_missing_frames_are_named(sample):
    split = CORe50().load(sample, train=False)
    assert split.images.shape == (4, 3, 128, 128)
    assert split.images[:, :, 5, 5].tolist() == [[3, o, n] for o in (7, 50) for n in (0, 120)]
    assert split.labels.tolist() == [6, 6, 49, 49]
    assert split.groups.tolist() == [3] * 4
    assert (sample / "decoded" / "core50_test.safetensors").is_file()
    (sample / "core50" / "core50_128x128" / "s2" / "o7" / "C_02_07_120.png").unlink()
    message = r"1 of 4 frames of CORe50's train sessions are missing \(.*C_02_07_120\.png\).*core50_128x128\.zip"
    with pytest.raises(ExmlError, match=message):
        CORe50().load(sample, train=True)
    assert not (sample / "decoded" / "core50_train.safetensors").exists()


def test_no_data_and_no_list_are_errors_with_remedies(tmp_path):
    with pytest.raises(ExmlError, match=r"core50 is not there.*--data\.root DIR"):
        CORe50().load(tmp_path, train=True)
    (tmp_path / "core50").mkdir()
    with pytest.raises(ExmlError, match=r"lists no frames of CORe50.*batches_filelists.*bbox\.zip"):
        CORe50().load(tmp_path, train=True)
    with pytest.raises(ExmlError, match="protocol is nicv2: CORe50 has nc, ni, nic"):
        protocol("nicv2")


def test_lists_come_in_order_official_own_rebuilt(sample):
    folder = sample / "core50"
    boxes = "Color000: 1 2 3 4\nColor001: -1 -1 -1 -1\nColor012: 5 6 7 8\n"
    (folder / "meta").mkdir()
    with zipfile.ZipFile(folder / "meta" / "bbox.zip", "w") as archive:
        archive.writestr("bbox/s11/CropC_o3.txt", boxes)
        archive.writestr("bbox/s1/CropC_o2.txt", "Color299: 0 0 9 9")
    assert len(list_frames(folder)) == 8
    run = folder / "batches_filelists" / "NI_inc" / "run0"
    write(run / "train_batch_00_filelist.txt", line(11, 1, 5, end="\r\n"), line(11, 2, 6, end="\r\n"))
    write(run / "test_filelist.txt", line(3, 1, 7))
    assert list_frames(folder) == [Frame(3, 1, 7), Frame(11, 1, 5), Frame(11, 2, 6)]
    (run / "test_filelist.txt").unlink()
    with pytest.raises(ExmlError, match=r"test_filelist\.txt cannot be read"):
        list_frames(folder)
    run.rename(folder / "gone")
    (folder / "core50_128x128" / "filelist.txt").unlink()
    assert list_frames(folder) == [Frame(1, 2, 299), Frame(11, 3, 0), Frame(11, 3, 12)]
    (folder / "meta" / "bbox.zip").write_bytes(b"PK")
    with pytest.raises(ExmlError, match=r"bbox\.zip cannot be read"):
        list_frames(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(2, 7, 0, label=7), r"filelist\.txt, line 2: label 7 contradicts object 7"),
        ("s2/o7/C_02_07_000.png\n", "line 2: .* must be like"),
        ("s2/o7/C_03_07_000.png 6\n", "line 2: .* must be like"),
        ("s12/o7/C_12_07_000.png 6\n", "line 2: .* must be like"),
        ("s1/o51/C_01_51_000.png 50\n", "line 2: .* must be like"),
    ],
)
def test_lines_that_are_wrong_are_named(sample, text, message):
    write(sample / "core50" / "core50_128x128" / "filelist.txt", line(2, 50, 0), text)
    with pytest.raises(ExmlError, match=message):
        CORe50().load(sample, train=True)


def protocol(name, run_id=0, root=Path("/nowhere")):
    return Scenario("core50", CORe50(), protocol=name).experiences(run_id, root)


def class_order(run_id):
    return torch.randperm(50, generator=torch.Generator().manual_seed(RUN_SEEDS[run_id])).tolist()


def test_nc_brings_ten_classes_and_then_five_at_a_time_in_all_sessions():
    experiences, order = protocol("nc", 3), class_order(3)
    assert [len(e.classes) for e in experiences] == [10] + [5] * 8
    assert [c for e in experiences for c in e.classes] == order
    assert {sessions for e in experiences for sessions in e.groups} == {TRAIN}


def test_ni_brings_all_classes_one_session_at_a_time():
    experiences = protocol("ni", 3)
    assert all(e.classes == tuple(class_order(3)) for e in experiences)
    assert sorted(e.groups for e in experiences) == [((s,),) * 50 for s in TRAIN]
    assert [e.groups for e in experiences] != [e.groups for e in protocol("ni", 4)]
    assert experiences == protocol("ni", 3)


def test_nic_brings_each_class_in_each_session_once():
    experiences, order = protocol("nic", 3), class_order(3)
    assert [len(e.classes) for e in experiences] == [10] + [5] * 78
    assert experiences[0].classes == tuple(order[:10])
    assert {len(set(e.groups)) for e in experiences} == {1}
    pairs = Counter(
        (c, s) for e in experiences for c, sessions in zip(e.classes, e.groups, strict=True) for s in sessions
    )
    assert pairs == Counter(itertools.product(range(50), TRAIN))


def write_run(root: Path, name: str, batches: list[tuple[list[int], list[int]]], run_id: int = 1) -> Path:
    """Write official lists of a run, of objects and sessions; labels count objects up as they come, as theirs do."""
    run = root / "core50" / "batches_filelists" / f"{name.upper()}_inc" / f"run{run_id}"
    labels: dict[int, int] = {}
    for i, (objects, sessions) in enumerate(batches):
        lines = [line(s, o, 3, labels.setdefault(o, len(labels))) for s in sessions for o in objects]
        write(run / f"train_batch_{i:02d}_filelist.txt", *lines)
    return run


def test_official_runs_are_followed_where_they_are_there(tmp_path):
    order = list(range(50, 0, -1))
    batches = [(order[:10], list(TRAIN))] + [(order[i : i + 5], list(TRAIN)) for i in range(10, 50, 5)]
    run = write_run(tmp_path, "nc", batches)
    experiences = protocol("nc", 1, tmp_path)
    assert [[c + 1 for c in e.classes] for e in experiences] == [objects for objects, _ in batches]
    assert {sessions for e in experiences for sessions in e.groups} == {TRAIN}
    with pytest.raises(ExmlError, match=r"run0 has 0 lists.*nc has 9.*move .*NC_inc away"):
        protocol("nc", 0, tmp_path)
    (run / "train_batch_08_filelist.txt").unlink()
    with pytest.raises(ExmlError, match=r"run1 has 8 lists"):
        protocol("nc", 1, tmp_path)
    assert len(protocol("ni", 1, tmp_path)) == 8  # no lists of NI: drawn


def test_objects_of_an_official_list_may_come_from_different_sessions(tmp_path):
    run = write_run(tmp_path, "nic", [([1], [1])] * 79)
    write(run / "train_batch_04_filelist.txt", line(2, 7, 0, 0), line(1, 9, 0, 1), line(4, 7, 3, 0))
    assert protocol("nic", 1, tmp_path)[4] == Experience((6, 8), 0, ((2, 4), (1,)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(3, 1, 0)], r"has frames of sessions \[3\]"),
        ([line(1, 1, 0, label=4), line(1, 1, 1, label=5)], "line 2: label 5 contradicts object 1"),
        ([line(1, 1, 0, label=4), line(1, 2, 1, label=4)], "line 2: label 4 contradicts object 2"),
        ([], "no frames are listed"),
    ],
)
def test_official_lists_that_are_no_experience_are_refused(tmp_path, lines, message):
    run = write_run(tmp_path, "ni", [(list(range(1, 51)), [s]) for s in TRAIN])
    write(run / "train_batch_04_filelist.txt", *lines)
    with pytest.raises(ExmlError, match=rf"train_batch_04_filelist\.txt.*{message}"):
        protocol("ni", 1, tmp_path)


@real_core50
@pytest.mark.real_data
def test_class_names_and_the_list_rebuilt_from_the_boxes_are_those_of_the_official_set(tmp_path):
    names = (DATA / "core50" / "meta" / "core50_class_names.txt").read_text().split()
    assert list(CORe50.class_names) == names
    meta = tmp_path / "core50" / "meta"
    meta.mkdir(parents=True)
    (meta / "bbox.zip").symlink_to(DATA / "core50" / "meta" / "bbox.zip")
    frames = list_frames(tmp_path / "core50")
    assert len(frames) == len(set(frames)) == 164_866
    counts = Counter((frame.session, frame.object) for frame in frames)
    with (DATA / "core50" / "meta" / "dims_color128x128.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if (row[""] or "").startswith("o")]
    table = {(s, int(row[""][1:])): int(row[f"s{s}"]) for row in rows for s in range(1, 12)}
    assert len(table) == 550
    assert counts == table
    reduced = (DATA / "core50" / "meta" / "test_filelist_reduced.txt").read_text().split()[::2]
    paths = {frame.path for frame in frames}
    assert sum(path not in paths for path in reduced) == 0


@real_core50
@pytest.mark.real_data
def test_the_real_sample_is_what_pil_reads():
    split = CORe50().load(DATA, train=True)
    assert (len(split), len(CORe50().load(DATA, train=False))) == (77, 21)
    lines = (DATA / "core50" / "core50_128x128" / "filelist.txt").read_text().split("\n")
    path, label = lines[0].split()
    row = [k for k in range(77) if split.labels[k] == int(label) and split.groups[k] == 1]
    with Image.open(DATA / "core50" / "core50_128x128" / path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert any(torch.equal(split.images[k], pixels) for k in row)
