import json

import pytest
import torch
from safetensors.torch import save_file

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.generation.buffer_file import FORMAT, BufferFile, read_buffer, write_buffer

FORMAT_OF_IMAGES = ImageFormat((1, 2, 3), (0.25,), (0.5,))
NONE = torch.zeros(0, dtype=torch.long)


def content(**changes):
    columns = {
        "images": torch.linspace(-0.5, 1.5, 24).view(4, 1, 2, 3),
        "labels": torch.tensor([0, 1, 1, 0]),
        "tasks": torch.tensor([0, 0, 2, 2]),
        "experiences": torch.tensor([3, 3, 3, 3]),
        **changes,
    }
    return BufferFile(Buffer(**columns), ("cat", "dog"), FORMAT_OF_IMAGES, {"generator": {"steps": 3}})


@pytest.mark.parametrize("changes", [{}, {"images": torch.arange(0, 240, 10, dtype=torch.uint8).view(4, 1, 2, 3)}])
def test_what_is_written_is_read(tmp_path, changes):
    path = tmp_path / "deep" / "samples.safetensors"
    write_buffer(path, content(**changes))
    back = read_buffer(path)
    assert (back.class_names, back.image_format, back.about) == (
        ("cat", "dog"),
        FORMAT_OF_IMAGES,
        {"generator": {"steps": 3}},
    )
    ours, theirs = content(**changes).samples.columns(), back.samples.columns()
    assert ours.keys() == theirs.keys()
    for name, column in ours.items():
        assert column.dtype == theirs[name].dtype
        assert torch.equal(column, theirs[name])
    assert [p.name for p in path.parent.iterdir()] == ["samples.safetensors"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.99])
def test_a_file_cut_off_at_any_place_is_refused(tmp_path, part):
    path = tmp_path / "samples.safetensors"
    with pytest.raises(ExmlError, match=r"samples\.safetensors is missing"):
        read_buffer(path)
    write_buffer(path, content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ExmlError, match=r"samples\.safetensors cannot be read as a buffer file"):
        read_buffer(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(4, 1, 3, 3)}, r"shape \[1, 3, 3\], its metadata says \[1, 2, 3\]"),
        ({"images": torch.zeros(4, 6)}, "images must be torch.uint8 or torch.float32 with 4 dimensions"),
        ({"images": torch.full((4, 1, 2, 3), torch.nan)}, "NaN"),
        ({"images": torch.full((4, 1, 2, 3), 200.0)}, "values from 200 to 200: floats must be normalised"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, "labels must be 0 to 1"),
        ({"tasks": torch.tensor([0])}, "the same length"),
        (dict.fromkeys(("labels", "tasks", "experiences"), NONE) | {"images": torch.zeros(0, 1, 2, 3)}, "1 or more"),
    ],
)
def test_contents_that_do_not_fit_together_are_refused(tmp_path, changes, message):
    path = tmp_path / "samples.safetensors"
    write_buffer(path, content(**changes))
    with pytest.raises(ExmlError, match=message):
        read_buffer(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "must have format"),
        ({"format": FORMAT}, "class_names: this key is missing; input: this key is missing"),
        ({"format": FORMAT, "input": "{", "class_names": "[]"}, "not a buffer file .*input: Invalid JSON"),
        (
            {
                "format": FORMAT,
                "input": json.dumps({"shape": [1, 2, 3], "mean": [0], "std": [0]}),
                "class_names": '["cat", "dog"]',
            },
            "std",
        ),
    ],
)
def test_other_safetensors_files_are_refused(tmp_path, metadata, message):
    path = tmp_path / "other.safetensors"
    save_file(content().samples.state_dict(), path, metadata)
    with pytest.raises(ExmlError, match=message) as error:
        read_buffer(path)
    assert str(path) in str(error.value)
