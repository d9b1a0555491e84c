"""A stand-in for axolotl's environment, and the real one where `make axolotl` has built it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.axolotl.environment import venv_versions
from stages.axolotl.settings import Axolotl
from stages.core.errors import ConfigError
from stages.core.schema import Lora, Training
from stages.training.objective import TokenRow

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_axolotl.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "axolotl: runs the real axolotl (make test-axolotl)")


def build_settings(**changes: Any) -> Axolotl:
    values: dict[str, Any] = {
        "name": "cpu",
        "venv": ".venv-axolotl",
        "version": "0.19.0",
        "device": "cpu",
        "quantise": False,
        "optimizer": "adamw_torch_fused",
        "silence_timeout_s": 300,
    }
    return Axolotl(**(values | changes))


@pytest.fixture
def axolotl_settings() -> Callable[..., Axolotl]:
    return build_settings


@pytest.fixture
def fake_venv(tmp_path: Path) -> Path:
    """A repository root with a .venv-axolotl whose Python is fake_axolotl.py."""
    venv = tmp_path / "repository" / ".venv-axolotl"
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\n{FAKE.read_text(encoding='utf-8')}", encoding="utf-8")
    python.chmod(0o755)
    for name, version in {"axolotl": "0.19.0", "peft": "0.20.0"}.items():
        metadata = venv / f"lib/python3.11/site-packages/{name}-{version}.dist-info/METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    return venv.parent


@pytest.fixture
def axolotl_lora() -> Lora:
    return Lora(r=4, alpha=8, modules=["q_proj", "v_proj"])


@pytest.fixture
def axolotl_training() -> Training:
    return Training(learning_rate=1e-2, num_epochs=2, batch_size=4, max_length=64, warmup_steps=2, num_threads=1)


@pytest.fixture
def token_rows() -> Callable[[int], list[TokenRow]]:
    """Rows that count upwards from different starts: soon learned, and the same from either side."""

    def build(num_rows: int, start: int = 0) -> list[TokenRow]:
        ids = [[(11 * n + k) % 60 + 3 for k in range(12 + n % 7)] for n in range(start, start + num_rows)]
        return [TokenRow(f"row-{n}", row, 8 + n % 3) for n, row in enumerate(ids)]

    return build


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of random weights, 64 wide, with a tokenizer of 64 words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n for n in range(3, 64)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The repository, where axolotl's real environment lies; the test is skipped where it does not."""
    try:
        venv_versions(build_settings(), ROOT)
    except ConfigError as error:
        pytest.skip(str(error))
    return ROOT
