"""Renders docs/reliability.md from the results of the parts."""

from collections.abc import Callable, Sequence
from typing import Any

HEAD = """\
# Reliability

What happens to a run when something goes wrong, and how often that was tried. This page is written by

    pip install -e ".[test]" && python -m benchmarks.reliability

which takes about three quarters of an hour on two cores and keeps its results in `reliability.json`. One part again
(`kills`, `random`, `disks`, `files`, `fuzz`, `stream` or `processes`):

    python -m benchmarks.reliability kills
"""

KILLS = """\
## Kills

A fit over two of the shipped experts (a few optimiser steps each, a checkpoint every second step) is killed and
started again by the same command; so are `exml experts` and `exml generate`.

- **At file events.** Python's audit hook counts every file that is opened for writing, renamed, removed or made, and
  the process kills itself just before the n-th one: SIGKILL at every one of them, SIGTERM, Ctrl-C and a SIGKILL up to
  3 ms late at some. In a **torn write** the system stops the process (SIGXFSZ) when a file has a given number of
  bytes: once for each file, so that half of it is on disk.
- **Resumes** are killed as well, up to four times in a row.
- **At random moments** the real command is killed from outside, each run three times.

After each kill every file that has its final name is read to its end (checkpoints, safetensors, JSON, CSV, YAML and
the hashes in it, PNG). At the end the ex-model's weights and manifest, `accuracy_matrix.csv` and the measured part of
`summary.json` (of `experts` and `generate`: all files, of safetensors the tensors) must equal, byte for byte, those of
the job that was left alone, and no part of a file may be left in the run folder. The exit status must be
that of the signal: 143 for SIGTERM, 130 for Ctrl-C.
"""

DISKS = """\
## Full and read-only disks

Every write of a file into the run folder fails once, in its middle (`RLIMIT_FSIZE`); then the run folder or the cache
is a file system of its own (`tmpfs` in a user namespace) that is too small or read-only. A fit must end with status 1
and one line that names the file and the remedy, all files that were there must be whole, and the same command must
end with the same weights once there is room. A cache that cannot be written only costs the cache.
"""

FILES = """\
## Hostile and damaged files

Each file of a catalogue of hostile ones must be refused by one line of error before anything in it is run
([security.md](security.md) says what is trusted and what is not). Damaged manifests, buffer files and statistics, made
by hypothesis, must be read, or refused by a clear error.
"""

STREAM = """\
## Long streams

{experts} LeNet5 experts, each trained for one epoch on two of scikit-learn's ten digits by `exml experts`, are
learned in one run: with the digits' test stream (accuracy), and from the folder alone (agreement with each expert,
where the matrix has a column for each of them). Resident memory is that after each experience; processor time (one
thread) is that between the starts of two experiences, everything included: reading the expert, generating,
distilling, measuring, pictures, tables and checkpoints.

![memory, checkpoint and time over {experts} experts](long_stream.png)

None of the three may grow by more than a quarter from the second quarter of the stream to the last. The sawteeth and
spikes are Python's full garbage collections. What grows in a checkpoint is the hash of each expert learned and the
matrix; that of agreement has a number for each pair of experts. Means over the quarters of the stream:
"""

PROCESSES = """\
## Several processes

Two processes (gloo, on the CPU) against one with the same global batch.
"""

JOBS = {
    "fit": "`exml fit`, at file events",
    "experts": "`exml experts`, at file events",
    "generate": "`exml generate`, at file events",
    "random": "`exml fit`, the real command at random moments",
}
STREAMS = {"test stream": "with a scenario", "folder": "experts alone"}
QUANTITIES = {"memory_mb": "resident memory, MB", "checkpoint_kb": "checkpoint, kB", "seconds": "processor time, s"}
FAULTS = ("SIGKILL", "torn write", "SIGTERM", "Ctrl-C")


def render(results: dict[str, Any]) -> str:
    """Write the page.

    Args:
        results: Of each part that was run, its ``result`` and what it was run on (``about``).
    """
    found = {part: content["result"] for part, content in results.items()}
    sections = [HEAD, "## Counts\n", _table(["what", "tried", "promises not kept"], _counts(found))]
    renderers: dict[str, Callable[[dict[str, Any]], str]] = {"disks": _disks, "stream": _stream}
    for part in ("kills", "disks", "files", "stream", "processes"):
        if part == "kills" and part in found:
            sections.append(_kills(found))
        elif part == "files" and {"files", "fuzz"} & found.keys():
            sections.append(FILES)
        elif part == "processes" and part in found:
            sections.append(_processes(found[part]))
        elif part in renderers and part in found:
            sections.append(renderers[part](found[part]))
    failures = [f"- {part}: {line}" for part, result in found.items() for line in result["failures"]]
    if failures:
        sections.append("\n".join(["## Not as promised\n", *failures]) + "\n")
    rows = [
        [part, *(str(value) for value in content["about"].values()), str(len(content["result"]["failures"]))]
        for part, content in results.items()
    ]
    names = list(next(iter(results.values()))["about"])
    sections += ["## Measured on\n", _table(["part", *names, "not as promised"], rows)]
    return "\n".join(sections)


