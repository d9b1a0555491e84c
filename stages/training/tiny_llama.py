"""A small Llama written for fast pre-training on a CPU; its weights become an ordinary transformers Llama.

Shapes: B rows, T tokens, H hidden size, N heads of size D, I intermediate size, L layers, V vocabulary.

Where a layer takes a millisecond, autograd's bookkeeping, fresh memory and float32 copies cost more than the
arithmetic. So weights of one shape are stacked (the optimizer then handles each stack in one go), activations are
bfloat16, and attention, SwiGLU and cross-entropy have backward passes of their own. Rotary embeddings, RMSNorm and
weight layout are those of transformers' LlamaForCausalLM; a test compares the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # its usual name
from torch import Tensor

from stages.training.recipe import Shape

NORM_EPSILON = 1e-6
ROPE_THETA = 10000.0
POSITIONS_STEP = 512


@dataclass
class Weights:
    """All parameters, float32, stacked by shape."""

    embedding: Tensor  # [V, H], also the output layer
    norms: Tensor  # [2 L + 1, H]: before attention and before the MLP of each layer, and the last one
    attention: Tensor  # [L, 4, H, H]: query, key, value, output
    mlp: Tensor  # [L, 3, I, H]: gate, up, and down transposed

    def tensors(self) -> list[Tensor]:
        return [self.embedding, self.norms, self.attention, self.mlp]


def initial_weights(shape: Shape, generator: torch.Generator) -> Weights:
    """Normal with deviation 0.02, as transformers initialises a Llama; norms are 1."""

    def normal(*size: int) -> Tensor:
        return torch.empty(*size).normal_(0.0, 0.02, generator=generator).requires_grad_()

    return Weights(
        normal(shape.vocabulary, shape.hidden),
        torch.ones(2 * shape.layers + 1, shape.hidden).requires_grad_(),
        normal(shape.layers, 4, shape.hidden, shape.hidden),
        normal(shape.layers, 3, shape.intermediate, shape.hidden),
    )


class Positions:
    """What depends on positions alone: rotary embeddings (Su et al., 2021, arXiv:2104.09864) and the causal mask.

    The half-rotated copy of a projection x W^T is x (R W)^T, with R a signed permutation of W's rows. Computing it
    as more columns of the same matrix product leaves two multiplications of whole rows, where turning halves of
    heads would walk through memory in steps of 16.
    """

    def __init__(self, num_tokens: int, shape: Shape, pad_id: int = 0) -> None:
        self.pad_id = pad_id
        size = shape.hidden // shape.heads
        frequencies = ROPE_THETA ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(num_tokens), frequencies).repeat(1, 2 * 2 * shape.heads)  # [T, 2 H]
        self.cos, self.sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        self.mask = torch.full((num_tokens, num_tokens), -math.inf).triu(1).bfloat16()  # [T, T]
        rows = torch.arange(shape.hidden).view(shape.heads, 2, size // 2)
        self.turned_rows = rows.flip(1).flatten()
        self.turned_signs = torch.tensor([-1.0, 1.0]).repeat_interleave(size // 2).repeat(shape.heads)[:, None]

    def widened(self, attention: Tensor) -> Tensor:
        """Weights [4, H, H] of a layer -> [5 H, H]: query, key, turned query, turned key, value."""
        query_key = attention[:2]
        turned = query_key[:, self.turned_rows] * self.turned_signs.to(attention.dtype)
        return torch.cat([query_key, turned, attention[2:3]]).flatten(0, 1)


class Attention(torch.autograd.Function):
    """Causal softmax attention over `widened` projections [B, T, 5 H] -> [B, T, H]."""

    @staticmethod
    def forward(ctx: Any, projections: Tensor, positions: Positions, heads: int) -> Tensor:
        num_rows, hidden = len(projections), projections.shape[-1] // 5
        plain, turned, value = torch.split(projections, [2 * hidden, 2 * hidden, hidden], dim=-1)
        rotated = torch.addcmul(plain * positions.cos, turned, positions.sin)
        q, k = (_by_head(x, heads) for x in rotated.chunk(2, dim=-1))
        v = _by_head(value, heads)
        scores = torch.baddbmm(positions.mask, q, k.transpose(1, 2), alpha=math.sqrt(heads / hidden))
        probabilities = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, probabilities)
        ctx.positions, ctx.heads = positions, heads
        return _by_token(probabilities @ v, num_rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, probabilities = ctx.saved_tensors
        num_rows, _, hidden = grad.shape
        grad = _by_head(grad, ctx.heads)
        grad_scores = torch._softmax_backward_data(grad @ v.transpose(1, 2), probabilities, -1, grad.dtype)
        grad_q = (grad_scores @ k) * math.sqrt(ctx.heads / hidden)
        grad_k = (grad_scores.transpose(1, 2) @ q) * math.sqrt(ctx.heads / hidden)
        rotated = torch.cat([_by_token(grad_q, num_rows), _by_token(grad_k, num_rows)], dim=-1)
        value = _by_token(probabilities.transpose(1, 2) @ grad, num_rows)
        return torch.cat([rotated * ctx.positions.cos, rotated * ctx.positions.sin, value], dim=-1), None, None


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B, T, N D] -> [B N, T, D]"""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2).flatten(0, 1)


