"""Renders docs/performance.md from the results of the parts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.performance.figures import SCALING, picture_name

HEAD = """\
# Performance

How fast the package is, beside what the same arithmetic costs alone. This page is written by

    pip install -e . && python -m benchmarks.performance

which keeps its results in `{stem}.json`. One part again, or only what was not measured yet:

    python -m benchmarks.performance generation
    python -m benchmarks.performance --missing

On a GPU (`--device cuda`) every part is meant to take less than 10 minutes and is saved when it is done, so that the
same command with `--missing` goes on. Nothing is fetched from the network.

    python -m benchmarks.performance --device cuda --missing --limit 540

Unless a section says otherwise a figure is a ratio, measured in one process: both sides have their turns within each
round, so that whatever else the machine does slows both of them down. It is the median over the rounds, with the
smallest and the largest in brackets. Networks are untrained ones with settled batch norm, images are synthetic and the
same each time: the values change nothing in the time.

Finished experiments (a straightforward implementation, what each lever brings, where the time goes) are kept in
[performance_trials.md](performance_trials.md).
"""


class Section(NamedTuple):
    """A section of the page.

    Args:
        title: Its heading.
        prose: What was measured, and how.
        parts: The parts whose tables it shows.
    """

    title: str
    prose: str
    parts: tuple[str, ...]


SECTIONS = (
    Section(
        "Overhead of distillation",
        """\
`exml fit` runs in the process of the benchmark with all that is on by default: Lightning, the log, checkpoints (every
500 steps; one is timed and its share is added to each step) and a progress bar, whose text is thrown away. In its
second experience, the first with a previous ex-model, a callback stops its clock every few steps and does as many
*bare* steps: the student's forward and backward passes, two teachers' forward passes and a step of Adam on one batch
that is there already, in torch's default memory layout and in channels last. Speed is the bare time divided by the
fit's: 1 is no overhead. The goal is held against the faster bare layout. Without augmentation, and with changed copies
that are drawn once (`data.copies`), the fit asks both teachers about all of them once, before its steps, and not again:
the price, that of some 30 steps an experience,
is not in the figure, and there is no goal for it. Where a CPU computes in bfloat16, that fit is measured in it too,
against the same bare steps in float32. With `model.compile` the fit is compiled and the bare steps are not:
on a CPU there is no goal for that either; on a GPU recording kernels is how the goal is to be met.

With one image a batch there is next to no arithmetic, so what the fit needs more than the bare steps is Python: that
is what a fast GPU would wait for.
""",
        ("overhead",),
    ),
    Section(
        "Generating",
        """\
Model inversion as it is shipped (`configs/split_mnist.yaml`, `configs/split_cifar10.yaml`: priors, augmentation,
Adam, checks for NaN) against *bare* passes: forward, cross entropy and backward to the images, through the same
expert, with batches of the same size that are there already. The goal is held against the faster bare layout.
""",
        ("generation",),
    ),
    Section(
        "Scaling",
        """\
Each point is `exml fit` of untrained experts in a process of its own (which has a peak memory of its own), so nothing
is interleaved here; each is done twice, and the smaller figures count. Generating and distilling are the seconds of
`summary.json`; the whole process has its start, checks, pictures, tables and checkpoints, too. LeNet5; for the image
size and the number of experts slim ResNet18, whose 4 MB would show if all were held. An exponent is the slope of the
logarithms over the last three points: 1 is linear, 0 flat. The image size's is that of the number of pixels. On a GPU,
memory is what torch has allocated there, and there are 20 times as many steps.
""",
        SCALING,
    ),
    Section(
        "Start-up",
        """\
Each command runs in a fresh process, in turn, five times; the files are in the system's cache. Generating is work,
not start-up, and is taken off the time to the first optimiser step.
""",
        ("startup",),
    ),
    Section(
        "The paper's scale",
        """\
`configs/split_cifar10.yaml -c configs/trainer/gpu.yaml` with 50,000 steps an expert, `model.compile true` and
generating in bfloat16, by `exml fit`: stopped by SIGTERM before 10 minutes are over, and gone on with by the same
command. The seconds of all pieces are added up, with the starts of each.
""",
        ("paper_scale",),
    ),
)


def render(results: dict[str, Any], stem: str = "performance") -> str:
    """Write the page.

    Args:
        results: Of each device, of each part that was run there, its ``result`` and what it was run on (``about``).
        stem: Name of the page, without suffix.
    """
    blocks = [HEAD.format(stem=stem)]
    if not results.keys() - {"cpu"}:
        blocks.append("No GPU was at hand: all figures are a CPU's.\n")
    for section in SECTIONS:
        blocks += [f"## {section.title}\n", section.prose]
        for device, measured in results.items():
            blocks += _block(section, device, measured, stem)
        if not any(part in measured for measured in results.values() for part in section.parts):
            blocks.append("Not measured.\n")
    rows = [
        {"device": device, "part": part, **content["about"]}
        for device, measured in results.items()
        for part, content in measured.items()
    ]
    blocks += ["## Measured on\n", table(rows)]
    return "\n".join(blocks)


def _block(section: Section, device: str, measured: dict[str, Any], stem: str) -> list[str]:
    found = {part: measured[part]["result"] for part in section.parts if part in measured}
    if not found:
        return []
    blocks = [f"### {section.title}: {_name(device)}\n"]
    if any(part in SCALING for part in found):
        blocks.append(f"![seconds and memory of fits on {_name(device)}]({picture_name(stem, device)})\n")
    for part, result in found.items():
        for title, rows in result["tables"].items():
            blocks += [f"{title}:\n", table(rows)]
        if "note" in result:
            blocks.append(f"{result['note']}\n")
        if not result.get("finished", True):
            blocks.append(f"`{part}` is not finished.\n")
    blocks += [f"`{part}`: not measured.\n" for part in section.parts if part not in found]
    return blocks


def _name(device: str) -> str:
    return "CPU" if device == "cpu" else device


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write a table.

    Args:
        rows: A value by column; columns are in the order in which rows bring them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([cell(row.get(name)) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(value: Any) -> str:
    """Write a value: three digits of a number, a median with its spread, yes or no."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return f"{cell(value['median'])} ({cell(value['min'])} to {cell(value['max'])})"
    if isinstance(value, float):
        digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}" if abs(value) >= 0.01 else f"{value:.3f}"
        return digits.rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
