"""The fast Llama computes what transformers' Llama computes, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from stages.training.induction import lay_induction_circuit
from stages.training.muon import Muon, orthogonalised
from stages.training.packing import pack_rows
from stages.training.recipe import Shape
from stages.training.tiny_llama import (
    Positions,
    Weights,
    hidden_states,
    initial_weights,
    to_transformers,
    weighted_loss,
)

SHAPE = Shape(vocabulary=96, hidden=64, intermediate=96, layers=2, heads=4, max_positions=64)


@pytest.fixture
def weights() -> Weights:
    weights = initial_weights(SHAPE, torch.Generator().manual_seed(0))
    for stack in (weights.attention, weights.mlp):
        stack.data.mul_(4)  # so that attention and MLP matter
    return weights


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 96, (3, 40), generator=torch.Generator().manual_seed(1))


def test_number_of_parameters(weights: Weights) -> None:
    assert sum(t.numel() for t in weights.tensors()) == SHAPE.num_parameters
    assert sum(p.numel() for p in to_transformers(weights, SHAPE, {}).parameters()) == SHAPE.num_parameters


def test_logits_are_those_of_transformers(weights: Weights, ids: torch.Tensor) -> None:
    reference = to_transformers(weights, SHAPE, {})(ids).logits
    states = hidden_states(weights, ids, SHAPE, Positions(40, SHAPE))
    assert (states.float() @ weights.embedding.t() - reference).abs().max() < 0.03 * reference.abs().max()


def test_gradients_are_those_of_transformers(weights: Weights, ids: torch.Tensor) -> None:
    loss_weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    loss = weighted_loss(weights, ids, loss_weights, SHAPE, Positions(40, SHAPE))
    loss.backward()
    model = to_transformers(weights, SHAPE, {})
    losses = cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    expected = (losses * loss_weights[:, 1:].flatten()).sum()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    layer = model.model.layers[1]
    assert weights.attention.grad is not None and weights.mlp.grad is not None and weights.embedding.grad is not None
    pairs = [
        (weights.embedding.grad, model.model.embed_tokens.weight.grad),
        *(
            (weights.attention.grad[1, n], getattr(layer.self_attn, f"{c}_proj").weight.grad)
            for n, c in enumerate("qkvo")
        ),
        (weights.mlp.grad[1, 0], layer.mlp.gate_proj.weight.grad),
        (weights.mlp.grad[1, 1], layer.mlp.up_proj.weight.grad),
        (weights.mlp.grad[1, 2].t(), layer.mlp.down_proj.weight.grad),
    ]
    for ours, theirs in pairs:
        assert cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(2, 48, 24, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.5 and values.max() < 1.3


def test_an_update_moves_a_stack_as_far_as_adamw_would() -> None:
    stack, other = torch.zeros(2, 1, 32, 32), torch.zeros(8)
    optimizer = Muon([stack], [other])
    optimizer.step([torch.randn(stack.shape, generator=torch.Generator().manual_seed(4)), torch.full((8,), 3.0)], 0.01)
    assert stack.square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.2)
    assert torch.allclose(other, torch.full((8,), -0.01), atol=1e-6)  # Adam's first step has the size of the rate


def test_rows_hold_whole_pieces() -> None:
    pieces = [([n] * n, [1.0] * n) for n in (3, 4, 5, 2, 6, 1)] * 20
    ids, weights = pack_rows(iter(pieces), num_rows=5, length=8, pad_id=0)
    assert ids.shape == (5, 8)
    for row, row_weights in zip(ids.tolist(), weights.tolist(), strict=True):
        kept = [n for n in row if n]
        assert all(kept.count(n) % n == 0 for n in set(kept))
        num_pieces = sum(kept.count(n) // n for n in set(kept))
        assert math.isclose(sum(row_weights), len(kept) - num_pieces)  # the first token of a piece weighs nothing
    assert (ids != 0).mean() > 0.8


def test_the_induction_circuit_looks_back_and_finds_what_was_there_before() -> None:
    shape = Shape(vocabulary=512, hidden=128, intermediate=96, layers=2, heads=4, max_positions=64)
    generator = torch.Generator().manual_seed(5)
    weights = initial_weights(shape, generator)
    lay_induction_circuit(weights, shape, generator)
    once = torch.stack([torch.randperm(512, generator=generator)[:24] for _ in range(8)])
    model = to_transformers(weights, shape, {})
    model.set_attn_implementation("eager")  # the only one that returns what it attends to
    first, second = model(torch.cat([once, once], dim=1), output_attentions=True).attentions
    at = torch.arange(25, 47)
    assert first[:, 0, at, at - 1].mean() > 0.8  # the token before
    assert second[:, 1, at, at - 23].mean() > 5 / 36  # the token after the same one; 1/36 were chance
