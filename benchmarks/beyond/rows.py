"""The rows of the ablation: each changes something of the first, `configs/strategies/best.yaml`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One change.

    Args:
        what: For the table.
        options: Of `exml fit`, after those of the scenario and of the strategy.
    """

    what: str
    options: tuple[str, ...] = ()


ROWS = {
    "best": Row("best.yaml"),
    "strokes": Row("strokes alone", ("--buffer.generator.images", "Strokes")),
    "leaves": Row("dead leaves alone", ("--buffer.generator.images", "DeadLeaves")),
    "coloured_noise": Row("coloured noise alone", ("--buffer.generator.images", "ColouredNoise")),
    "small": Row("a buffer of 1,500 images", ("--buffer.size", "1500")),
    "unfamiliar": Row("`familiarity: 0`", ("--model.normalize.familiarity", "0")),
    "scores": Row("`raw_logits: 0`", ("--model.normalize.raw_logits", "0")),
    "reference": Row("logits compared with those of 1,000 strokes", ("--model.normalize.reference", "Strokes")),
    "center": Row("`normalize: Center`", ("--model.normalize", "Center")),
    "scratch": Row("`start: scratch`", ("--model.start", "scratch")),
    "average": Row("`start: average`", ("--model.start", "average")),
    "merged": Row("`start: merged`", ("--model.start", "merged")),
    "logits": Row("`loss: mse`", ("--model.loss", "mse")),
    "short": Row("200 steps an expert", ("--data.n_iter", "200")),
}
"""By name, in the order of the table."""
