"""HTML from Python: every text is escaped unless this module has made it."""

from collections.abc import Iterable
from html import escape

from exml_lightning.report.text import printable

_EMPTY = {"img", "input", "br", "meta"}

Child = str | Iterable[str | Iterable[str] | None] | None
"""What an element holds: text, another element, several of them, or nothing."""
Attribute = str | int | bool | None


class Html(str):
    """Text that is HTML already, made by `element`; all other text is escaped where it is put into an element."""


def element(name: str, *children: Child, **attributes: Attribute) -> Html:
    """Write an element.

    Args:
        name: Its tag.
        children: What it holds: `Html` as it is, other text escaped, None not at all, a list item by item.
        attributes: `class_` is ``class``, `aria_label` is ``aria-label``; True stands for the bare name, and what is
            None or False is left out.
    """
    start = f"<{name}{''.join(map(_attribute, attributes, attributes.values()))}>"
    return Html(start if name in _EMPTY else f"{start}{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Html:
    """Put elements and texts one after the other."""
    return Html("".join(map(_inner, children)))


def _inner(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return escape(printable(child))
    return joined(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(printable(str(value)))}"'


def caption(title: str, hint: str = "") -> Html:
    """Write the caption of a table; it stays where it is while the table scrolls sideways."""
    words = element("span", hint, class_="hint") if hint else None
    return element("caption", element("div", title, " " if hint else None, words))


def number(text: str, sort: float | None = None, **attributes: Attribute) -> Html:
    """Write a table cell with a number.

    Args:
        text: As it is shown.
        sort: What it is sorted by; None sorts last.
        attributes: More of them.
    """
    return element("td", text, class_="num", data_sort=None if sort is None else f"{sort:.6g}", **attributes)


def scroller(label: str, *children: Child, more: str = "") -> Html:
    """Write what may be wider than a narrow screen: it scrolls by itself, by keyboard, too."""
    return element("div", *children, class_=f"scroll {more}".strip(), tabindex=0, role="region", aria_label=label)


def sort_heading(text: str, column: int, **attributes: Attribute) -> Html:
    """Write a heading that sorts its table.

    Args:
        text: The heading.
        column: Which cell of each row it sorts by.
        attributes: More of them.
    """
    arrow = element("span", class_="arrow", aria_hidden="true")
    button = element("button", text, arrow, type="button", data_column=column)
    return element("th", button, **{"scope": "col", **attributes}, aria_sort="none")
