from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stages.synthetic.journal import Journal, open_journal


def test_answers_are_kept_and_not_written_twice(tmp_path: Path) -> None:
    with open_journal(tmp_path, "p") as journal:
        journal.add({"a": {"content": "один\u2028"}, "b": {"content": "2"}})
        journal.add({"a": {"content": "other"}})
    with open_journal(tmp_path, "p") as journal:
        assert journal["a"] == {"content": "один\u2028"}
        assert "b" in journal and "c" not in journal
    assert len((tmp_path / "p.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("torn", [b'{"key": "c", "conte', b'{"key": "c"}'[:-1], b"\xd0", b"\0\0\0"])
def test_a_torn_line_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "p.jsonl"
    Journal(path).add({"a": {"content": "1"}})
    with open(path, "ab") as file:
        file.write(torn)
    journal = Journal(path)
    assert "a" in journal and "c" not in journal
    journal.add({"d": {"content": "4"}})
    assert "a" in Journal(path) and "d" in Journal(path)


def test_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []

    def second() -> None:
        with open_journal(tmp_path, "p") as journal:
            order.append("a" in journal)

    with open_journal(tmp_path, "p") as journal:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert order == []
        journal.add({"a": {"content": "1"}})
    thread.join(5)
    assert order == [True]
    assert "waiting until it ends" in capsys.readouterr().err
