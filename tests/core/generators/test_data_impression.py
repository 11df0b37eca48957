import math

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import DataImpression
from exml_lightning.core.generators.data_impression import EPSILON, class_similarity, draw_dirichlet
from exml_lightning.core.rng import keyed_generator


@pytest.fixture
def expert_of(make_expert):
    """Makes an expert that says where its classifier is; its keyword arguments are those of `make_expert`."""

    def make(**options):
        expert = make_expert(**options)
        expert.classifier = str(len(expert.model) - 1)
        return expert

    return make


def generate(expert, n=6, **settings):
    generator = DataImpression(**{"steps": 30, "temperature": 1.0, **settings})
    return generator.generate(expert, n, keyed_generator("impression"))


def test_similarity_by_hand():
    # cosines: rows 0 and 1 at 90 degrees, rows 0 and 2 at 45, rows 1 and 2 at 45; lengths do not matter
    weights = torch.tensor([[2.0, 0.0], [0.0, 0.5], [3.0, 3.0]])
    half = math.sqrt(0.5)
    expected = [
        [1, 0, half],  # least is 0, most is 1: unchanged
        [0, 1, half],
        [0, 0, 1],  # both others are least alike
    ]
    torch.testing.assert_close(class_similarity(weights), torch.tensor(expected), atol=1e-5, rtol=0)
    weights = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # cosines of row 0: 1, -1, 0; scaled by (c + 1) / 2
    torch.testing.assert_close(class_similarity(weights)[0], torch.tensor([1.0, 0.0, 0.5]))


def test_dirichlet_has_the_moments_of_its_formula():
    alpha = torch.tensor([0.5, 1.0, 2.5])
    draws = draw_dirichlet(alpha.repeat(20000, 1), keyed_generator("dirichlet")).double()
    total = float(alpha.sum())
    assert draws.sum(dim=1).allclose(torch.ones(20000, dtype=torch.double), atol=1e-5)
    for k, a in enumerate(alpha.tolist()):
        assert draws[:, k].mean().item() == pytest.approx(a / total, abs=0.01)
        variance = a * (total - a) / (total**2 * (total + 1))
        assert draws[:, k].var().item() == pytest.approx(variance, rel=0.05)


def test_the_smallest_concentrations_still_draw_probabilities():
    draws = draw_dirichlet(torch.full((500, 5), EPSILON), keyed_generator())
    assert draws.isfinite().all()
    assert draws.sum(dim=1).allclose(torch.ones(500))
    assert draws.argmax(dim=1).bincount().min() > 70  # of 100 expected: no class wins the ties


def test_one_step_is_adam_on_the_divergence_written_out(expert_of):
    expert = expert_of(classes=(1, 3, 4), outputs=(0, 2, 1))
    buffer = generate(expert, 3, steps=1, temperature=2.0, l2=0.0, blur=0.0, lr=0.05, beta=[2.0])
    draws = keyed_generator("impression")
    columns = torch.randperm(3, generator=draws)
    torch.randperm(3, generator=draws)  # which sample takes which beta; there is one
    rows = expert.model[-1].weight[[0, 2, 1]]  # own classes only, in the order of `classes`
    unit = rows / rows.norm(dim=1, keepdim=True)
    cosine = unit @ unit.T
    scaled = torch.stack([(c - c.min()) / (c.max() - c.min()) for c in cosine])
    targets = draw_dirichlet(2.0 * scaled[columns] + EPSILON, draws)
    start = torch.randn(3, 1, 8, 8, generator=draws).clamp(-0.6, 1.4).requires_grad_()
    probabilities = torch.softmax(expert.model(start)[:, [0, 2, 1]] / 2, dim=1)
    loss = sum(
        q * (math.log(q) - probabilities[i, k].log())
        for i in range(3)
        for k, q in enumerate(targets[i].tolist())
        if q > 0
    )
    (gradient,) = torch.autograd.grad(loss, start)
    expected = (start - 0.05 * gradient / (gradient.abs() + 1e-8)).clamp(-0.6, 1.4)
    moved = (buffer.images - expected.detach()).abs()
    assert moved.max() < 1e-4
    assert buffer.labels.tolist() == [(1, 3, 4)[k] for k in targets.argmax(dim=1).tolist()]


def test_answers_come_near_the_targets_and_labels_are_their_likeliest_class(expert_of):
    expert = expert_of(classes=(1, 3, 4), outputs=(0, 2, 1))
    buffer = generate(expert, 30, steps=200, beta=[1.0], l2=0.0, blur=0.0)
    answers = expert(buffer.images).softmax(dim=1)
    assert (expert.classes[answers.argmax(dim=1)] == buffer.labels).float().mean() > 0.9
    # unlike model inversion's, not all answers are certain
    assert answers.amax(dim=1).min() < 0.9


@pytest.mark.parametrize("classes", [(1, 3), (0, 1, 2, 3)])
def test_each_beta_is_used_for_as_many_samples(classes, expert_of, monkeypatch):
    asked = []
    module = "exml_lightning.core.generators.data_impression.draw_dirichlet"
    monkeypatch.setattr(module, lambda c, generator: asked.append(c) or draw_dirichlet(c, generator))
    generate(expert_of(classes=classes), 80, steps=1, beta=[1.0, 5.0])
    # a class has similarity 1 with itself, which is the most
    betas, columns = asked[0].max(dim=1)
    assert sorted(betas.round().tolist()) == [1.0] * 40 + [5.0] * 40
    assert columns.bincount().tolist() == [80 // len(classes)] * len(classes)
    for column in range(len(classes)):  # and not by class
        assert set(betas[columns == column].round().tolist()) == {1.0, 5.0}


@pytest.mark.parametrize(("classes", "samples"), [((2,), 4), ((1, 3), 5), ((1, 3), 1)])
def test_few_classes_and_few_samples(expert_of, classes, samples):
    buffer = generate(expert_of(classes=classes), samples)
    assert len(buffer) == samples
    assert set(buffer.labels.tolist()) <= set(classes)
    assert buffer.images.isfinite().all()


def test_an_expert_without_a_named_linear_classifier_is_refused(make_expert):
    expert = make_expert()
    with pytest.raises(ExmlError, match="no `classifier` in its manifest"):
        generate(expert)
    expert.classifier = "0"
    with pytest.raises(ExmlError, match="'0' is Conv2d, not Linear"):
        generate(expert)
    expert.classifier = "somewhere"
    with pytest.raises(ExmlError, match="is NoneType, not Linear"):
        generate(expert)


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"beta": []}, {"beta": [1.0, torch.nan]}, {"temperature": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ExmlError, match=next(iter(wrong))):
        DataImpression(**wrong)
