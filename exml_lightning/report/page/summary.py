"""The head of the page: how much there is, of when, and what is not complete."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from exml_lightning.report.page.markup import Html, element, joined
from exml_lightning.report.page.run_list import Entry
from exml_lightning.report.paper import order_of, title_of
from exml_lightning.report.run import Run


def summary(found: Sequence[Entry], command: str, incomplete: Sequence[str]) -> Html:
    """Write the summary.

    Args:
        found: All runs.
        command: The command line of the report.
        incomplete: A line for each thing that is missing or not shown.
    """
    scenarios = list(dict.fromkeys(entry.scenario for entry in found if isinstance(entry.run, Run)))
    without = sum(not isinstance(entry.run, Run) for entry in found)
    strategies = sorted({entry.run.strategy for entry in found}, key=order_of)
    tiles = [
        _tile(len(found), "run", f"{without} without a data set" if without else ""),
        _tile(len(scenarios), "scenario", ", ".join(scenarios)),
        _tile(len(strategies), "strategy", ", ".join(map(title_of, strategies)), "strategies"),
    ]
    made = datetime.now(UTC)
    time = element("time", f"{made:%d %B %Y, %H:%M} UTC", datetime=f"{made:%Y-%m-%dT%H:%MZ}")
    facts = element(
        "p",
        joined(["Made on ", time, f" by exml_lightning {version('exml-lightning')} with "]),
        element("code", command),
        class_="hint",
    )
    return joined([element("ul", tiles, class_="tiles"), facts, _incomplete(incomplete)])


def _tile(count: int, word: str, names: str, several: str = "") -> Html:
    word = word if count == 1 else several or f"{word}s"
    return element(
        "li",
        element("strong", f"{count:,}"),
        " ",
        element("span", word, class_="word"),
        element("span", names, class_="hint") if names else None,
    )


def _incomplete(lines: Sequence[str]) -> Html:
    if not lines:
        return element("p", "Nothing was left out.", class_="hint")
    title = element("h3", f"Not complete: {len(lines)} remark{'' if len(lines) == 1 else 's'}")
    return element("div", title, element("ul", [element("li", line) for line in lines]), class_="notice")
