from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stages.core.errors import DataError
from stages.core.fingerprint import sha256_file
from stages.core.schema import Model
from stages.core.workspace import ROOT, Workspace
from stages.generation.token_starts import LazyTokenStarts, tokenizer_hashes

MODEL = Model(name="bytes", kind="build", max_context_tokens=64)
TEXTS = ["The mill of Bako.", "Мельница  Бако\n\nстоит.", "naïve \U0001f600 漢字", ""]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A base model of a byte-level tokenizer that cuts what is long, as some do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(["The mill of Bako stood by the river of mills."] * 9, trainer)
    tokenizer.enable_truncation(4)
    root = tmp_path_factory.mktemp("base")
    folder = root / "models/base/bytes"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    names = ("tokenizer.json", "tokenizer_config.json", "model.safetensors")
    files = {name: sha256_file(folder / name) for name in names}
    (folder / "manifest.json").write_text(json.dumps({"path": ".", "files": files}))
    return Workspace(root, root)


def test_as_many_tokens_as_transformers_makes(workspace: Workspace) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(workspace.inputs / "models/base/bytes", local_files_only=True)
    wanted = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    starts = LazyTokenStarts(workspace, MODEL)(TEXTS)
    assert [len(found) for found in starts] == wanted
    for text, found in zip(TEXTS, starts, strict=True):
        assert found == sorted(found)
        assert all(0 <= start < len(text) for start in found)
    assert starts[3] == []


def test_hashes_tell_tokenizers_apart_but_not_weights(workspace: Workspace, tmp_path: Path) -> None:
    assert list(tokenizer_hashes(workspace, MODEL)) == ["tokenizer.json", "tokenizer_config.json"]
    assert tokenizer_hashes(Workspace(tmp_path, tmp_path), MODEL) == {}


def test_a_base_that_is_not_there_is_noticed_when_it_is_needed(tmp_path: Path) -> None:
    starts = LazyTokenStarts(Workspace(tmp_path, tmp_path), MODEL)
    with pytest.raises(DataError, match="models/base/bytes"):
        starts(["text"])


def test_neither_torch_nor_transformers_is_loaded(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.core.schema import Model; "
        "from stages.core.workspace import Workspace; import stages.ingest; "
        "from stages.generation.token_starts import LazyTokenStarts; root = Path(sys.argv[1]); "
        "model = Model(name='bytes', kind='build', max_context_tokens=64); "
        "assert LazyTokenStarts(Workspace(root, root), model)(['The mill'])[0]; "
        "print([name for name in ('torch', 'transformers', 'numpy', 'lxml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workspace.inputs)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
