"""Adapters of other manners, each on its own from the one model that knows the subject.

reads   models/<domain>/book_merged/; data/<domain>/rag/{train,validation}.jsonl, of the variant's styles
writes  models/<domain>/styles/<variant>/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_style/<variant>/{metrics.json,curve.csv}

    python -m stages.train_style @socratic
    python -m stages.train_style @socratic -m train_style.lora.r=8,16

A variant (conf/train_style: variants) names its styles, and whatever it sets otherwise than the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from stages.core.schema import one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.training.example_adapter import ExampleConfig, train_on_examples


@dataclass
class Config(ExampleConfig):
    """Mirrors conf/train_style with one of its variants over it."""

    variant: str = MISSING
    backend: str = "trl"

    def __post_init__(self) -> None:
        one_of(self.backend, ("trl",), "train_style.backend")
        if not self.styles:
            raise ValueError(f"train_style.variants.{self.variant}.styles: name the styles that it learns")


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, writes; returns the metrics."""
    folders = f"models/{config.domain}/styles/{config.variant}", f"reports/{config.domain}/train_style/{config.variant}"
    return train_on_examples(config, workspace, f"train_style-{config.variant}", *folders)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
