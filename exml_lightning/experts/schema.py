"""What a document of a stranger may say: the types of its fields, and one line for whatever is not as it should be."""

import json
import math
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from exml_lightning.core.errors import UNPRINTABLE, ExmlError, printable
from exml_lightning.core.images import ImageFormat
from exml_lightning.files import MAX_DEPTH, folder_name, text

FORMAT = 1
"""Of manifests and selections."""
MAX_NAMES = 100_000
"""Classes of a stream."""
MAX_WHOLE = 2**31 - 1
MAX_VALUES = 100_000_000
"""Values of one image."""
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""For the ``__pydantic_config__`` of a document; the dataclasses within it follow."""
WORDS = {
    "missing": "this key is missing",
    "unexpected_keyword_argument": "there is no such key",
    "string_type": "Input should be text: put it in quotes",
    "tuple_type": "Input should be a list",
    "dict_type": "Input should be a mapping",
    "dataclass_type": "Input should be a mapping",
}
"""By pydantic's types of errors: what it says in words of Python, for people who write YAML."""

T = TypeVar("T")


def _digest(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ExmlError("give 64 hexadecimal digits, in quotes, as `sha256sum FILE` prints them")
    return value.lower()


def _file_name(value: str) -> str:
    if value in (".", "..") or "/" in value or "\\" in value or len(value.encode()) > 255:
        raise ExmlError(f"{value!r} must be a file of the same folder, without a path")
    return value


def _class_name(value: object) -> object:
    """Whole numbers are taken for the names they are written as."""
    number = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE
    return str(value) if number else value


def _different(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ExmlError("one of them is there twice")
    return values


def _bounded(images: ImageFormat) -> ImageFormat:
    if math.prod(images.shape) > MAX_VALUES:
        raise ExmlError(f"shape {list(images.shape)} is too large: an image may have {MAX_VALUES} values")
    if max(map(abs, (*images.mean, *images.std))) > 1e6 or min(images.std) < 1e-6:
        raise ExmlError("mean may have numbers from -1e6 to 1e6, std from 1e-6 to 1e6")
    return images


def _dotted(value: str) -> str:
    if not all(part.isidentifier() for part in value.split(".")):
        raise ExmlError(f"{value!r}: give the dotted path of an nn.Module class")
    return value


def _own_code(init_args: dict[str, Any]) -> dict[str, Any]:
    if "trust_remote_code" in repr(init_args):
        raise ExmlError("trust_remote_code would run code that comes with weights: leave it out")
    if re.search("hf[-_]hub:", repr(init_args)):
        raise ExmlError("hf-hub: would have timm fetch a network from elsewhere: name one of timm's own")
    return init_args


def _plain(value: T, where: str = "", depth: int = 0) -> T:
    """Return a document as it is; refuse keys that are no text, control characters, huge numbers and deep nesting."""
    here = printable(where, 80) or "the file"
    if depth > MAX_DEPTH:
        raise ExmlError(f"{here} is nested more than {MAX_DEPTH} deep: write it flat")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ExmlError(f"{here}: the key {printable(str(key), 40)} must be text: put it in quotes")
            _plain(item, f"{where}.{text(key, f'a key of {here}')}".lstrip("."), depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _plain(item, f"{where}[{i}]", depth + 1)
    elif isinstance(value, str):
        if UNPRINTABLE.search(value.replace("\n", "").replace("\t", "")):
            raise ExmlError(f"{here} has control characters in it")
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ExmlError(f"{here} is a number of more than 64 bits")
    return value


Text = Annotated[str, AfterValidator(lambda value: text(value, "it"))]
Whole = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, AfterValidator(_digest)]
FileName = Annotated[Text, AfterValidator(_file_name)]
StreamName = Annotated[str, AfterValidator(lambda value: folder_name(value, "the name"))]
_Name = Annotated[Text, BeforeValidator(_class_name)]
Names = Annotated[tuple[_Name, ...], Field(min_length=1, max_length=MAX_NAMES), AfterValidator(_different)]
Units = Annotated[tuple[Whole, ...], AfterValidator(_different)]
Images = Annotated[ImageFormat, AfterValidator(_bounded)]
Free = Annotated[
    dict[str, Any],
    BeforeValidator(lambda value: {} if value is None else value),
    AfterValidator(lambda value: _plain(value)),  # once more where JSON within a document is parsed (buffer files)
]
"""Anything that YAML and JSON hold; null for nothing."""
DottedPath = Annotated[Text, AfterValidator(_dotted)]
Arguments = Annotated[Free, AfterValidator(_own_code)]


def parse(adapter: TypeAdapter[T], raw: object) -> T:
    """Make a `STRICT` dataclass, of the types above, of a document; `ExmlError` says which keys are wrong and how."""
    document = json.dumps(_plain(raw))  # in JSON a strict tuple is a list, and a strict dataclass a mapping
    try:
        return adapter.validate_json(document)
    except ValidationError as error:
        raise ExmlError(_said(error)) from error


def parse_document(adapter: TypeAdapter[T], raw: object) -> T:
    """Make a dataclass of a manifest or a selection, which say ``format: 1`` beside what it holds; see `parse`."""
    if not isinstance(raw, dict):
        raise ExmlError("the file must be a mapping")
    if raw.get("format") != FORMAT:
        raise ExmlError(f"format must be {FORMAT}")
    return parse(adapter, {key: value for key, value in raw.items() if key != "format"})


def _said(error: ValidationError) -> str:
    """Put the first three errors on one line."""
    lines = []
    for one in error.errors(include_url=False):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"]).lstrip(".")
        own = one.get("ctx", {}).get("error")
        words = str(own) if isinstance(own, Exception) else WORDS.get(one["type"], one["msg"])
        lines.append(f"{printable(where, 200) or 'the file'}: {printable(words, 500)}")
    return "; ".join(lines[:3]) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
