import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import HuggingFace, Scenario
from exml_lightning.scenarios.image_files import fit_image

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FEATURES = {"picture": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": ["ant", "bee"]}}


def pictures(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (9 + k, 12, 3), dtype=np.uint8) for k in range(count)]


def expected(count: int, seed: int) -> torch.Tensor:
    return torch.stack([fit_image(torch.from_numpy(x).permute(2, 0, 1), (3, 8, 8)) for x in pictures(count, seed)])


def table(count: int, seed: int, features: dict | None = None, labels: list | None = None, **more):
    """As `datasets` writes it: images as the bytes of a file, what columns are in the metadata of the schema."""
    rows = []
    for pixels in pictures(count, seed):
        Image.fromarray(pixels).save(buffer := io.BytesIO(), format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    kinds = [k % 2 for k in range(count)] if labels is None else labels
    content = pyarrow.table({"picture": rows, "kind": pyarrow.array(kinds, pyarrow.int64()), **more})
    said = json.dumps({"info": {"features": FEATURES if features is None else features}})
    return content.replace_schema_metadata({"huggingface": said})


def write_parquet(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(content, path)


def save_to_disk(folder: Path, **splits) -> None:
    """Write the files that `DatasetDict.save_to_disk` does; a split in two files."""
    folder.mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for name, content in splits.items():
        (folder / name).mkdir()
        files = [f"data-0000{k}-of-00002.arrow" for k in range(2)]
        for k, file in enumerate(files):
            half = content.slice(k * 3, 3 if k == 0 else None)
            with (
                pyarrow.OSFile(str(folder / name / file), "wb") as sink,
                pyarrow.ipc.new_stream(sink, half.schema) as to,
            ):
                to.write_table(half)
        (folder / name / "cache-1.arrow").write_bytes(b"of map()")
        (folder / name / "state.json").write_text(json.dumps({"_data_files": [{"filename": file} for file in files]}))


def test_what_save_to_disk_writes_is_read(tmp_path):
    save_to_disk(tmp_path / "set", train=table(7, 0), validation=table(4, 1))
    dataset = HuggingFace(path="set", size=8)
    for train, count, seed in ((True, 7, 0), (False, 4, 1)):
        split = dataset.load(tmp_path, train)
        assert torch.equal(split.images, expected(count, seed))
        assert split.labels.tolist() == [k % 2 for k in range(count)]
    assert dataset.class_names == ("ant", "bee")


@pytest.mark.parametrize(
    "files",
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("train.parquet", "valid.parquet"),
    ],
)
def test_parquet_files_are_read(tmp_path, files):
    for file, count in zip(files, (6, 3), strict=True):
        write_parquet(tmp_path / "set" / file, table(count, count))
    dataset = HuggingFace(path="set", size=8)
    assert torch.equal(dataset.load(tmp_path, train=True).images, expected(6, 6))
    assert torch.equal(dataset.load(tmp_path, train=False).images, expected(3, 3))


def test_a_split_alone_is_divided(tmp_path, capsys):
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", table(20, 0))
    dataset = HuggingFace(path="set", size=8)
    train, test = (dataset.load(tmp_path, wanted) for wanted in (True, False))
    assert train.labels.bincount().tolist() == [8, 8]
    assert test.labels.bincount().tolist() == [2, 2]
    both = {image.numpy().tobytes() for image in torch.cat([train.images, test.images])}
    assert both == {image.numpy().tobytes() for image in expected(20, 0)}
    assert "set has one split: its 4 test images are a fifth of each class" in capsys.readouterr().out


def test_a_fit_needs_no_training_files(tmp_path):
    save_to_disk(tmp_path / "set", train=table(7, 0), test=table(4, 1))
    for file in (tmp_path / "set" / "train").glob("*.arrow"):
        file.write_bytes(b"none")
    dataset = HuggingFace(path="set", size=8)
    scenario = Scenario("own", dataset, classes_per_experience=1)
    assert len(scenario.test_stream(tmp_path, scenario.experiences(0, tmp_path))) == 2
    with pytest.raises(ExmlError, match=r"train/data-00000-of-00002\.arrow cannot be read .*: fetch it again"):
        dataset.load(tmp_path, train=True)


def test_columns_are_chosen_by_name_where_there_are_several(tmp_path):
    features = {**FEATURES, "family": {"_type": "ClassLabel", "names": ["insect"]}}
    write_parquet(tmp_path / "train.parquet", table(4, 0, features, family=[0] * 4))
    with pytest.raises(ExmlError, match=r"type ClassLabel; it has 'kind', 'family': choose one by .*dataset\.label"):
        HuggingFace(path=".", size=8).open(tmp_path)
    with pytest.raises(ExmlError, match=r"choose one by .*dataset\.label"):
        HuggingFace(path=".", size=8, label="kin").open(tmp_path)
    dataset = HuggingFace(path=".", size=8, label="family")
    assert dataset.load(tmp_path, train=True).labels.tolist() == [0, 0, 0]
    assert dataset.class_names == ("insect",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features": {}}, r"test\.parquet must have a column of the type Image; it has none"),
        ({"features": {"picture": {"_type": "Image"}, "kind": {"_type": "Value"}}}, r"type ClassLabel; it has none"),
        ({"features": {**FEATURES, "kind": {"_type": "ClassLabel"}}}, r"does not name the classes of its column kind"),
        ({"labels": [0, -1]}, r"row 1 of .* has no label: take the files of its split away"),
        ({"labels": [0, None]}, r"row 1 of .* has no label"),
        ({"labels": [0, 2]}, r"row 1 of .* has no label"),
    ],
)
def test_files_that_will_not_do_are_named(tmp_path, content, message):
    write_parquet(tmp_path / "test.parquet", table(2, 0, **content))
    with pytest.raises(ExmlError, match=message):
        HuggingFace(path=".", size=8).load(tmp_path, train=False)


