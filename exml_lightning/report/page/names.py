"""What groups of runs are called on the page."""

from collections.abc import Iterator

from exml_lightning.report.cells import Column, Group
from exml_lightning.report.paper import title_of


def named_groups(column: Column) -> Iterator[tuple[str, str, Group]]:
    """Return all groups of a scenario, each with its name: that of its strategy, numbered where that has several.

    Args:
        column: The scenario.

    Yields:
        Name, strategy and group; the group that fills the cell comes first.
    """
    for strategy, cell in column.cells.items():
        for number, group in enumerate(cell.groups, 1):
            yield title_of(strategy) + (f" {number}" if len(cell.groups) > 1 else ""), strategy, group
