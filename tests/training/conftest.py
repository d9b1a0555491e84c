"""A Llama of random weights with a byte tokenizer: everything that training needs, in a few milliseconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PROMPT, byte_tokenizer, save_llama, write_base_manifest

from stages.core.jsonl import write_jsonl
from stages.core.schema import Lora, Model, Prompt, Training
from stages.core.workspace import Workspace
from stages.knowledge.knowledge_base import write_knowledge
from stages.knowledge.records import Chunk, Example

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return byte_tokenizer(CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A model folder with its manifest, as the stage base_model leaves it: models/base/tiny below the returned root."""
    root = tmp_path_factory.mktemp("base")
    write_base_manifest(save_llama(root / "models/base/tiny", tiny_tokenizer, seed=2, initializer_range=0.02))
    return root


@pytest.fixture
def tiny_lora() -> Lora:
    return Lora(r=4, alpha=8, dropout=0.1, modules=["q_proj", "gate_proj"])  # dropout: the random state matters


@pytest.fixture
def tiny_training() -> Callable[..., Training]:
    def build(**changes: Any) -> Training:
        values: dict[str, Any] = {
            "learning_rate": 1e-2,
            "num_epochs": 3,
            "batch_size": 2,
            "max_length": 64,
            "warmup_steps": 2,
            "num_threads": 1,
        }
        return Training(**(values | changes))

    return build


@pytest.fixture(scope="session")
def model_config() -> Model:
    return Model(name="tiny", kind="build", max_context_tokens=512)


@pytest.fixture(scope="session")
def prompt_config() -> Prompt:
    return PROMPT


@pytest.fixture(scope="session")
def new_workspace(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Callable[[], Workspace]:
    """A repository of its own, with the base, a book of three sections and training examples."""

    def build() -> Workspace:
        root = tmp_path_factory.mktemp("repository")
        shutil.copytree(tiny_base, root, dirs_exist_ok=True)
        chunks = [
            Chunk(
                f"book-{n}", "book", "book", f"Chapter {n // 4}", n, f"The mill of Bako{n} ground {n * 7} sacks. " * 3
            )
            for n in range(12)
        ]
        chunks.append(Chunk("article-0", "article", "a", "a", 0, "An article, not to be trained on."))
        write_knowledge(root / "data/demo/knowledge.sqlite", [], chunks)
        for name, numbers in {"train": range(8), "validation": range(8, 11)}.items():
            examples = [
                Example(
                    id=f"qa-{n}",
                    kind="qa",
                    question=f"Who ground {n} sacks?",
                    answer=f"Bako{n} did.",
                    documents=[f"Bako{n} ground {n} sacks."] if n % 2 else [],
                    document_ids=[f"book-{n}"] if n % 2 else [],
                    documents_kind="retrieved" if n % 2 else "none",
                    group=f"qa-{n}",
                )
                for n in numbers
            ]
            write_jsonl(root / f"data/demo/rag/{name}.jsonl", [example.to_row() for example in examples])
        return Workspace(root, root)

    return build
