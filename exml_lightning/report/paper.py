"""Tables 2 and 3 of the paper: their rows, their columns and their figures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """A row of the tables.

    Args:
        key: Its name in run folders.
        title: Its name in tables and figures; the paper's where it has one.
        ex_model: Whether it keeps the constraints of the ex-model scenario: one model, no original data. None where
            that is not known.
        in_table: Whether it is a row of the paper's tables.
    """

    key: str
    title: str
    ex_model: bool | None
    in_table: bool = False


STRATEGIES = (
    Strategy("oracle", "Oracle", ex_model=False, in_table=True),
    Strategy("ensemble_average", "Ensemble Avg.", ex_model=False, in_table=True),
    Strategy("min_entropy", "Min Entropy", ex_model=False, in_table=True),
    Strategy("parameter_average", "Param. Avg.", ex_model=True, in_table=True),
    Strategy("model_inversion", "Model Inversion ED", ex_model=True, in_table=True),
    Strategy("data_impression", "Data Impression ED", ex_model=True, in_table=True),
    Strategy("auxiliary", "Aux. Data ED", ex_model=True, in_table=True),
    Strategy("procedural", "Procedural ED", ex_model=True),
    Strategy("best", "Procedural ED, best", ex_model=True),
    Strategy("refined", "Procedural ED, refined", ex_model=True),
    Strategy("replay", "Replay ED", ex_model=False),
    Strategy("probability_average", "Probability Avg.", ex_model=False),
    Strategy("concat", "Concat", ex_model=False),
    Strategy("parameter_average_batch_norm", "Param. Avg., batch norm", ex_model=True),
    Strategy("noise", "Noise ED", ex_model=True),
)
"""Rows in their order; those of the paper's tables first."""

TABLE_2 = ("joint_mnist", "split_mnist", "joint_cifar10", "split_cifar10", "mt_cifar10")
TABLE_3 = ("joint_core50", "core50_nc", "core50_ni", "core50_nic")

_ROWS = tuple(row.key for row in STRATEGIES if row.in_table)
_COLUMNS: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "joint_mnist": ((93.71, 0.28), None, None, None, (93.09, 1.43), (92.12, 0.88), (89.35, 0.18)),
    "split_mnist": (
        *((99.42, 0.19), (33.40, 4.74), (39.41, 5.27), (20.11, 0.97)),
        *((43.23, 3.00), (36.05, 6.74), (35.48, 6.35)),
    ),
    "joint_cifar10": ((87.37, 1.11), None, None, None, (64.55, 3.25), (52.64, 5.82), (76.94, 2.68)),
    "split_cifar10": (
        *((96.58, 0.86), (51.85, 2.37), (52.03, 2.67), (10.00, 0.00)),
        *((17.40, 3.96), (24.70, 6.85), (41.35, 5.83)),
    ),
    "mt_cifar10": ((96.58, 0.86), None, None, (51.85, 2.37), (61.71, 7.52), (61.15, 3.92), (60.72, 3.70)),
    "joint_core50": ((85.73, 0.29), None, None, None, (50.06, 2.76), (52.91, 2.09), (81.82, 0.29)),
    "core50_nc": (
        *((96.04, 1.08), (26.30, 1.38), (42.41, 0.96), (2.00, 0.00)),
        *((33.10, 1.93), (17.57, 3.57), (34.87, 1.16)),
    ),
    "core50_ni": (
        *(None, (69.92, 0.70), (61.36, 1.86), (2.00, 0.00)),
        *((44.38, 4.93), (43.26, 2.36), (44.51, 2.91)),
    ),
}
FIGURES = {
    (scenario, row): figures
    for scenario, column in _COLUMNS.items()
    for row, figures in zip(_ROWS, column, strict=True)
    if figures is not None
}
"""Mean and standard deviation in % by scenario and strategy, as printed; nothing where the paper has a dash."""

DAMAGED = ("mt_cifar10", "parameter_average")
"""The one figure that cannot be trusted: the text we have of the paper is damaged there."""
DAMAGED_NOTE = (
    "The paper's Param. Avg. of mt_cifar10 is damaged in the text we have: 51.85 ± 2.37 stands there, which is the "
    "Ensemble Avg. of split_cifar10. It is shown with a question mark and not compared."
)

EXPERTS = {
    **dict.fromkeys(("joint_mnist", "joint_cifar10", "joint_core50"), 1),
    **dict.fromkeys(("split_mnist", "split_cifar10", "mt_cifar10"), 5),
    "core50_nc": 9,
    "core50_ni": 8,
}
"""Experts that the paper's scenarios have."""

_NEED_SEVERAL_EXPERTS = {
    "ensemble_average",
    "min_entropy",
    "parameter_average",
    "probability_average",
    "concat",
    "parameter_average_batch_norm",
}


def has_figures(scenario: str) -> bool:
    """Tell whether the paper's tables have a column for a scenario."""
    return scenario in _COLUMNS


def is_defined(scenario: str, strategy: str) -> bool:
    """Tell whether a strategy means anything in a scenario of the paper (docs/baselines.md).

    Args:
        scenario: Name of the scenario.
        strategy: Name of the strategy.

    Returns:
        False for the ensemble of a single expert, for the oracle where a class has several experts, and for batch norm
        measured anew in LeNet5, which has none.
    """
    if strategy in _NEED_SEVERAL_EXPERTS and scenario in ("joint_mnist", "joint_cifar10", "joint_core50"):
        return False
    if strategy == "parameter_average_batch_norm" and scenario == "split_mnist":
        return False
    return not (strategy == "oracle" and scenario in ("core50_ni", "core50_nic"))


def rows_of(present: set[str], whole: bool) -> list[Strategy]:
    """Return the rows of a table, in order.

    Args:
        present: Strategies that there are runs of; those that are not known here come last.
        whole: Also return the known ones that there are no runs of.
    """
    known = [row for row in STRATEGIES if whole or row.key in present]
    keys = {row.key for row in STRATEGIES}
    return known + [Strategy(key, title_of(key), ex_model=None) for key in sorted(present - keys)]


def title_of(strategy: str) -> str:
    """Return the name of a strategy in tables and figures."""
    titles = {row.key: row.title for row in STRATEGIES}
    return titles.get(strategy, strategy.replace("_", " ").capitalize())


def order_of(strategy: str) -> tuple[int, str]:
    """Return what sorts strategies into the order of the tables."""
    keys = [row.key for row in STRATEGIES]
    return (keys.index(strategy) if strategy in keys else len(keys), strategy)
