"""What stands below a table: the settings of its columns and of its strategies, and the seconds."""

from collections import defaultdict

from exml_lightning.report.cells import Column, Group
from exml_lightning.report.settings import say
from exml_lightning.report.tables import NOT_DEFINED, Layout
from exml_lightning.report.text import escape, markdown, seconds

SECONDS_NOTE = (
    "Mean over the runs of the first line of each cell: generating + distilling; of baselines, testing. Images found "
    "in the cache cost no seconds of generating."
)


def captions(layout: Layout, columns: dict[str, Column]) -> str:
    """Write what stands below a table, in Markdown; nothing where it has no runs.

    Args:
        layout: Which table.
        columns: All cells, by scenario.
    """
    shown = [columns[name] for name in layout.scenarios if name in columns]
    if not shown:
        return ""
    strategies = strategy_lines(layout, shown)
    lines = [f"**{escape(column.scenario)}**: {escape(column_words(column))}" for column in shown]
    seconds_table = markdown(["", *(column.scenario for column in shown)], seconds_rows(layout, shown))
    parts = [
        "Settings of the columns:\n\n" + "".join(f"- {line}\n" for line in lines),
        "Settings of the strategies:\n\n" + "".join(f"- {escape(line)}\n" for line in strategies) if strategies else "",
        f"Seconds:\n\n{seconds_table}\n{SECONDS_NOTE}\n",
    ]
    return "\n".join(part for part in parts if part)


def column_words(column: Column) -> str:
    """Say which settings most strategies of a scenario share."""
    usual = column.usual
    words = []
    if "buffer.size" in usual:
        words.append(f"buffer {usual['buffer.size']:,}")
    if "data.n_iter" in usual:
        words.append(f"{usual['data.n_iter']:,} steps of batch {usual.get('data.batch_size')} an expert")
    if usual.get("processes", 1) > 1:
        words.append(f"{usual['processes']} processes with such a batch each")
    if "data.augmentation" in usual:
        words.append(f"augmentation {say(usual['data.augmentation']) or 'none'}")
    training = say(usual["expert_training"]) if "expert_training" in usual else "training not known"
    of = "; ".join([*([say(usual["expert_architecture"])] if "expert_architecture" in usual else []), training])
    words.append(f"{usual['experts_asked']} expert{'' if usual['experts_asked'] == 1 else 's'} ({of})")
    words += [f"{key} {say(usual[key])}" for key in usual if key.startswith("trainer.")]
    if "data.seed" in usual:
        words.append(f"seed {usual['data.seed']}")
    devices = {str(run.results.get("device")) for cell in column.cells.values() for run in cell.main.runs}
    words.append(f"on {' and '.join(sorted(devices))}")
    return "; ".join(words)


def strategy_lines(layout: Layout, shown: list[Column]) -> list[str]:
    """Describe the generator of each strategy, and the settings of the ex-model in which they differ."""
    found: list[tuple[str, str, Group]] = []
    for row in layout.rows({column.scenario: column for column in shown}):
        for column in shown:
            cell = column.cells.get(row.key)
            if cell is not None and "buffer.generator" in cell.main.settings:
                found.append((row.title, column.scenario, cell.main))
    model = sorted({key for _, _, group in found for key in group.settings if key.startswith("model.")})
    values = {key: {say(group.settings.get(key)) for _, _, group in found if not _is_baseline(group)} for key in model}
    varied = [key for key in model if len(values[key]) > 1]
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for title, scenario, group in found:
        words = [say(group.settings["buffer.generator"])]
        if "data.auxiliary" in group.settings:
            words.append(f"images {say(group.settings['data.auxiliary'])}")
        words += [] if _is_baseline(group) else [f"{key} {say(group.settings.get(key))}" for key in varied]
        lines[title, "; ".join(words)].append(scenario)
    same = [f"{key} {next(iter(values[key]))}" for key in model if len(values[key]) == 1]
    common = [f"All: {', '.join(same)}"] if same else []
    return [f"{title} ({', '.join(names)}): {text}" for (title, text), names in lines.items()] + common


def _is_baseline(group: Group) -> bool:
    return group.runs[0].is_baseline


def seconds_rows(layout: Layout, shown: list[Column]) -> list[list[str]]:
    """Return a row a strategy: its name, and its seconds in each scenario."""
    rows = []
    for row in layout.rows({column.scenario: column for column in shown}):
        cells = [column.cells.get(row.key) for column in shown]
        if any(cells):
            rows.append([row.title, *("" if cell is None else _seconds(cell.main) for cell in cells)])
    return rows


def _seconds(group: Group) -> str:
    names = ("testing",) if _is_baseline(group) else ("generating", "distilling")
    values = [group.mean_of(f"seconds_{name}") for name in names]
    return " + ".join(NOT_DEFINED if value is None else seconds(value) for value in values)
