"""The cells of the tables: which runs belong together, and which of a cell's groups fills it."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.paper import EXPERTS, order_of
from exml_lightning.report.run import Run
from exml_lightning.report.settings import (
    OF_EXPERTS,
    Settings,
    differences,
    fill_architectures,
    key_of,
    settings_of,
    shared,
)
from exml_lightning.report.text import printable

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

    @property
    def learned(self) -> int:
        """How many experts were learned, or asked by a baseline."""
        return int(self.settings["experts_asked"]) - len(self.settings.get("experts_skipped", []))

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
        sizes: Groups that differ in nothing but the size of the buffer, in its order, each with the runs that most of
            them have: a line of Figure 3. Empty where there are no two such groups; all runs where no two groups have
            a run in common.
        sizes_note: Which runs `sizes` lacks, or that its points are of different runs.
        groups: All groups, the main one first.
    """

    main: Group
    others: tuple[Group, ...]
    sizes: tuple[Group, ...]
    sizes_note: str
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
        """Say how a group differs: from its cell's main group, that from the cell's neighbours; from the paper."""
        main = self.cells[strategy].main
        if group is not main:
            words = differences(group.settings, main.settings)
        else:
            mine = shared(main.settings)
            keys = mine.keys() | (set(OF_EXPERTS) if main.runs[0].is_baseline else self.usual.keys())
            words = differences(mine, {key: value for key, value in self.usual.items() if key in keys})
        if not has_papers_experts(self.scenario, group):
            words.append(f"number of experts {group.learned} instead of the paper's {EXPERTS[self.scenario]}")
        return "; ".join(words)


