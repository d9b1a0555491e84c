"""Where tokens begin in a text, by a base model's own tokenizer, without loading what models need.

tokenizer_hashes(workspace, model)       # change when the tokenizer does
starts = LazyTokenStarts(workspace, model)
starts(["The mill of Bako."])            # [[0, 4, 9, 12, 16]]; the first call loads the tokenizer
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.schema import Model
from stages.core.workspace import Workspace
from stages.generation.loading import MANIFEST, base_folder, load_tokenizer, resolve_base

FAST_FILE = "tokenizer.json"


def tokenizer_hashes(workspace: Workspace, model: Model) -> dict[str, str]:
    """The SHA-256 of every file of the base model but its weights; nothing where the base has not been built."""
    manifest = workspace.inputs / base_folder(model) / MANIFEST
    if not manifest.exists():
        return {}
    files: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return {name: sha256 for name, sha256 in sorted(files.items()) if not name.endswith(".safetensors")}


class LazyTokenStarts:
    """Callable: texts -> for each of them the offsets in characters at which its tokens begin; no special tokens.

    The tokenizer is loaded when it is first asked for. Raises DataError where the base model is not there.
    """

    def __init__(self, workspace: Workspace, model: Model) -> None:
        self._workspace = workspace
        self._model = model
        self._tokenizer: Any = None

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        if self._tokenizer is None:
            self._tokenizer = _load(resolve_base(self._workspace, self._model))
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[begin for begin, _ in encoding.offsets] for encoding in encodings]


def _load(folder: Path) -> Any:
    """The Rust tokenizer itself. Only a model that comes without its file has transformers convert an older one."""
    from tokenizers import Tokenizer

    file = folder / FAST_FILE
    tokenizer = Tokenizer.from_file(str(file)) if file.exists() else load_tokenizer(folder).backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
