"""Images of a run, expert by expert, with the expert's confidence in the label of each."""

import base64
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.page.markup import Html, caption, element, joined, scroller
from exml_lightning.report.sample_blocks import sample_files
from exml_lightning.report.samples import Samples, read_samples

MOST_BYTES = 8 * 10**6
"""Of all images on the page, as they are written there."""
MOST_EXPERTS = 12
"""Of a run whose images are shown."""
MOST_PIXELS = 64
"""A side of an image; larger ones are made smaller."""
LONGEST_NAME = 24
"""Characters of the name of a class above its images."""


@dataclass
class Pictures:
    """Writes the images of run after run, and remembers what it has written.

    Attributes:
        notes: What the page does not show, a line each.
    """

    notes: list[str] = field(default_factory=list)
    _places: dict[str, tuple[str, str]] = field(default_factory=dict)
    _bytes: int = 0

    def of_run(self, folder: Path, name: str, anchor: str, left_out: list[str]) -> Html | None:
        """Write the images of a run.

        Args:
            folder: Its folder.
            name: What it is called on the page.
            anchor: Its place on the page.
            left_out: Gets a line for each file that is broken, unless it is there.

        Returns:
            The images; None if the run has none.
        """
        files = sorted(sample_files(folder).items())
        read: dict[int, Samples] = {}
        for k, path in files[:MOST_EXPERTS]:
            try:
                read[k] = read_samples(path)
            except ExmlError as error:
                left_out += [str(error)] if str(error) not in left_out else []
        if not read:
            return None
        shown = [(samples.images.tobytes(), samples.classes, samples.confidence) for samples in read.values()]
        digest = hashlib.sha256(repr(shown).encode()).hexdigest()
        if digest in self._places:
            other, place = self._places[digest]
            return element("p", "The same images as of ", element("a", other, href=f"#{place}"), ".")
        blocks = [_of_expert(k, samples) for k, samples in read.items()]
        size = sum(map(len, blocks))
        if self._bytes + size > MOST_BYTES:
            most = f"the page holds {MOST_BYTES // 10**6} MB of images at most"
            self.notes.append(f"images of {name} are not shown: {most}")
            return element("p", f"Not shown, for {most}; see ", element("code", f"{folder}/samples"), ".")
        self._bytes += size
        self._places[digest] = name, anchor
        words = []
        if any(not samples.confidence for samples in read.values()):
            words.append("This run was made before runs kept the expert's confidence: images only.")
        if len(files) > MOST_EXPERTS:
            words.append(f"The first {MOST_EXPERTS} of {len(files)} experts.")
        hint = element("p", " ".join(words), class_="hint") if words else None
        return joined([hint, element("div", blocks, class_="gallery")])


def _of_expert(k: int, samples: Samples) -> Html:
    told = [value for column in samples.confidence for value in column if value is not None]
    words = caption(f"Expert {k + 1}", f"mean {100 * sum(told) / len(told):.1f} %" if told else "")
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in samples.classes]
    heading = element("tr", [element("th", name, scope="col") for name in names])
    rows = []
    for row in range(len(samples.images)):
        cells = [_image(samples, row, column, k) for column in range(len(names))]
        if any(cells):
            rows.append(element("tr", [element("td", cell) for cell in cells]))
    table = element("table", words, element("thead", heading), element("tbody", rows), class_="images")
    return scroller(f"Images of expert {k + 1}", table)


def _image(samples: Samples, row: int, column: int, k: int) -> Html | None:
    pixels = samples.images[row, column]
    confidence = samples.confidence[column] if samples.confidence else ()
    if row >= len(confidence) if samples.confidence else bool((pixels == 255).all()):
        return None  # there were fewer
    value = confidence[row] if row < len(confidence) else None
    height, width = pixels.shape[:2]
    alt = f"class {samples.classes[column][:LONGEST_NAME]}, image {row + 1} of expert {k + 1}"
    image = element("img", src=_data_uri(pixels), alt=alt, width=width, height=height, decoding="async")
    if not samples.confidence:
        return image
    return joined([image, element("span", "?" if value is None else f"{100 * value:.1f}", class_="confidence")])


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    if (pixels[..., :1] == pixels).all():
        picture = picture.convert("L")
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
