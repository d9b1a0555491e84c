"""Adapters of other manners, each on its own from the one model that knows the subject.

reads   models/<domain>/book_merged/; data/<domain>/rag/{train,validation}.jsonl, of the variant's styles
writes  models/<domain>/styles/<variant>/{adapter_model.safetensors,adapter_config.json,adapter.json}
        reports/<domain>/train_style/<variant>/{metrics.json,curve.csv}

    python -m stages.train_style @socratic
    python -m stages.train_style @socratic -m train_style.lora.r=8,16

A variant (conf/train_style: variants) names its styles, and whatever it sets otherwise than the others.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from stages.axolotl.environment import venv_versions
from stages.axolotl.settings import Axolotl
from stages.axolotl.training import AxolotlOrigin, by_hand_places, train_with_axolotl
from stages.core import launch
from stages.core.schema import one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.training.example_adapter import Backend, ExampleConfig, Prepared, Trl, train_on_examples
from stages.training.results import Origin
from stages.training.sft import Trained


@dataclass
class Config(ExampleConfig):
    """Mirrors conf/train_style with one of its variants over it."""

    variant: str = MISSING
    backend: str = "trl"
    axolotl: Axolotl = MISSING

    def __post_init__(self) -> None:
        one_of(self.backend, ("trl", "axolotl"), "train_style.backend")
        if not self.styles:
            raise ValueError(f"train_style.variants.{self.variant}.styles: name the styles that it learns")
        if self.backend == "axolotl" and self.launch.kind != "single":
            raise ValueError("launch: axolotl starts its own processes; launch=single, or train_style.backend=trl")


@dataclass(frozen=True)
class ThroughAxolotl:
    """A backend: axolotl in its own environment. adapter: the folder that is written, relative."""

    settings: Axolotl
    workspace: Workspace
    adapter: str

    def origin(self, **values: Any) -> Origin:
        return AxolotlOrigin(**values, axolotl_versions=venv_versions(self.settings, self.workspace.inputs))

    def train(self, config: ExampleConfig, prepared: Prepared) -> AbstractContextManager[Trained]:
        return train_with_axolotl(
            *(prepared.base, prepared.tokenizer, prepared.rows, prepared.eval_rows),
            *(config.lora, config.training, self.settings),
            seed=config.seed,
            base_sha256=prepared.base_sha256,
            checkpoint_root=prepared.checkpoint_root,
            root=self.workspace.inputs,
            by_hand=by_hand_places(self.workspace, prepared.base, self.adapter),
        )


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Trains, writes; returns the metrics."""
    launch.train("train_style", config, workspace)
    folders = f"models/{config.domain}/styles/{config.variant}", f"reports/{config.domain}/train_style/{config.variant}"
    axolotl = ThroughAxolotl(config.axolotl, workspace, folders[0])
    backend: Backend = axolotl if config.backend == "axolotl" else Trl()
    return train_on_examples(config, workspace, f"train_style-{config.variant}", *folders, backend)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
