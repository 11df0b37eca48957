"""Tables 2 and 3 of the paper: their rows, their columns and their figures."""

TITLES = {
    "oracle": "Oracle",
    "ensemble_average": "Ensemble Avg.",
    "min_entropy": "Min Entropy",
    "parameter_average": "Param. Avg.",
    "model_inversion": "Model Inversion ED",
    "data_impression": "Data Impression ED",
    "auxiliary": "Aux. Data ED",
    "procedural": "Procedural ED",
    "best": "Procedural ED, best",
    "best_with_statistics": "Best, experts with statistics",
    "refined": "Procedural ED, refined",
    "photographs": "Unrelated photographs ED",
    "replay": "Replay ED",
    "probability_average": "Probability Avg.",
    "concat": "Concat",
    "merged": "Merged",
    "parameter_average_batch_norm": "Param. Avg., batch norm",
    "noise": "Noise ED",
}
"""Names of strategies in tables and figures, in the order of the rows; the first seven are those of the paper."""
PAPER_ROWS = tuple(TITLES)[:7]
NOT_EX_MODEL = {"oracle", "ensemble_average", "min_entropy", "replay", "probability_average", "concat"}
"""Strategies that do not keep the constraints of the ex-model scenario: one model, no original data."""

TABLE_2 = ("joint_mnist", "split_mnist", "joint_cifar10", "split_cifar10", "mt_cifar10")
TABLE_3 = ("joint_core50", "core50_nc", "core50_ni", "core50_nic")

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
    for row, figures in zip(PAPER_ROWS, column, strict=True)
    if figures is not None
}
"""Mean and standard deviation in % by scenario and strategy, as printed; nothing where the paper has a dash."""

DAMAGED = ("mt_cifar10", "parameter_average")
"""The one figure that cannot be trusted: the text we have of the paper is damaged there."""
DAMAGED_NOTE = (
    "The paper's Param. Avg. of mt_cifar10 is damaged in the text we have: 51.85 ± 2.37 stands there, which is the "
    "Ensemble Avg. of split_cifar10. It is shown with a question mark."
)

EXPERTS = {
    **dict.fromkeys(("joint_mnist", "joint_cifar10", "joint_core50"), 1),
    **dict.fromkeys(("split_mnist", "split_cifar10", "mt_cifar10"), 5),
    "core50_nc": 9,
    "core50_ni": 8,
}
"""Experts that the paper's scenarios have."""


def title_of(strategy: str) -> str:
    """Return the name of a strategy in tables and figures."""
    return TITLES.get(strategy, strategy.replace("_", " ").capitalize())


def order_of(strategy: str) -> tuple[int, str]:
    """Return what sorts strategies into the order of the tables; those of users come last."""
    return (list(TITLES).index(strategy) if strategy in TITLES else len(TITLES), strategy)


def is_ex_model(strategy: str) -> str:
    """Say whether a strategy keeps the constraints of the ex-model scenario; nothing of one that is not known."""
    return "" if strategy not in TITLES else "no" if strategy in NOT_EX_MODEL else "yes"
