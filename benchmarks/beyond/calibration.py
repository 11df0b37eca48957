"""How far the stored experts go when their logits are put on one scale, and what bounds it.

    python -m benchmarks.beyond.calibration [RUN ...] [--scenario split_mnist] [--root data] [--images 5000]

Nothing is learned: all experts are kept and asked about the test stream; half a minute a run for LeNet5. With what the
experts of a run say of procedural images as the reference:

- `logits`, `center`, `quantile`: of each class the logit of the expert that owns it (concat), raw, less the mean of its
  expert's, as normal score among the reference;
- by the drawings of best.yaml also `standardised`, and normal scores as there: with a share of the logits, and with how
  familiar an image is to the expert, by what training changed in it and, for comparison, by its weights as they are;
- **bounds**, which see the labels of the test stream and are no methods: the best scale and offset for each class, and
  the best linear map of all scores.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.cli.lightning_cli import StreamCLI
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import LayerShares
from exml_lightning.core.generators.unrelated import DRAWINGS
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, ProceduralImages, Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.scales import ExpertScores, NormalScores, ScoreWeights
from exml_lightning.core.score_table import ScoreTable
from exml_lightning.data import ExpertStream
from exml_lightning.files import write_text

RESULTS = Path("docs/calibration.json")
KINDS: dict[str, ProceduralImages] = {
    "strokes": Strokes(),
    "leaves": DeadLeaves(),
    "coloured noise": ColouredNoise(),
    "drawings": DRAWINGS,
}
BEST = NormalScores().score_weights()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beyond.calibration", description=__doc__)
    parser.add_argument("runs", nargs="*", type=int, metavar="RUN")
    parser.add_argument("--scenario", default="split_mnist")
    parser.add_argument("--root", default="data", help="Folder of the data sets.")
    parser.add_argument("--experts", default="checkpoints/{scenario}/run{run}", help="Folders of the experts.")
    parser.add_argument("--images", type=int, default=5000, help="Of each kind of reference.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = json.loads(given.results.read_text()) if given.results.is_file() else {}
    for run in given.runs or range(5):
        experts = given.experts.format(scenario=given.scenario, run=run)
        results[f"{given.scenario} run {run}"] = measure(given.scenario, run, given.root, experts, given.images)
        write_text(given.results, json.dumps(results, indent=2) + "\n")
        write_text(given.results.with_suffix(".md"), table(results))
    print(table(results))


def measure(scenario: str, run: int, root: str, folder: str, num_images: int) -> dict[str, float]:
    """Ask all experts of a run about its test stream and about references.

    Args:
        scenario: Name of the scenario.
        run: The run.
        root: Folder of the data sets.
        folder: Folder of the experts.
        num_images: Images a reference.

    Returns:
        Stream accuracy in % by what was done.
    """
    stream = _stream(scenario, run, root, folder)
    device, num_classes = torch.device("cpu"), len(stream.manifest.class_names)
    experts = [stream.load_expert(k, device) for k in range(len(stream.manifest.experts))]
    batches = [batch for loader in stream.val_dataloader() for batch in loader]
    labels = torch.cat([batch.labels for batch in batches])
    images = torch.cat([batch.images for batch in batches])
    asked = [_ask(expert, images) for expert in experts]

    def concat(parts: Iterable[Tensor]) -> Tensor:
        scores = torch.zeros(len(labels), num_classes)
        for expert, part in zip(experts, parts, strict=True):
            scores[:, expert.classes] = part
        return scores

    found = {
        "logits": concat(logits for logits, _, _ in asked),
        "center": concat(logits - logits.mean(dim=1, keepdim=True) for logits, _, _ in asked),
    }
    for name, kind in KINDS.items():
        drawn = kind.draw(num_images, stream.manifest.input.shape, keyed_generator("reference", run), device)
        references = [_ask(expert, stream.manifest.input.to_input(drawn)) for expert in experts]
        pairs = list(zip(references, asked, strict=True))
        found[f"quantile, {name}"] = concat(ScoreTable(r[0])(a[0]) for r, a in pairs)
    # the last kind: the drawings of best.yaml
    found["standardised, drawings"] = concat((a[0] - r[0].mean(dim=0)) / r[0].std(dim=0) for r, a in pairs)
    alone = ScoreWeights(BEST.raw_logits)
    found["quantile and logits, drawings"] = concat(_scored(alone, r, a) for r, a in pairs)
    found["the same, and familiarity (best.yaml)"] = concat(_scored(BEST, r, a) for r, a in pairs)
    far = ScoreWeights(BEST.raw_logits, 1000 * BEST.familiarity)
    found["familiarity alone"] = concat(_scored(far, r, a) for r, a in pairs)
    for expert in experts:
        expert.initial = expert.guess_initial = None
    pairs = [(_ask(expert, stream.manifest.input.to_input(drawn)), _ask(expert, images)) for expert in experts]
    found["familiarity by the weights as they are, in its place"] = concat(_scored(BEST, r, a) for r, a in pairs)
    figures = {name: _accuracy(scores, labels) for name, scores in found.items()}
    best = found["quantile, drawings"]
    figures["bound: scale and offset a class"] = _fitted(best, labels, own_scale=True)
    figures["bound: linear in the scores"] = _fitted(best, labels)
    return figures


def _stream(scenario: str, run: int, root: str, folder: str) -> ExpertStream:
    files = ["-c", f"configs/{scenario}.yaml", "-c", "configs/trainer/cpu.yaml"]
    options = ["--data.run_id", str(run), "--data.root", root, "--data.experts", folder]
    cli = StreamCLI("experts", [*files, *options])
    stream: ExpertStream = cli.datamodule
    stream.trainer = cli.trainer
    stream.setup("test")
    return stream


def _ask(expert: Expert, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the expert's logits of its classes, the shares of its layers, and how much each of these counts."""
    shares = LayerShares(expert)
    logits, taken_in = zip(*(shares(expert, part) for part in images.split(expert.chunk)), strict=True)
    return torch.cat(logits), torch.cat(taken_in), shares.weights


def _scored(
    weights: ScoreWeights, reference: tuple[Tensor, Tensor, Tensor], asked: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    return ExpertScores(weights, *reference)(*asked[:2])


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return 100 * float((scores.argmax(dim=1) == labels).float().mean())


def _fitted(inputs: Tensor, labels: Tensor, own_scale: bool = False) -> float:
    """Accuracy of the best linear map by cross-entropy, fitted to the very samples it is measured on."""
    inputs = (inputs - inputs.mean(dim=0)) / inputs.std(dim=0).clamp_min(1e-6)
    classes = int(labels.max()) + 1
    weight = (torch.ones(classes) if own_scale else torch.zeros(inputs.shape[1], classes)).requires_grad_()
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)

    def scores() -> Tensor:
        return inputs * weight + bias if own_scale else inputs @ weight + bias

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(scores(), labels)
        value.backward()
        return value

    optimizer.step(loss)
    return _accuracy(scores().detach(), labels)


def table(results: dict[str, dict[str, float]]) -> str:
    """Render the results as Markdown, a column a run.

    Args:
        results: By scenario and run, as `measure` returns them.
    """
    rows = list(dict.fromkeys(name for figures in results.values() for name in figures))
    lines = [f"| stored experts | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    for name in rows:
        cells = [f"{figures[name]:.1f}" if name in figures else "-" for figures in results.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
