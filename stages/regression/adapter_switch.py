"""One base model in memory, and its adapters on it one after the other: an 8B base is read once, not once a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.core.schema import Model
from stages.generation.loading import ADAPTER_NOTE, load_model
from stages.regression.number_head import NAME, add_head


class AdapterSwitch:
    """Loads the base model when it is first used; `use` puts an adapter on it, or takes it off.

    An adapter gets the base that it was trained on: in 4 bits where it is a QLoRA's, as adapter.json says.
    """

    def __init__(self, weights: Path, model: Model) -> None:
        self.weights, self.model = weights, model
        self._base: Any = None
        self._quantised = False
        self._adapted: Any = None

    def use(self, adapter: Path | None) -> Any:
        """The model in eval mode with this adapter (PEFT format, a number head included); None: the base as it is.

        What an earlier call returned is not to be used any more.
        """
        self._take_off()
        self._load(quantised=adapter is not None and _was_quantised(adapter))
        if adapter is None:
            return self._base.eval()
        from peft import PeftModel

        if _has_head(adapter):
            add_head(self._base)
        self._adapted = PeftModel.from_pretrained(self._base, str(adapter), local_files_only=True)
        return self._adapted.eval()

    def _take_off(self) -> None:
        if self._adapted is None:
            return
        self._base, self._adapted = self._adapted.unload(), None  # the base's own layers again, bit by bit
        if hasattr(self._base, NAME):
            delattr(self._base, NAME)
        if self._quantised and self._base.device.type == "cpu":
            # bitsandbytes packs 4-bit weights anew when they are first used on a CPU, and rounds them on the way back
            self._base = None

    def _load(self, quantised: bool) -> None:
        if self._base is None or quantised != self._quantised:
            self._base = None  # out of memory before the other comes in
            self._base, self._quantised = load_model(self.weights, self.model, quantise=quantised), quantised


def _has_head(adapter: Path) -> bool:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return NAME in (config.get("modules_to_save") or [])


def _was_quantised(adapter: Path) -> bool:
    note = json.loads((adapter / ADAPTER_NOTE).read_text(encoding="utf-8"))
    return bool(note.get("quantise", False))