def _by_token(x: Tensor, num_rows: int) -> Tensor:
    """[B N, T, D] -> [B, T, N D]"""
    return x.view(num_rows, -1, *x.shape[1:]).transpose(1, 2).flatten(2)


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up over gate_up [..., 2 I] -> [..., I] (Shazeer, 2020, arXiv:2002.05202)."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
        torch.ops.aten.silu_backward(grad * up, gate, grad_input=grad_gate)
        torch.mul(grad, active, out=grad_up)
        return grad_gate_up


class WeightedCrossEntropy(torch.autograd.Function):
    """Sum over positions of weight * -log p(target), from hidden states [P, H] and the embedding [V, H]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        logits = (hidden @ embedding.t()).float()
        probabilities = torch.softmax(logits, dim=-1)
        chosen = probabilities.gather(1, targets[:, None])
        ctx.save_for_backward(hidden, embedding, targets, weights, probabilities)
        return -(chosen.squeeze(1).log() * weights).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, embedding, targets, weights, probabilities = ctx.saved_tensors
        probabilities.scatter_add_(1, targets[:, None], -torch.ones_like(weights)[:, None])
        grad_logits = (probabilities * (weights * grad)[:, None]).bfloat16()
        return grad_logits @ embedding, grad_logits.t() @ hidden, None, None


# torch leaves `apply` untyped
_attend: Callable[..., Tensor] = Attention.apply
_swiglu: Callable[..., Tensor] = SwiGLU.apply
_cross_entropy: Callable[..., Tensor] = WeightedCrossEntropy.apply


def hidden_states(weights: Weights, ids: Tensor, shape: Shape, positions: Positions) -> Tensor:
    """ids [B, T] -> normalised states of the last layer [B, T, H], bfloat16."""
    norms = weights.norms.bfloat16().unbind(0)
    layers = zip(weights.attention.bfloat16().unbind(0), weights.mlp.bfloat16().unbind(0), strict=True)
    h = F.embedding(ids, weights.embedding).bfloat16()
    for number, (attention, mlp) in enumerate(layers):
        gate_up, down = mlp[:2], mlp[2]
        x = F.rms_norm(h, (shape.hidden,), norms[2 * number], NORM_EPSILON)
        mixed: Tensor = _attend(F.linear(x, positions.widened(attention)), positions, shape.heads)
        h = h + F.linear(mixed, attention[3])
        x = F.rms_norm(h, (shape.hidden,), norms[2 * number + 1], NORM_EPSILON)
        active: Tensor = _swiglu(F.linear(x, gate_up.flatten(0, 1)))
        h = h + active @ down
    return F.rms_norm(h, (shape.hidden,), norms[-1], NORM_EPSILON)


def weighted_loss(weights: Weights, ids: Tensor, loss_weights: Tensor, shape: Shape, positions: Positions) -> Tensor:
    """Sum of weighted negative log-likelihoods of tokens 1.. given those before; positions of weight 0 cost nothing.

    ids [B, T]; loss_weights [B, T], of the token at the same place (the first column is not used).
    """
    states = hidden_states(weights, ids, shape, positions)[:, :-1].reshape(-1, shape.hidden)
    flat = loss_weights[:, 1:].reshape(-1)
    kept = _fill_up(flat.nonzero().squeeze(1), flat)
    targets = ids[:, 1:].reshape(-1)[kept]
    loss: Tensor = _cross_entropy(states.index_select(0, kept), weights.embedding.bfloat16(), targets, flat[kept])
    return loss


def _fill_up(kept: Tensor, flat: Tensor) -> Tensor:
    """Adds positions of weight 0 up to a round number: for each new shape oneDNN compiles, and keeps, new kernels."""
    missing = -len(kept) % POSITIONS_STEP
    return torch.cat([kept, (flat == 0).nonzero().squeeze(1)[:missing]])


def to_transformers(weights: Weights, shape: Shape, special_ids: dict[str, int]) -> Any:
    """The same model as a transformers LlamaForCausalLM in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        **special_ids,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(_state_dict(weights, shape), strict=False)
    model.tie_weights()
    return model


def _state_dict(weights: Weights, shape: Shape) -> dict[str, Tensor]:
    state = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.norms[-1]}
    for number in range(shape.layers):
        layer, attention, mlp = f"model.layers.{number}", weights.attention[number], weights.mlp[number]
        state[f"{layer}.input_layernorm.weight"] = weights.norms[2 * number]
        state[f"{layer}.post_attention_layernorm.weight"] = weights.norms[2 * number + 1]
        for name, matrix in zip("qkvo", attention, strict=True):
            state[f"{layer}.self_attn.{name}_proj.weight"] = matrix
        for name, matrix in zip(("gate", "up", "down"), (mlp[0], mlp[1], mlp[2].t()), strict=True):
            state[f"{layer}.mlp.{name}_proj.weight"] = matrix
    return {key: value.detach() for key, value in state.items()}
