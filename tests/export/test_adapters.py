"""An adapter is merged only where every matrix of it is understood, and only into its own base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import DataError
from stages.export.adapters import Adapter, check_chain, read_adapter
from stages.export.tensor_files import Weights
from stages.training.lora import weights_sha256

torch = pytest.importorskip("torch")

Q = "model.layers.1.self_attn.q_proj.weight"


def read(folder: Path, base: Path) -> Adapter:
    return read_adapter(folder, weights_sha256(base), Weights(base).entries)


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def test_a_delta_is_alpha_over_r_b_a(build_model: Callable[..., Path], build_adapter: Callable[..., Path]) -> None:
    base = build_model()
    adapter = read(build_adapter(base), base)
    a, b = adapter.weights[Q]
    assert adapter.scaling == 3.0
    assert len(adapter.weights) == 4
    assert not adapter.quantised
    assert torch.equal(adapter.delta(Q), 3.0 * (b @ a))
    assert adapter.delta("model.norm.weight") is None


def test_rank_stabilised_scaling(build_model: Callable[..., Path], build_adapter: Callable[..., Path]) -> None:
    base = build_model()
    assert read(build_adapter(base, use_rslora=True), base).scaling == 6.0  # 12 / sqrt(4)


def test_an_adapter_for_another_base_is_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path]
) -> None:
    base = build_model()
    other = build_model(name="other", initializer_range=0.1)
    with pytest.raises(
        DataError, match=r"an adapter for another base: trained on weights [0-9a-f]{12}, those of the base"
    ):
        read(build_adapter(base), other)


def test_an_adapter_without_a_note_is_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path]
) -> None:
    base = build_model()
    adapter = build_adapter(base)
    (adapter / "adapter.json").unlink()
    with pytest.raises(DataError, match=r"adapter.json is missing"):
        read(adapter, base)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("peft_type", "IA3"),
        ("rank_pattern", {"q": 2}),
        ("alpha_pattern", {"q": 2}),
    ],
)
def test_settings_that_a_plain_merge_gets_wrong_are_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path], key: str, value: Any
) -> None:
    base = build_model()
    adapter = build_adapter(base)
    change(adapter / "adapter_config.json", **{key: value})
    with pytest.raises(DataError, match=rf"{key} is .*only plain LoRA is merged"):
        read(adapter, base)


def test_a_vocabulary_resized_by_training_is_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path]
) -> None:
    base = build_model()
    adapter = build_adapter(base)
    key = "base_model.model.model.embed_tokens.weight"
    rewrite(adapter, lambda tensors: tensors.update({key: torch.zeros(290, 64)}))
    with pytest.raises(DataError, match=r"the vocabulary was resized by training .*290 rows, the base has 265"):
        read(adapter, base)


def test_modules_trained_whole_are_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path]
) -> None:
    base = build_model()
    adapter = build_adapter(base)
    rewrite(adapter, lambda tensors: tensors.update({"base_model.model.number_head.weight": torch.zeros(1, 64)}))
    with pytest.raises(DataError, match=r"number_head.weight trained whole.*export it as an adapter"):
        read(adapter, base)


def test_matrices_that_fit_nowhere_are_refused(
    build_model: Callable[..., Path], build_adapter: Callable[..., Path]
) -> None:
    base = build_model()
    adapter = build_adapter(base)
    key = f"base_model.model.{Q.removesuffix('.weight')}.lora_A.weight"
    rewrite(adapter, lambda tensors: tensors.update({key: torch.zeros(4, 63)}))
    with pytest.raises(DataError, match=r"A \(4, 63\), B \(64, 4\) do not fit"):
        read(adapter, base)
    rewrite(adapter, lambda tensors: tensors.update({key.replace("layers.1", "layers.9"): tensors.pop(key)}))
    with pytest.raises(DataError, match=r"layers.9.self_attn.q_proj.weight is no weight of the base"):
        read(adapter, base)
    rewrite(adapter, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.9" in name])  # type: ignore[func-returns-value]
    with pytest.raises(DataError, match=r"7 matrices do not make 3 pairs|7 matrices"):
        read(adapter, base)


def test_a_merged_base_names_the_base_of_now(build_model: Callable[..., Path], tmp_path: Path) -> None:
    base = build_model()
    assert check_chain(tmp_path, base) == {}
    note = {"base_sha256": weights_sha256(base), "adapter_sha256": "a", "agreement": 1.0}
    (tmp_path / "merge.json").write_text(json.dumps(note))
    assert check_chain(tmp_path, base) == note
    change(tmp_path / "merge.json", base_sha256="0" * 64)
    with pytest.raises(DataError, match=r"merged from weights 000000000000, the base model"):
        check_chain(tmp_path, base)