def _counts(found: dict[str, Any]) -> list[list[str]]:
    rows = []

    def add(what: str, tried: int, failures: int) -> None:
        rows.append([what, f"{tried:,}", f"{failures:,}"])

    for name, title in JOBS.items():
        tally = found.get("random") if name == "random" else found.get("kills", {}).get(name)
        if tally is not None:
            add(f"kills of {title}", tally["kills"], len(tally["failures"]))
    if "disks" in found:
        disks = found["disks"]
        tried = disks["failing writes"] + len(disks["mounted"])
        add("writes that fail, disks that are full or read-only", tried, len(disks["failures"]))
    if "files" in found:
        add("hostile files", found["files"]["tried"], len(found["files"]["failures"]))
    for name in ("manifest.yaml", "buffer file", "statistics"):
        if name in found.get("fuzz", {}):
            counts = found["fuzz"][name]
            what = f"damaged files, {name} ({counts['refused']:,} refused, {counts['accepted']:,} as good as whole)"
            add(what, counts["tried"], counts["tried"] - counts["refused"] - counts["accepted"])
    if "stream" in found:
        add(f"streams of {found['stream']['experts']} experts", len(STREAMS), len(found["stream"]["failures"]))
    if "processes" in found:
        result = found["processes"]
        add("one of two processes killed", len(result["killed"]), len(result["failures"]))
    return rows


def _kills(found: dict[str, Any]) -> str:
    tallies = {name: found["kills"][name] for name in ("fit", "experts", "generate")}
    if "random" in found:
        tallies["random"] = found["random"]
    rows = [
        [JOBS[job].partition(",")[0], place, *(str(counts.get(fault, "")) for fault in FAULTS)]
        for job, tally in tallies.items()
        for place, counts in sorted(tally["struck"].items())
    ]
    statuses = [
        [JOBS[job], *(_statuses(tally["statuses"].get(fault, {})) for fault in FAULTS)]
        for job, tally in tallies.items()
    ]
    lost, rows_of_metrics = (sum(tally[name] for tally in tallies.values()) for name in ("rows_lost", "rows"))
    note = (
        f"\nOf {rows_of_metrics:,} rows of `metrics.csv` that these fits should have written, {lost} were lost:\n"
        "Lightning logs a step just after its checkpoint is written, and a kill in between costs that row. No row is\n"
        "there twice.\n"
    )
    return "\n".join(
        [
            KILLS,
            _table(["job", "file", *FAULTS], rows),
            "Exit statuses (how often):\n",
            _table(["", *FAULTS], statuses) + note,
        ]
    )


def _statuses(counts: dict[str, int]) -> str:
    return ", ".join(f"{status} ({count})" for status, count in counts.items())


def _disks(result: dict[str, Any]) -> str:
    lines = [DISKS]
    if result["mounted"]:
        lines.append(_table(["case", "what it says"], [[case, f"`{message}`"] for case, message in result["mounted"]]))
    else:
        lines.append("File systems of their own could not be mounted on this machine.\n")
    return "\n".join(lines)


def _stream(result: dict[str, Any]) -> str:
    rows = [
        [f"{label}, {title}", *(f"{mean:,.2f}" for mean in result[kind][name])]
        for kind, title in STREAMS.items()
        for name, label in QUANTITIES.items()
    ]
    headings = ["", "first quarter", "second", "third", "last"]
    return STREAM.format(experts=result["experts"]) + "\n" + _table(headings, rows)


def _processes(result: dict[str, Any]) -> str:
    rows = [
        ["buffers of both processes and of one", f"equal, bit for bit ({result['buffers']} compared)"],
        ["weights of the ex-model, largest difference", f"{result['apart']:.1e}"],
        ["two processes, resumed after the first experience", "equal, bit for bit"],
    ]
    for killed in result["killed"]:
        what = f"process {killed['process']} killed (SIGKILL): all ended after {killed['seconds']:.1f} s"
        rows.append([what, f"status {killed['status']}; the same command ends as if nothing had happened"])
    return PROCESSES + "\n" + _table(["what", "result"], rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
