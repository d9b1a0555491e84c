"""The harness on a tiny model: what it trains on, what it refuses, what it keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Lora, Training
from stages.training import sft
from stages.training.objective import NextToken, TokenRow
from stages.training.sft import check_rows

torch = pytest.importorskip("torch")


def rows_of(count: int, first: int = 0) -> list[TokenRow]:
    return [
        TokenRow(str(n), [(7 * n + k * k) % 250 for k in range(8 + n % 9)], 3 + n % 3)
        for n in range(first, first + count)
    ]


@pytest.fixture
def load(tiny_base: Path) -> Callable[..., Any]:
    from transformers import AutoModelForCausalLM

    def load_tiny(dtype: Any = torch.float32) -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_base / "models/base/tiny", dtype=dtype)

    return load_tiny


@pytest.fixture
def train(load: Callable[..., Any], tiny_tokenizer: Any, tiny_lora: Lora, tmp_path: Path) -> Callable[..., Any]:
    """Trains and saves into tmp_path/adapter; returns what train_lora yields."""

    def run(
        training: Training, rows: Sequence[TokenRow] = (), lora: Lora | None = None, dtype: Any = torch.float32
    ) -> Any:
        with sft.train_lora(
            load(dtype),
            tiny_tokenizer,
            rows or rows_of(10),
            rows_of(4, first=10),
            lora or tiny_lora,
            training,
            seed=1,
            base_sha256="",
            checkpoint_root=tmp_path / "checkpoints",
        ) as trained:
            (tmp_path / "adapter").mkdir(exist_ok=True)
            trained.save(tmp_path / "adapter")
        return trained

    return run


def mean_loss(model: Any, rows: Sequence[TokenRow]) -> float:
    """The definition, one row at a time, from all logits."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
        for k in range(len(row.input_ids) - row.num_trained, len(row.input_ids)):
            total -= float(log_probs[k - 1, row.input_ids[k]])
            count += 1
    return total / count


def test_losses_are_means_over_trained_tokens_whatever_the_batches(
    train: Callable[..., Any], load: Callable[..., Any], tiny_training: Callable[..., Training], tiny_lora: Lora
) -> None:
    training = tiny_training(batch_size=3, num_epochs=1, learning_rate=0.0, warmup_steps=0, accumulation=4)
    trained = train(training, lora=Lora(r=4, alpha=8, modules=["q_proj"]))
    model = load().eval()
    assert trained.curve[0].train_loss == pytest.approx(mean_loss(model, rows_of(10)), rel=1e-5)
    assert trained.curve[0].eval_loss == pytest.approx(mean_loss(model, rows_of(4, first=10)), rel=1e-5)


