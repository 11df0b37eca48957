"""The charts of the page: accuracy over time, and against the size of the buffer."""

from exml_lightning.report.buffer_size import with_sizes
from exml_lightning.report.cells import SIZE, Column
from exml_lightning.report.over_time import learned, points
from exml_lightning.report.page.chart import Line, chart
from exml_lightning.report.page.markup import Html
from exml_lightning.report.paper import order_of, title_of


def looks_of(columns: dict[str, Column]) -> dict[str, int]:
    """Number the strategies of the report, so that each looks the same in all charts; baselines by themselves."""
    baselines = {
        strategy: cell.main.runs[0].is_baseline
        for column in columns.values()
        for strategy, cell in column.cells.items()
    }
    learned_ones = sorted((name for name in baselines if not baselines[name]), key=order_of)
    others = sorted((name for name in baselines if baselines[name]), key=order_of)
    return {name: number for names in (learned_ones, others) for number, name in enumerate(names)}


def over_time_charts(columns: dict[str, Column]) -> list[Html]:
    """Write accuracy over time, a chart a scenario; baselines, which learn nothing, are level."""
    looks = looks_of(columns)
    charts = []
    for scenario, column in columns.items():
        groups = learned(column)
        if not groups:
            continue
        found = {strategy: {after: (m, s) for after, m, s in points(group, None)} for strategy, group in groups.items()}
        places = sorted({after for by_place in found.values() for after in by_place})
        lines = [
            Line(title_of(strategy), [by_place.get(place) for place in places], looks[strategy])
            for strategy, by_place in found.items()
        ]
        lines += [
            Line(title_of(strategy), [cell.main.accuracy] * len(places), looks[strategy], is_level=True)
            for strategy, cell in column.cells.items()
            if cell.main.runs[0].is_baseline
        ]
        names = [str(place + 1) for place in places]
        charts.append(chart(f"Stream accuracy, {scenario}", "experts learned", names, lines))
    return charts


def buffer_size_charts(columns: dict[str, Column]) -> list[Html]:
    """Write stream accuracy against the size of the buffer, a chart a scenario; sizes stand equally far apart."""
    looks = looks_of(columns)
    charts = []
    for scenario, by_strategy in with_sizes(columns).items():
        sizes = sorted({group.settings[SIZE] for groups in by_strategy.values() for group in groups})
        lines = []
        for strategy, groups in by_strategy.items():
            found = {group.settings[SIZE]: group.accuracy for group in groups}
            lines.append(Line(title_of(strategy), [found.get(size) for size in sizes], looks[strategy]))
        names = [f"{size:,}" for size in sizes]
        charts.append(chart(f"Stream accuracy against buffer size, {scenario}", "samples in the buffer", names, lines))
    return charts