def has_papers_experts(scenario: str, group: Group) -> bool:
    """Tell whether a group learned as many experts as the scenario has in the paper; yes where it has none there."""
    return group.learned == EXPERTS.get(scenario, group.learned)


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; None for the latter of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def build_columns(runs: Iterable[Run], left_out: list[str]) -> dict[str, Column]:
    """Sort runs into cells.

    Args:
        runs: The runs.
        left_out: Takes a line for each run that another one repeats, figure by figure.

    Returns:
        A column for each scenario, by its name.

    Raises:
        ExmlError: If a group has a run twice, with other figures or other experts.
    """
    sorted_runs: dict[str, dict[str, list[tuple[Run, Settings]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        sorted_runs[run.scenario][run.strategy].append((run, settings_of(run)))
    columns = {}
    for scenario in sorted(sorted_runs):
        strategies = sorted_runs[scenario]
        fill_architectures(settings for found in strategies.values() for _, settings in found)
        groups = {name: _groups(found, left_out) for name, found in strategies.items()}
        frequent = {name: _frequent(found) for name, found in groups.items()}
        cells = {}
        for strategy in sorted(strategies, key=order_of):
            neighbours = [frequent[other] for other in strategies if other != strategy]
            cells[strategy] = _cell(groups[strategy], neighbours)
        columns[scenario] = Column(scenario, cells, _usual([cell.main for cell in cells.values()]))
    return columns


def _frequent(groups: list[Group]) -> list[Settings]:
    """Return the shared settings of the groups that have the most runs."""
    most = max(len(group.runs) for group in groups)
    found = [shared(group.settings) for group in groups if len(group.runs) == most]
    return list({key_of(settings): settings for settings in found}.values())


def _groups(runs: list[tuple[Run, Settings]], left_out: list[str]) -> list[Group]:
    members: dict[str, list[tuple[Run, Settings]]] = defaultdict(list)
    for run, settings in runs:
        members[key_of(settings)].append((run, settings))
    groups = []
    for found in members.values():
        by_id: dict[int, Run] = {}
        for run, _ in sorted(found, key=lambda pair: len(pair[0].folder.name)):
            other = by_id.setdefault(run.run_id, run)
            if other is not run:
                left_out.append(_repeats(run, other))
        groups.append(Group(found[0][1], tuple(by_id[run_id] for run_id in sorted(by_id))))
    return groups


def _repeats(run: Run, other: Run) -> str:
    """Say that a run repeats another; refuse two that differ, for one of them must be wrong."""
    digests = {str(one.results["experts_digest"]) for one in (run, other) if "experts_digest" in one.results}
    but = "other experts" if len(digests) > 1 else "" if run.accuracy == other.accuracy else "another accuracy"
    what = f"run {run.run_id} of {run.strategy} on {run.scenario} with the same settings"
    if but:
        places = f"{other.folder} and {run.folder}"
        raise ExmlError(printable(f"{places} are both {what} but {but}: leave one of them out"))
    return printable(f"{run.folder} repeats {other.folder}: {what}")


def _family(group: Group) -> str:
    return key_of({key: value for key, value in group.settings.items() if key != SIZE})


def _size(group: Group) -> int:
    return int(group.settings.get(SIZE, 0))


def _cell(groups: list[Group], neighbours: list[list[Settings]]) -> Cell:
    ranks = {id(group): _rank(group, neighbours) for group in groups}

    def rank(group: Group) -> tuple[int, int, int, str]:
        return ranks[id(group)]

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
    sizes, sizes_note = _with_common_runs(longest) if len(longest) > 1 else ((), "")
    in_order = sorted(groups, key=lambda group: (group is main, rank(group)), reverse=True)
    return Cell(
        main=main,
        others=tuple(group for group in in_order if any(group is other for other in others)),
        sizes=sizes,
        sizes_note=sizes_note,
        groups=tuple(in_order),
    )


def _rank(group: Group, neighbours: list[list[Settings]]) -> tuple[int, int, int, str]:
    mine = shared(group.settings)
    agreeing = sum(
        any(all(other[key] == mine[key] for key in other if key in mine) for other in frequent)
        for frequent in neighbours
    )
    return len(group.runs), agreeing, _size(group), key_of(group.settings)


def _with_common_runs(groups: list[Group]) -> tuple[tuple[Group, ...], str]:
    """Return the groups with the runs that most of them have, and a note of those that this leaves out."""
    found = [frozenset(run.run_id for run in group.runs) for group in groups]
    having = {some: sum(some <= other for other in found) for some in found}
    common = max(having, key=lambda some: (found.count(some), having[some], len(some), sorted(some, reverse=True)))
    left_out = [
        f"{_numbers(run.run_id for run in group.runs if not (common <= some and run.run_id in common))} "
        f"of {_size(group):,}"
        for group, some in zip(groups, found, strict=True)
        if some != common
    ]
    shown = tuple(
        Group(group.settings, tuple(run for run in group.runs if run.run_id in common))
        for group, some in zip(groups, found, strict=True)
        if common <= some
    )
    note = f"{_numbers(common)} only, without {' and '.join(left_out)}" if left_out else ""
    return (shown, note) if len(shown) > 1 else (tuple(groups), "points are of different runs")


def _numbers(run_ids: Iterable[int]) -> str:
    numbers = [str(run_id) for run_id in sorted(run_ids)]
    return f"run{'' if len(numbers) == 1 else 's'} {', '.join(numbers)}"


def _usual(groups: list[Group]) -> Settings:
    """Return each shared setting as most groups have it that have it at all; as the first has it, if that is a tie."""
    usual: dict[str, Any] = {}
    blocks = [(shared(group.settings), group.runs[0].is_baseline) for group in groups]
    for key in sorted({key for block, _ in blocks for key in block}):
        # A baseline without the key does not depend on it; elsewhere a key that is left out is null.
        values = [block.get(key) for block, baseline in blocks if key in {*block, *OF_EXPERTS} or not baseline]
        counted = Counter(map(key_of, values))
        usual[key] = max(values, key=lambda value: counted[key_of(value)])
    return {key: value for key, value in usual.items() if value is not None}
