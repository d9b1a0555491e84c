"""The hybrid loss against its definitions; the kinds of the regression part against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.core.schema import Lora, Training
from stages.core.seeding import seed_everything
from stages.regression.number_head import NAME, add_head
from stages.regression.pair_prompts import PairRenderer
from stages.regression.settings import KINDS, LossSettings
from stages.regression.task import RegressionTask
from stages.training.lora import attach_lora
from stages.training.objective import NextToken, TokenRow
from stages.training.sft import train_lora

torch = pytest.importorskip("torch")

LORA = Lora(r=4, alpha=8, dropout=0.0, modules=["q_proj", "gate_proj"])
TEXTS = ["It rains.", "The tower wins.", "A.", "Nobody comes to the fair in the end.", "Snow"]


def training(**changes: Any) -> Training:
    values = {"learning_rate": 1e-2, "num_epochs": 1, "batch_size": 16, "max_length": 400, "num_threads": 1}
    return Training(**{**values, **changes})


def loss_settings(**changes: Any) -> LossSettings:
    values = {"kind": "crps", "weight": 10.0, "readout": "digits", "max_nodes": 64, "log_gradients_every": 1}
    return LossSettings(**{**values, **changes})


@pytest.fixture
def load(base_workspace: Any) -> Callable[[], Any]:
    from transformers import AutoModelForCausalLM

    return lambda: AutoModelForCausalLM.from_pretrained(base_workspace.read("models/base/random")).eval()


@pytest.fixture
def hybrid(task: RegressionTask, chat_tokenizer: Any) -> Callable[..., Any]:
    from stages.regression.hybrid import HybridLoss

    return lambda **changes: HybridLoss(PairRenderer(task, chat_tokenizer), chat_tokenizer, loss_settings(**changes))


@pytest.fixture
def rows(task: RegressionTask, chat_tokenizer: Any, hybrid: Callable[..., Any]) -> list[Any]:
    """Sixteen pairs of mixed lengths."""
    renderer, objective = PairRenderer(task, chat_tokenizer), hybrid()
    made = []
    for n in range(16):
        value = round(math.sin(n), 3)
        prompt = renderer.prompt_ids(TEXTS[n % 5] * (1 + n % 3), TEXTS[(n * 3 + 1) % 5]).input_ids
        made.append(objective.row(f"pair-{n}", prompt, renderer.answer_ids(value), value))
    return made


def batch_of(objective: Any, rows: list[Any]) -> Any:
    columns = objective.columns(rows)
    return objective.collate([{key: column[n] for key, column in columns.items()} for n in range(len(rows))])


def test_the_token_part_is_plain_cross_entropy(hybrid: Callable[..., Any], rows: list[Any], load: Any) -> None:
    model, objective, plain = load(), hybrid(), NextToken()
    with torch.no_grad():
        token = objective.parts(model, batch_of(objective, rows))["token"]
        usual = [TokenRow(row.id, row.input_ids + row.answer_ids, len(row.answer_ids)) for row in rows]
        expected = plain.parts(model, batch_of(plain, usual))["token"]
    assert int(token.num_items) == int(expected.num_items)
    torch.testing.assert_close(token.total, expected.total, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_sum_of_its_rows(hybrid: Callable[..., Any], rows: list[Any], load: Any, kind: str) -> None:
    model, objective = load(), hybrid(kind=kind)
    with torch.no_grad():
        together = objective.parts(model, batch_of(objective, rows))
        alone = [objective.parts(model, batch_of(objective, [row])) for row in rows]
    for name in ("token", "number"):
        torch.testing.assert_close(together[name].total, sum(one[name].total for one in alone), rtol=1e-4, atol=1e-4)
    assert float(together["number"].total) > 0


@pytest.mark.parametrize("readout", ["digits", "head"])
def test_accumulation_changes_nothing(
    hybrid: Callable[..., Any], rows: list[Any], load: Any, chat_tokenizer: Any, tmp_path: Path, readout: str
) -> None:
    """1 x 16 = 4 x 4, although the four batches hold different numbers of tokens."""
    objective = hybrid(kind="mse", readout=readout)
    weights, curves = [], []
    for batch_size, accumulation in ((16, 1), (4, 4)):
        model = load()
        if readout == "head":
            add_head(model)
        with train_lora(
            model,
            chat_tokenizer,
            rows,
            rows[:3],
            LORA,
            training(batch_size=batch_size, accumulation=accumulation, num_epochs=2),
            seed=1,
            base_sha256="",
            checkpoint_root=tmp_path / str(batch_size),
            objective=objective,
            also_trained=[NAME] if readout == "head" else [],
        ) as trained:
            weights.append([p.detach().clone() for p in trained.model.parameters() if p.requires_grad])
            curves.append(trained.curve[-1])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
    assert curves[0].parts == pytest.approx(curves[1].parts, rel=1e-3)
    assert curves[0].train_loss == pytest.approx(curves[1].train_loss, rel=1e-3)


def test_parts_and_their_gradients_are_logged(
    hybrid: Callable[..., Any], rows: list[Any], load: Any, chat_tokenizer: Any, tmp_path: Path
) -> None:
    objective = hybrid()
    arguments = {"seed": 1, "base_sha256": "", "checkpoint_root": tmp_path, "objective": objective}
    with train_lora(load(), chat_tokenizer, rows, rows, LORA, training(), **arguments) as trained:
        row = trained.curve[0]
    assert row.eval_loss == pytest.approx(row.parts["eval_token"] + 10 * row.parts["eval_number"])
    seed_everything(1)
    model = attach_lora(load(), LORA).train()
    for name in ("token", "number"):
        part = objective.parts(model, batch_of(objective, rows))[name]
        trained_weights = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(part.total / part.num_items, trained_weights, allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        assert row.parts[f"grad_norm_{name}"] == pytest.approx(norm, rel=1e-3)


def test_a_row_that_is_too_long_is_named(hybrid: Callable[..., Any], rows: list[Any]) -> None:
    with pytest.raises(DataError, match=r"row pair-0: \d+ tokens, max_length is 20"):
        hybrid().check(rows[0], 20)


def test_a_head_refuses_losses_of_distributions() -> None:
    with pytest.raises(ValueError, match="a head gives one number, no distribution: mse, mae, huber"):
        loss_settings(kind="crps", readout="head")


# ---- the kinds, on distributions that hypothesis draws --------------------------------------------------------------

LEAVES = [-1.0, -0.4, -0.1, 0.3, 1.0]
WEIGHTS = st.lists(st.floats(0.01, 1), min_size=5, max_size=5)


def one(kind: str, weights: list[float], value: float) -> float:
    from stages.regression.losses import distribution_loss

    probs = torch.tensor([weights], dtype=torch.float64)
    probs = probs / probs.sum()
    leaves = torch.tensor(LEAVES, dtype=torch.float64)
    return float(distribution_loss(kind, probs.log(), leaves, torch.tensor([value], dtype=torch.float64)))


@settings(deadline=None)
@given(WEIGHTS, st.floats(-1, 1))
def test_kinds_are_what_they_say(weights: list[float], value: float) -> None:
    p = [w / sum(weights) for w in weights]
    pairs = list(zip(p, LEAVES, strict=True))
    mean = sum(q * z for q, z in pairs)
    spread = sum(q * r * abs(z - y) for q, z in pairs for r, y in pairs)
    off = sum(q * abs(z - value) for q, z in pairs)
    assert one("mse", weights, value) == pytest.approx((mean - value) ** 2, abs=1e-9)
    assert one("mae", weights, value) == pytest.approx(abs(mean - value), abs=1e-9)
    assert one("wasserstein", weights, value) == pytest.approx(off, abs=1e-9)
    assert one("crps", weights, value) == pytest.approx(off - spread / 2, abs=1e-9)
    inside = abs(mean - value) <= 0.2
    huber = (mean - value) ** 2 / 2 if inside else 0.2 * (abs(mean - value) - 0.1)
    assert one("huber", weights, value) == pytest.approx(huber, abs=1e-9)


@settings(deadline=None)
@given(WEIGHTS, WEIGHTS)
def test_crps_is_least_for_the_true_distribution(truth: list[float], other: list[float]) -> None:
    p = [w / sum(truth) for w in truth]

    def expected(weights: list[float]) -> float:
        return sum(q * one("crps", weights, y) for q, y in zip(p, LEAVES, strict=True))

    assert expected(truth) <= expected(other) + 1e-9


def test_soft_targets_pull_towards_neighbours() -> None:
    assert one("soft", [0.01, 0.02, 0.9, 0.06, 0.01], -0.1) < one("soft", [0.01, 0.9, 0.06, 0.02, 0.01], -0.1)


def test_number_token_loss_by_hand(hybrid: Callable[..., Any]) -> None:
    """0.42 is right: at the digits 0, 4 and 2, E |digit - right| / (largest - smallest); the sign does not count."""
    objective = hybrid(kind="ntl_was")
    readout = objective.readout
    counts = (~readout.absent).sum(-1, keepdim=True).float()
    uniform = torch.where(readout.absent, -math.inf, -counts.log().expand_as(readout.absent))[None]
    leaf = readout.tree.leaf_of[142]  # of -1.00, -0.99, ...: 0.42
    assert readout.tree.leaves[leaf] == pytest.approx(0.42)
    units = (0 + 1) / 2 / 1
    tens = sum(abs(d - 4) for d in range(10)) / 10 / 9
    ones = sum(abs(d - 2) for d in range(10)) / 10 / 9
    got = float(objective._digits(uniform, torch.tensor([leaf])))
    assert got == pytest.approx((units + tens + ones) / 3, rel=1e-5)


def test_gradients_flow_to_the_digits(hybrid: Callable[..., Any], rows: list[Any], load: Any) -> None:
    for kind in KINDS:
        model, objective = load(), hybrid(kind=kind)
        objective.parts(model, batch_of(objective, rows[:2]))["number"].total.backward()
        norm = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
        assert math.isfinite(norm) and norm > 0, kind


def test_a_task_of_other_numbers(task: RegressionTask, chat_tokenizer: Any, load: Any) -> None:
    from stages.regression.hybrid import HybridLoss

    renderer = PairRenderer(replace(task, low=1, high=5, decimals=1, json_field="relatedness"), chat_tokenizer)
    objective = HybridLoss(renderer, chat_tokenizer, loss_settings())
    assert len(objective.readout.tree.leaves) == 41
    assert objective.leaves.tolist() == pytest.approx([(n - 20) / 20 for n in range(41)], abs=1e-6)
    row = objective.row("s", renderer.prompt_ids("a", "b").input_ids, renderer.answer_ids(3.27), 3.27)
    assert row.value_number == 23 and objective.columns([row])["value"] == [pytest.approx(0.135)]
