"""One hue and one marker a strategy, the same in all figures."""

STYLES = {
    "model_inversion": ("#0072b2", "o"),
    "data_impression": ("#e69f00", "s"),
    "auxiliary": ("#009e73", "^"),
    "procedural": ("#56b4e9", "p"),
    "best": ("#6a3d9a", "H"),
    "refined": ("#00494f", "$r$"),
    "replay": ("#222222", "D"),
    "noise": ("#8c8c8c", "v"),
    "precomputed": ("#cc79a7", "8"),
    "oracle": ("#8c564b", "P"),
    "ensemble_average": ("#d62728", "X"),
    "probability_average": ("#ff9896", "<"),
    "min_entropy": ("#9467bd", "h"),
    "concat": ("#17becf", ">"),
    "parameter_average": ("#7f7f00", "*"),
    "parameter_average_batch_norm": ("#bcbd22", "d"),
}
_OTHERS = ("#b15928", "$a$"), ("#33a02c", "$b$"), ("#fb9a99", "$c$"), ("#a6cee3", "$d$"), ("#fdbf6f", "$e$")


def styles_of(strategies: list[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each strategy.

    Args:
        strategies: All strategies of the report, so that those of users look the same in all of its figures.
    """
    unknown = sorted(set(strategies) - STYLES.keys())
    return {**STYLES, **{name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(unknown)}}
