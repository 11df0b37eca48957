"""A line chart as inline SVG, with a legend that tells the values at a place, and a table of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from exml_lightning.report.page.markup import Html, caption, element, scroller
from exml_lightning.report.text import with_std

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 48, 694, 16, 312
"""The edges of the plot."""
COLORS = 7
DASHES = (None, "7 4", "2 3", "10 3 2 3", "12 5")
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.7-3.7h7.4v7.4h-7.4z",
    "M0-4.8L4.6 3.4h-9.2z",
    "M0-5.2L5.2 0L0 5.2L-5.2 0z",
    "M0 4.8L4.6-3.4h-9.2z",
    "M-1.6-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
    "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z",
)
"""Circle, square, triangle, diamond, triangle downwards, plus, cross."""
MOST_LABELS = 16


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: Its name.
        points: Mean and standard deviation at each place in %; None where there is none.
        style: Number of its look: colour, marker and dashes. Level lines are numbered by themselves.
        is_level: Whether it is of a figure that has no places: grey, dashed, with a marker at its end.
    """

    name: str
    points: Sequence[tuple[float, float | None] | None]
    style: int
    is_level: bool = False


def chart(title: str, axis: str, places: Sequence[str], lines: Sequence[Line]) -> Html:
    """Write a chart.

    Args:
        title: What it shows.
        axis: What the places are, for instance ``experts learned``.
        places: Name of each place, two or more; they stand equally far apart.
        lines: The lines.
    """
    last = len(places) - 1
    svg = element(
        "svg",
        _grid(axis, places),
        [_band(line, last) for line in lines],
        element("line", class_="cursor", x1=RIGHT, x2=RIGHT, y1=TOP, y2=BOTTOM),
        [_drawn(line, last) for line in lines],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: line chart; the values are in the table below it",
        data_left=LEFT,
        data_right=RIGHT,
    )
    slider = element(
        "label",
        f"{axis} ",
        element("output", places[-1]),
        element("input", type="range", min=0, max=last, value=last, step=1),
        class_="slider",
        hidden=True,
    )
    plot = element("div", scroller(title, svg), slider, class_="plot")
    legend = element(
        "table",
        element("caption", "Accuracy in %, ", element("span", f"{axis}: {places[-1]}", class_="place")),
        element("tbody", [_legend_row(line) for line in lines]),
        class_="legend",
    )
    pair = element("div", plot, legend, class_="pair")
    names = "|".join(places)
    return element(
        "figure",
        element("figcaption", title),
        pair,
        _numbers(title, axis, places, lines),
        class_="chart",
        data_axis=axis,
        data_places=names,
    )


def _x(place: int, last: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * place / last, 1)


def _y(percent: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * min(max(percent, 0.0), 100.0) / 100, 1)


def _grid(axis: str, places: Sequence[str]) -> list[Html]:
    marks = []
    for percent in range(0, 101, 20):
        y = _y(percent)
        marks.append(element("line", class_="grid", x1=LEFT, x2=RIGHT, y1=str(y), y2=str(y)))
        marks.append(element("text", str(percent), x=LEFT - 8, y=str(y + 4), text_anchor="end"))
    step = -(-len(places) // MOST_LABELS)
    for place in range(0, len(places), step):
        x = str(_x(place, len(places) - 1))
        marks.append(element("text", places[place], x=x, y=BOTTOM + 18, text_anchor="middle"))
    marks.append(element("text", axis, x=(LEFT + RIGHT) // 2, y=BOTTOM + 40, text_anchor="middle", class_="axis"))
    return marks


def _band(line: Line, last: int) -> Html | None:
    known = [(i, *point) for i, point in enumerate(line.points) if point is not None]
    if line.is_level or not any(std for _, _, std in known):
        return None
    upper = [f"{_x(i, last)},{_y(mean + (std or 0.0))}" for i, mean, std in known]
    lower = [f"{_x(i, last)},{_y(mean - (std or 0.0))}" for i, mean, std in reversed(known)]
    return element("polygon", points=" ".join(upper + lower), class_=f"band c{line.style % COLORS}")


def _look(line: Line, ends: str, places: Sequence[tuple[float, float]]) -> Html:
    """Draw a line of given points, a marker at each of the places."""
    if line.is_level:
        color, dashes = "level", DASHES[1 + line.style % (len(DASHES) - 1)]
    else:
        color, dashes = f"c{line.style % COLORS}", DASHES[line.style // COLORS % len(DASHES)]
    shape = MARKERS[line.style % len(MARKERS)]
    markers = [element("path", d=shape, transform=f"translate({x} {y})") for x, y in places]
    return element("g", element("polyline", points=ends, stroke_dasharray=dashes), markers, class_=f"line {color}")


def _drawn(line: Line, last: int) -> Html:
    known = [(_x(i, last), _y(point[0])) for i, point in enumerate(line.points) if point is not None]
    marked = known[-1:] if line.is_level or len(known) > 2 * MOST_LABELS else known
    return _look(line, " ".join(f"{x},{y}" for x, y in known), marked)


def _legend_row(line: Line) -> Html:
    look = _look(line, "1,8 39,8", [(34 if line.is_level else 20, 8)])
    swatch = element("svg", look, viewBox="0 0 40 16", class_="swatch", aria_hidden="true")
    values = [_text(point) for point in line.points]
    return element(
        "tr",
        element("th", swatch, element("span", line.name), scope="row"),
        element("td", values[-1], class_="num"),
        data_values="|".join(values),
    )


def _text(point: tuple[float, float | None] | None) -> str:
    return "-" if point is None else with_std(*point)


def _numbers(title: str, axis: str, places: Sequence[str], lines: Sequence[Line]) -> Html:
    heading = element(
        "tr", element("th", axis, scope="col"), [element("th", place, scope="col", class_="num") for place in places]
    )
    rows = [
        element(
            "tr",
            element("th", line.name, scope="row"),
            [element("td", _text(point), class_="num") for point in line.points],
        )
        for line in lines
    ]
    words = caption(f"{title}, in %")
    table = element("table", words, element("thead", heading), element("tbody", rows))
    return element("details", element("summary", "Numbers"), scroller(f"{title}, numbers", table))
