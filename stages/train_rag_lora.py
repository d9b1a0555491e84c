"""The RAG-context adapter: learns to answer from the documents in the system prompt; loss on the answers only.

reads   models/<domain>/book_merged/; data/<domain>/rag/{train,validation}.jsonl
writes  models/<domain>/rag_lora/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_rag_lora/{metrics.json,curve.csv}

    python -m stages.train_rag_lora
    python -m stages.train_rag_lora -m train_rag_lora.lora.r=4,8,16

adapter.json carries the hash of the prompt it was trained with: loading it for another prompt is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.core import launch
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.training.example_adapter import ExampleConfig, rag_material, train_adapter


@dataclass
class Config(ExampleConfig):
    """Mirrors conf/train_rag_lora."""


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, writes; returns the metrics."""
    launch.train("train_rag_lora", config, workspace)
    folders = f"models/{config.domain}/rag_lora", f"reports/{config.domain}/train_rag_lora"
    material = rag_material(config, workspace, workspace.read(f"models/{config.domain}/book_merged"))
    return train_adapter(config, workspace, material, "train_rag_lora", *folders)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
