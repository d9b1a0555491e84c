from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core import atomic
from stages.core.atomic import new_folder, write_json, write_text
from stages.core.errors import DataError
from stages.core.fingerprint import fingerprint, sha256_file
from stages.core.jsonl import append_jsonl, iterate_lines, read_jsonl, write_jsonl
from stages.core.ledger import Ledger
from stages.core.workspace import ROOT, Workspace

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=5))
def test_jsonl_round_trip_whatever_the_text(
    rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n\xff\xfe\n{"a": "x\xe2\x80\xa8y"}\n')
    lines = list(iterate_lines(path))
    assert [line.origin for line in lines] == [f"qa.jsonl:{n}" for n in (1, 3, 4, 5, 6)]
    assert [bool(line.error) for line in lines] == [False, True, True, True, False]
    assert lines[2].error == "expected a JSON object, found list"
    assert lines[3].error == "not UTF-8 at byte 0"
    assert lines[4].value == {"a": "x\u2028y"}
    with pytest.raises(DataError, match=r"qa.jsonl:3: broken JSON"):
        read_jsonl(path)


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": 2})
    assert path.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 2, "b": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    (tmp_path / ".model.tmp-1").mkdir()  # of a killed writer
    with pytest.raises(OSError, match="disk full"), new_folder(target) as folder:
        write_text(folder / "a", "1")
        raise OSError("disk full")
    assert os.listdir(tmp_path) == []
    with new_folder(target) as folder:
        write_text(folder / "a", "1")
    with new_folder(target) as folder:
        write_text(folder / "b", "2")
    assert os.listdir(target) == ["b"]


def test_fingerprint_follows_content_not_names_or_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert fingerprint({"k": 1, "l": 2}) == fingerprint({"l": 2, "k": 1})
    assert fingerprint("a", "b") != fingerprint("ab", "")
    before = fingerprint(tmp_path)
    (tmp_path / "b").write_text("y")
    assert fingerprint(tmp_path) != before
    assert sha256_file(tmp_path / "a") == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_ledger_adds_up() -> None:
    ledger = Ledger("clean_qa")
    ledger.read(4)
    ledger.reject("qa.jsonl:2", "empty_answer")
    assert ledger.metrics() == {"num_read": 4, "num_kept": 3, "num_rejected": 1, "rejected": {"empty_answer": 1}}
    ledger.check(kept=3, max_rejected_share=0.25)
    with pytest.raises(DataError, match="4 read, 1 rejected, but 2 kept"):
        ledger.check(kept=2)
    with pytest.raises(DataError, match=r"25.0% of 4 records were rejected(.|\n)*qa.jsonl:2: empty_answer"):
        ledger.check(kept=3, max_rejected_share=0.2)
    ledger.reject("qa.jsonl:1", "x")
    ledger.reject("qa.jsonl:3", "x")
    ledger.reject("qa.jsonl:4", "x")
    with pytest.raises(DataError, match=r"no record was kept of 4 read(.|\n)*and 1 more"):
        ledger.check(kept=0)


def test_a_trial_reads_its_own_outputs_first(tmp_path: Path) -> None:
    repository, trial = tmp_path / "repository", tmp_path / "trial"
    for root, text in ((repository, "old"), (trial, "new")):
        write_text(root / "models" / "a", text)
    write_text(repository / "models" / "b", "only")
    workspace = Workspace(repository, trial)
    assert workspace.read("models/a").read_text() == "new"
    assert workspace.read("models/b").read_text() == "only"
    with pytest.raises(DataError, match="models/c: no such file"):
        workspace.read("models/c")


def test_a_stage_dies_with_its_parent(tmp_path: Path) -> None:
    child = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from stages.core.process import die_with_parent\n"
        "die_with_parent(); open(sys.argv[2], 'w').write('up'); time.sleep(60)"
    )
    mark = tmp_path / "up"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()",
            sys.executable,
            "-c",
            child,
            str(ROOT),
            str(mark),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    while not mark.exists():
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_lines_are_appended_after_one_that_a_kill_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "edits.jsonl"
    append_jsonl(path, [{"a": 1}, {"ж": "ü"}])
    with open(path, "ab") as file:
        file.write(b'{"a": ')
    append_jsonl(path, [])
    append_jsonl(path, [{"a": 2}])
    assert path.read_text(encoding="utf-8") == '{"a": 1}\n{"ж": "ü"}\n{"a": \n{"a": 2}\n'


def test_what_a_new_folder_replaces_is_never_half_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while files are removed one by one may only hit a folder that nobody reads."""
    original, removed = atomic.shutil.rmtree, []

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        removed.append(Path(path).name)
        original(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(atomic.shutil, "rmtree", rmtree)
    for text in ("1", "2"):
        with new_folder(tmp_path / "last") as folder:
            write_text(folder / "a", text)
    assert (tmp_path / "last" / "a").read_text() == "2" and list(tmp_path.iterdir()) == [tmp_path / "last"]
    assert removed and all(name.startswith(".last.tmp-") for name in removed)
