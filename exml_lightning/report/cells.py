"""The cells of the tables: which runs belong together, and which of a cell's groups fills it."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.paper import order_of
from exml_lightning.report.runs import Run
from exml_lightning.report.settings import Settings, differences, settings_of, shared

SIZE = "buffer.size"


@dataclass(frozen=True)
class Group:
    """Runs of one scenario and strategy that differ in nothing but the run.

    Args:
        settings: Their settings.
        runs: The runs, by their number.
    """

    settings: Settings
    runs: tuple[Run, ...]

    @property
    def accuracy(self) -> tuple[float, float | None]:
        """Mean and sample standard deviation of the stream accuracy in %; None of one run."""
        return mean_and_std([run.accuracy for run in self.runs])

    def mean_of(self, key: str) -> float | None:
        """Return the mean of a figure of the results over the runs that have it."""
        values = [value for run in self.runs if (value := run.number(key)) is not None]
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class Cell:
    """The groups of one scenario and strategy.

    Args:
        main: The group that fills the cell.
        others: Groups that are shown beside it: of those that differ in nothing but the size of the buffer, one.
        sizes: Groups that differ in nothing but the size of the buffer, in its order, each with the runs that all of
            them have: a line of Figure 3. Empty where there are no two such groups; all runs where none is common.
        groups: All groups, the main one first.
    """

    main: Group
    others: tuple[Group, ...]
    sizes: tuple[Group, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Column:
    """All cells of one scenario.

    Args:
        scenario: Its name.
        cells: Its cells by strategy, in the order of the tables.
        usual: The shared settings that most of them have.
    """

    scenario: str
    cells: dict[str, Cell]
    usual: Settings

    def note(self, strategy: str, group: Group) -> str:
        """Say how a group differs: from its cell's main group; the main group from the cell's neighbours."""
        main = self.cells[strategy].main
        if group is not main:
            return "; ".join(differences(group.settings, main.settings))
        mine = shared(main.settings)
        keys = mine.keys() | ({"expert_training"} if main.runs[0].is_baseline else self.usual.keys())
        theirs = {key: value for key, value in self.usual.items() if key in keys}
        return "; ".join(differences(mine, theirs))


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; None for the latter of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def build_columns(runs: Iterable[Run]) -> dict[str, Column]:
    """Sort runs into cells.

    Args:
        runs: The runs.

    Returns:
        A column for each scenario, by its name.

    Raises:
        ExmlError: If a group has a run twice.
    """
    sorted_runs: dict[str, dict[str, list[tuple[Run, Settings]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        sorted_runs[run.scenario][run.strategy].append((run, settings_of(run)))
    columns = {}
    for scenario in sorted(sorted_runs):
        strategies = sorted_runs[scenario]
        cells = {}
        for strategy in sorted(strategies, key=order_of):
            neighbours = [
                shared(settings) for other in strategies if other != strategy for _, settings in strategies[other]
            ]
            cells[strategy] = _cell(_groups(strategies[strategy]), neighbours)
        columns[scenario] = Column(scenario, cells, _usual([cell.main for cell in cells.values()]))
    return columns


def _groups(runs: list[tuple[Run, Settings]]) -> list[Group]:
    members: dict[str, list[tuple[Run, Settings]]] = defaultdict(list)
    for run, settings in runs:
        members[_key(settings)].append((run, settings))
    groups = []
    for found in members.values():
        by_id: dict[int, Run] = {}
        for run, _ in found:
            other = by_id.setdefault(run.run_id, run)
            if other is not run:
                raise ExmlError(
                    f"{other.folder} and {run.folder} are both run {run.run_id} of {run.strategy} on {run.scenario} "
                    "with the same settings: leave one of them out"
                )
        groups.append(Group(found[0][1], tuple(by_id[run_id] for run_id in sorted(by_id))))
    return groups


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def _family(group: Group) -> str:
    return _key({key: value for key, value in group.settings.items() if key != SIZE})


def _size(group: Group) -> int:
    return int(group.settings.get(SIZE, 0))


def _cell(groups: list[Group], neighbours: list[Settings]) -> Cell:
    def rank(group: Group) -> tuple[int, int, int, str]:
        mine = shared(group.settings)
        agreeing = sum(all(other[key] == mine[key] for key in other.keys() & mine.keys()) for other in neighbours)
        return len(group.runs), agreeing, _size(group), _key(group.settings)

    main = max(groups, key=rank)
    families: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(groups, key=_size):
        families[_family(group)].append(group)
    others = []
    for family in families.values():
        if main not in family:
            same_size = [group for group in family if _size(group) == _size(main)]
            others.append((same_size or [max(family, key=rank)])[0])
    longest = max(families.values(), key=lambda family: (len(family), main in family, sum(len(g.runs) for g in family)))
    in_order = sorted(groups, key=lambda group: (group is main, rank(group)), reverse=True)
    return Cell(
        main=main,
        others=tuple(group for group in in_order if any(group is other for other in others)),
        sizes=_with_common_runs(longest) if len(longest) > 1 else (),
        groups=tuple(in_order),
    )


def _with_common_runs(groups: list[Group]) -> tuple[Group, ...]:
    common = set.intersection(*({run.run_id for run in group.runs} for group in groups))
    if not common:
        return tuple(groups)
    return tuple(Group(group.settings, tuple(run for run in group.runs if run.run_id in common)) for group in groups)


def _usual(groups: list[Group]) -> Settings:
    """Return each shared setting as most groups have it that have it at all; as the first has it, if that is a tie."""
    usual: dict[str, Any] = {}
    blocks = [(shared(group.settings), group.runs[0].is_baseline) for group in groups]
    for key in sorted({key for block, _ in blocks for key in block}):
        # A baseline without the key does not depend on it; elsewhere a key that is left out is null.
        values = [block.get(key) for block, baseline in blocks if key in {*block, "expert_training"} or not baseline]
        counted = Counter(map(str, values))
        usual[key] = max(values, key=lambda value: counted[str(value)])
    return {key: value for key, value in usual.items() if value is not None}
