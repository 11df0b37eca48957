"""The rows of the ablation: each changes something of the first, `configs/strategies/best.yaml`."""

from dataclasses import dataclass

ALONE = ("--model.normalize.others", "0")
UNFAMILIAR = ("--model.normalize.familiarity", "0")
AUGMENTED = ("--data.augmentation.shift", "0.06", "--data.augmentation.rotation", "10")
REFINED = ("--model.lambda_ce", "0.1", "--buffer.generator.steps", "10", "--buffer.generator.initial", "Strokes")
LEAVES = ("--buffer.generator.images", "DeadLeaves")
COLOURED_NOISE = ("--buffer.generator.images", "ColouredNoise")
MIXTURE = (
    "--buffer.generator.images",
    "{class_path: Mixture, init_args: {parts: [{class_path: Strokes}, {class_path: DeadLeaves}]}}",
)
COLOURS = (
    "--buffer.generator.images",
    "{class_path: Mixture, init_args: {parts: [{class_path: Strokes, init_args: {colour: true}}, "
    "{class_path: DeadLeaves}, {class_path: ColouredNoise}]}}",
)


@dataclass(frozen=True)
class Row:
    """One change.

    Args:
        what: For the table.
        options: Of `exml fit`, after those of the scenario.
        strategy: The strategy's file.
    """

    what: str
    options: tuple[str, ...] = ()
    strategy: str = "best"


LIKE_BEST = (
    *("--model.normalize", "NormalScores", "--model.lambda_ce", "0", "--model.optimizer.init_args.lr", "0.003"),
    *("--model.normalize.raw_logits", "0.3", "--model.normalize.familiarity", "1", "--data.batch_size", "64"),
)
"""What makes another strategy like the best: the same scale, no labels, the same rate and batch."""


ROWS = {
    "best": Row(
        "best.yaml: fresh strokes, quantiles, `raw_logits: 0.3`, `familiarity: 1`, `others: 0.1`, no augmentation, "
        "`start: average`, Adam 0.003, batch 64"
    ),
    "unfamiliar": Row("`familiarity: 0`", UNFAMILIAR),
    "half_familiar": Row("`familiarity: 0.5`", ("--model.normalize.familiarity", "0.5")),
    "alone": Row("`others: 0`", ALONE),
    "more": Row("`others: 0.2`", ("--model.normalize.others", "0.2")),
    "scores": Row("`raw_logits: 0`", ("--model.normalize.raw_logits", "0")),
    "more_logits": Row("`raw_logits: 1`", ("--model.normalize.raw_logits", "1")),
    "augmented": Row("augmentation as the scenario has it", AUGMENTED),
    "stored": Row("strokes stored in the buffer (5,000)", ("--buffer.generator.fresh", "false")),
    "stored_augmented": Row("the same, augmented", ("--buffer.generator.fresh", "false", *AUGMENTED)),
    "leaves": Row("dead leaves, `others: 0`", (*LEAVES, *ALONE)),
    "coloured_noise": Row("coloured noise, `others: 0`", (*COLOURED_NOISE, *ALONE)),
    "mixture": Row("half strokes, half dead leaves, `others: 0`", (*MIXTURE, *ALONE)),
    "colours": Row("coloured strokes, dead leaves, coloured noise, a third each, `others: 0`", (*COLOURS, *ALONE)),
    "noise": Row("Gaussian noise, stored, augmented, `others: 0`", LIKE_BEST, "noise"),
    "auxiliary": Row("auxiliary data, stored, augmented, `others: 0`", LIKE_BEST, "auxiliary"),
    "inversion": Row(
        "images of model inversion, augmented, `others: 0`",
        (*LIKE_BEST, "--buffer.generator.confidence", "0.99"),
        "model_inversion",
    ),
    "center": Row("`normalize: Center`", ("--model.normalize", "Center")),
    "standardize": Row("`normalize: Standardize`", ("--model.normalize", "Standardize")),
    "none": Row("`normalize: NoScale`", ("--model.normalize", "NoScale")),
    "labels": Row(
        "procedural.yaml (stored, augmented) with `lambda_ce: 0.1`", ("--model.lambda_ce", "0.1"), "procedural"
    ),
    "refined": Row(
        "strokes refined by 10 steps of inversion for each class, augmented, `others: 0`, `lambda_ce: 0.1`",
        (*LIKE_BEST, *REFINED),
        "model_inversion",
    ),
    "scratch": Row("`start: scratch`", ("--model.start", "scratch")),
    "expert": Row("`start: expert`", ("--model.start", "expert")),
    "kl": Row("`others: 0`, `loss: kl`, temperature 1", (*ALONE, "--model.loss", "kl", "--model.temperature", "1")),
    "faster": Row("Adam 0.01", ("--model.optimizer.init_args.lr", "0.01")),
    "slower": Row("Adam 0.001", ("--model.optimizer.init_args.lr", "0.001")),
    "batch": Row("half the steps of batch 128", ("--data.n_iter", "{half}", "--data.batch_size", "128")),
    "longer": Row("four times the steps", ("--data.n_iter", "{4x}")),
}
"""By name, in the order of the table."""
