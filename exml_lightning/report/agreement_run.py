"""A run of a stream without a data set: how far the ex-model agrees with its experts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exml_lightning.report.run import Row, check_finished, read_matrix, strategy_of
from exml_lightning.report.small_files import broken, is_fraction, is_whole, read_json, read_yaml


@dataclass(frozen=True)
class AgreementRun:
    """A finished run without a scenario.

    Args:
        folder: Its folder, as it was found.
        strategy: Name of the strategy.
        run_id: Which of the runs.
        results: Its `summary.json`.
        over_time: Its `agreement_matrix.csv`: columns are experts, the last one is their mean.
    """

    folder: Path
    strategy: str
    run_id: int
    results: dict[str, Any]
    over_time: tuple[Row, ...]

    @property
    def agreement(self) -> float:
        """Mean agreement with the experts in %."""
        return 100 * float(self.results["agreement"])


def read_agreement_run(folder: Path) -> AgreementRun:
    """Read one run of a stream without a scenario.

    Args:
        folder: Its folder; `read_run` has said that it is one.

    Raises:
        ExmlError: If a file is missing or broken, or the run is unfinished.
    """
    config, path = read_yaml(folder / "config.yaml"), folder / "summary.json"
    results = read_json(path)
    buffer, run_id, experts = config["buffer"], config["data"].get("run_id", 0), results.get("experts")
    if not isinstance(buffer, dict) or not is_whole(run_id):
        raise broken(folder / "config.yaml", "buffer is no mapping or data.run_id no number of a run")
    if not is_fraction(results.get("agreement")) or not is_whole(experts, 1):
        raise broken(path, "agreement or experts is missing")
    check_finished(folder, path, results)
    strategy = strategy_of(buffer.get("generator"), buffer.get("name"), folder)
    return AgreementRun(
        folder, strategy, run_id, results, read_matrix(folder / "agreement_matrix.csv", experts, "mean")
    )