def test_accumulation_gives_the_same_weights_as_a_large_batch(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    lora = Lora(r=4, alpha=8, modules=["q_proj", "gate_proj"])
    weights = []
    for batch_size, accumulation in ((10, 1), (2, 5)):
        model = train(tiny_training(batch_size=batch_size, accumulation=accumulation, num_epochs=2), lora=lora).model
        weights.append([p.detach().clone() for p in model.parameters() if p.requires_grad])
    for large, accumulated in zip(*weights, strict=True):
        torch.testing.assert_close(accumulated, large, rtol=1e-3, atol=2e-5)


def test_figures_count_non_pad_tokens_and_steps(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    trained = train(tiny_training(num_epochs=2, batch_size=4))
    assert trained.figures["num_train_tokens"] == 2 * sum(len(row.input_ids) for row in rows_of(10))
    assert trained.figures["num_steps"] == 6 and trained.figures["num_epochs_run"] == 2
    assert trained.figures["num_trainable_parameters"] == 2 * 4 * ((32 + 32) + (32 + 64))
    assert [row.step for row in trained.curve] == [3, 6]


def test_the_best_adapter_is_restored_saved_and_named(
    train: Callable[..., Any], load: Callable[..., Any], tiny_training: Callable[..., Training], tmp_path: Path
) -> None:
    from peft import PeftModel

    trained = train(tiny_training(num_epochs=12, learning_rate=0.5, patience=2, scheduler="constant"))
    losses = [row.eval_loss for row in trained.curve]
    assert len(losses) < 12 and losses[-1] > min(losses)  # it did get worse, and stopped
    assert losses.index(min(losses)) == len(losses) - 3
    assert trained.figures["best_eval_loss"] == min(losses)
    saved = PeftModel.from_pretrained(load(), str(tmp_path / "adapter")).eval()
    for model in (trained.model, saved):
        assert mean_loss(model, rows_of(4, first=10)) == pytest.approx(min(losses), rel=1e-5)


def test_the_saved_adapter_is_readable_and_names_no_place(
    train: Callable[..., Any], tiny_training: Callable[..., Training], tmp_path: Path
) -> None:
    train(tiny_training(num_epochs=1))
    adapter = tmp_path / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in adapter.iterdir())
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == ["gate_proj", "q_proj"]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_activation_checkpointing_changes_no_number(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    plain = train(tiny_training(num_epochs=2)).curve
    checkpointed = train(tiny_training(num_epochs=2, activation_checkpointing=True)).curve
    assert [row.eval_loss for row in checkpointed] == pytest.approx([row.eval_loss for row in plain], rel=1e-5)


def test_adapters_are_float32_on_a_bfloat16_base(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    model = train(tiny_training(num_epochs=1, bf16=True), dtype=torch.bfloat16).model
    dtypes = {p.dtype: p.requires_grad for p in model.parameters()}
    assert dtypes == {torch.float32: True, torch.bfloat16: False}


def test_a_loss_that_is_not_a_number_stops_and_names_the_step(
    train: Callable[..., Any], tiny_training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.training.trainer import LoraTrainer

    original = LoraTrainer.training_step

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = original(self, *args, **kwargs)
        return loss * math.nan if self.state.global_step == 6 else loss

    monkeypatch.setattr(LoraTrainer, "training_step", broken)
    with pytest.raises(DataError, match="step 7: loss is nan"):
        train(tiny_training())


def test_weights_that_overflow_stop_the_training(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    with pytest.raises(DataError, match=r"stopped at step \d+"):
        train(tiny_training(learning_rate=1e38, warmup_steps=0, scheduler="constant"))


def test_a_finished_training_that_was_not_saved_is_only_saved(
    train: Callable[..., Any], tiny_training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sft.lora, "copy_adapter", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            train(tiny_training())
    monkeypatch.setattr("stages.training.trainer.LoraTrainer.train", None)  # must not be called again
    assert train(tiny_training()).figures["num_steps"] == 15
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_a_module_that_the_model_lacks_is_named(
    train: Callable[..., Any], tiny_training: Callable[..., Training]
) -> None:
    with pytest.raises(ConfigError, match="qkv_proj not in this model; it has down_proj, gate_proj"):
        train(tiny_training(), lora=Lora(r=4, alpha=8, modules=["q_proj", "qkv_proj"]))


def test_an_unknown_scheduler_is_named(train: Callable[..., Any], tiny_training: Callable[..., Training]) -> None:
    with pytest.raises(ConfigError, match=r"training\.scheduler: 'cosinus' is not one of linear, cosine"):
        train(tiny_training(scheduler="cosinus"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no training rows"),
        ([TokenRow("qa-1", [1, 2, 3], 2), TokenRow("qa-2", [1, 2, 3], 0)], "row qa-2: every label is masked"),
        ([TokenRow("qa-3", [1], 1)], "row qa-3: every label is masked"),
        ([TokenRow("qa-4", [1] * 9, 2)], "row qa-4: 9 tokens, max_length is 8"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(rows: list[TokenRow], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_rows(rows, 8, "training", NextToken())


def test_labels_mask_all_but_the_last() -> None:
    assert TokenRow("a", [5, 6, 7], 2).labels == [-100, 6, 7]
    assert TokenRow("a", [5, 6], 2).labels == [5, 6]


def test_row_order_depends_on_seed_and_epoch_only_and_covers_every_row() -> None:
    from stages.training.trainer import LengthGrouped

    lengths = [(37 * n) % 101 for n in range(103)]

    def order(epoch: int, seed: int = 1) -> list[int]:
        sampler = LengthGrouped(lengths, 4, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(2) == order(2) != order(3) != order(3, seed=2)
    assert sorted(order(2)) == list(range(103))
    batches = [order(2)[k : k + 4] for k in range(0, 100, 4)]
    padding = sum(max(lengths[r] for r in batch) * 4 - sum(lengths[r] for r in batch) for batch in batches)
    assert padding < 0.25 * sum(lengths)  # at random it is about 0.6


@pytest.mark.parametrize("accumulation", [2, 4, 16])
def test_the_batches_of_a_step_have_similar_lengths(accumulation: int) -> None:
    """Else processes that share a step out wait for the one with the longest batch."""
    from stages.training.trainer import LengthGrouped

    lengths = [(37 * n) % 101 + 1 for n in range(4 * 57 + 3)]  # 57 batches and a smaller one

    def widths(accumulation: int) -> list[int]:
        order = list(LengthGrouped(lengths, 4, 1, accumulation))
        assert sorted(order) == list(range(len(lengths)))
        return [max(lengths[row] for row in order[k : k + 4]) for k in range(0, len(order), 4)]

    def waiting(widths: list[int]) -> int:
        """Of two processes that take turns at the batches."""
        return sum(abs(a - b) for a, b in zip(widths[::2], widths[1::2], strict=True))

    assert waiting(widths(accumulation)) < 0.5 * waiting(widths(1))