def test_splits_must_have_the_same_classes(tmp_path):
    other = {**FEATURES, "kind": {"_type": "ClassLabel", "names": ["bee", "ant"]}}
    save_to_disk(tmp_path / "set", train=table(4, 0), test=table(4, 1, other))
    with pytest.raises(ExmlError, match=r"train/.* has other classes \('ant', 'bee'\) than the test split"):
        HuggingFace(path="set", size=8).load(tmp_path, train=True)


def test_broken_and_missing_files_are_named(tmp_path):
    dataset = HuggingFace(path="set", size=8)
    with pytest.raises(ExmlError, match=r"set is no folder that save_to_disk wrote, and has no parquet files"):
        dataset.open(tmp_path)
    save_to_disk(tmp_path / "set", train=table(4, 0), test=table(4, 1))
    (tmp_path / "set" / "test" / "state.json").write_text("{}")
    with pytest.raises(ExmlError, match=r"set is not whole \('_data_files'\): write it by save_to_disk again"):
        dataset.open(tmp_path)
    write_parquet(tmp_path / "cut" / "test.parquet", table(40, 0))
    file = tmp_path / "cut" / "test.parquet"
    whole = bytearray(file.read_bytes())
    whole[200:400] = bytes(200)  # in the pages: the end, which says where they are, is whole
    file.write_bytes(whole)
    with pytest.raises(ExmlError, match=r"row \d+ of .*cut: reading it ended in"):
        HuggingFace(path="cut", size=8).load(tmp_path, train=False)
    write_parquet(tmp_path / "a" / "x" / "train.parquet", table(4, 0))
    write_parquet(tmp_path / "a" / "y" / "train.parquet", table(4, 0))
    with pytest.raises(ExmlError, match="a has train files in several folders: name one of these as its path"):
        HuggingFace(path="a", size=8).open(tmp_path)


def test_what_the_library_itself_writes_is_read(tmp_path):
    """By `save_to_disk` of datasets 5.2.0: six images for training, the first two of them for validation."""
    path, test = "save_to_disk", [0, 1]
    shutil.copytree(Path(__file__).parent / "hugging_face" / path, tmp_path / path)
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, (10 + k, 12, 3), dtype=np.uint8) for k in range(6)]
    images = torch.stack([fit_image(torch.from_numpy(array).permute(2, 0, 1), (3, 8, 8)) for array in arrays])
    dataset = HuggingFace(path=path, size=8)
    assert torch.equal(dataset.load(tmp_path, train=True).images, images)
    found = dataset.load(tmp_path, train=False)
    assert torch.equal(found.images, images[test])
    assert found.labels.tolist() == [k % 2 for k in test]
    assert dataset.class_names == ("ant", "bee")
