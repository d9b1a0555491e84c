from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages import clean_qa
from stages.core.config import parse_section
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl
from stages.core.schema import Source
from stages.core.workspace import ROOT, Workspace
from stages.knowledge.records import QA

FIELDS = {"question": "question", "answer": "answer", "source_document": "topic", "evidence": "evidence"}
CONFIG = clean_qa.Config(
    domain="d",
    raw_dir="raw",
    sources=[Source("qa.jsonl", "qa", FIELDS)],
    language="en",
    markers={"en": ["EXPLANATION", "ESCALATION"], "ru": ["ОБЪЯСНЕНИЕ", "ЭСКАЛАЦИЯ"]},
    stubs={"en": ["Not required."], "ru": ["Не требуется."]},
    min_chars=2,
    near_duplicate_similarity=0.85,
    max_rejected_share=0.9,
)
LONG = "The founder of the mill Bako is Lona Tir, and she still lives there with her dog and two brothers."


def line(question: Any, answer: Any, **more: Any) -> str:
    return json.dumps({"question": question, "answer": answer, **more}, ensure_ascii=False)


def run(folder: Path, lines: list[str], config: clean_qa.Config = CONFIG, name: str = "qa.jsonl") -> list[QA]:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    (raw / name).write_text("".join(text + "\n" for text in lines), encoding="utf-8")
    clean_qa.run(config, Workspace(folder, folder))
    return [QA.from_row(row) for row in read_jsonl(folder / "data/d/clean/qa.jsonl")]


def rejected(folder: Path) -> list[tuple[str, str, str]]:
    return [(r["origin"], r["reason"], r["detail"]) for r in read_jsonl(folder / "data/d/clean/rejected.jsonl")]


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/d/clean_qa/metrics.json").read_text())
    return found


def test_exact_record(tmp_path: Path) -> None:
    answer = "[EXPLANATION] Lona  Tir.\u00a0[ESCALATION] Not required."
    assert run(tmp_path, [line("Who built  Bako?", answer, topic="Bako", evidence=["book-0001"])]) == [
        QA("qa-0001", "qa", "Who built Bako?", "Lona Tir.", "Bako", ["book-0001"], "qa-0001", [], "qa.jsonl:1")
    ]
    assert metrics(tmp_path) == {
        "largest_cluster": 1,
        "num_changed": 1,
        "num_clusters": 1,
        "num_kept": 1,
        "num_kept_by_kind": {"qa": 1},
        "num_near_duplicates": 0,
        "num_read": 1,
        "num_rejected": 0,
        "num_similar_answers": 0,
        "rejected": {},
    }


def test_rejections_name_line_and_reason_and_ids_keep_line_numbers(tmp_path: Path) -> None:
    lines = [
        line("Who?", "Lona."),
        '{"question": "cut',
        line("", "Lona."),
        line("Why?", "[EXPLANATION] [ESCALATION] Not required."),
        line("Why?", "N"),
        line("Why?", {"text": "x"}),
        line(" Who? ", "[explanation] Lona."),
        line("Where?", "Here."),
        '{"answer": "Lona."}',
    ]
    assert [r.id for r in run(tmp_path, lines)] == ["qa-0001", "qa-0008"]
    found = rejected(tmp_path)
    assert [(origin, reason) for origin, reason, _ in sorted(found)] == [
        ("qa.jsonl:2", "broken_record"),
        ("qa.jsonl:3", "empty_question"),
        ("qa.jsonl:4", "empty_answer"),
        ("qa.jsonl:5", "short_answer"),
        ("qa.jsonl:6", "wrong_type"),
        ("qa.jsonl:7", "duplicate"),
        ("qa.jsonl:9", "empty_question"),
    ]
    assert ("qa.jsonl:7", "duplicate", "of qa-0001 (qa.jsonl:1)") in found
    counted = metrics(tmp_path)
    assert (counted["num_read"], counted["num_kept"], counted["num_rejected"]) == (9, 2, 7)


def test_near_duplicates_and_similar_answers_are_flagged_and_clustered(tmp_path: Path) -> None:
    lines = [
        line("Who founded the mill Bako?", LONG),
        line("Tell me at last, and clearly, whom the mill Bako has to thank for having been founded.", LONG),
        line("Who founded the mill Bako, please?", LONG),
        line("Who?", "Nobody knows."),
    ]
    records = run(tmp_path, lines)
    assert [(r.cluster, r.flags) for r in records] == [
        ("qa-0001", ["near_duplicate", "similar_answer"]),
        ("qa-0001", ["similar_answer"]),
        ("qa-0001", ["near_duplicate", "similar_answer"]),
        ("qa-0004", []),
    ]


def test_a_second_file_of_a_kind_has_ids_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "more.csv").write_text("frage;antwort\nWer?;Lona.\n", encoding="utf-8")
    sources = [*CONFIG.sources, Source("more.csv", "qa", {"question": "frage", "answer": "antwort"})]
    records = run(tmp_path, [line("Who?", "Lona.")], replace(CONFIG, sources=sources))
    assert [(r.id, r.origin) for r in records] == [("qa-0001", "qa.jsonl:1"), ("qa2-0002", "more.csv:2")]


def test_russian(tmp_path: Path) -> None:
    lines = [line("Почему я боюсь?", "[ОБЪЯСНЕНИЕ] Вы боитесь отказа.\n[эскалация] не требуется")]
    (record,) = run(tmp_path, lines, replace(CONFIG, language="ru"))
    assert record.answer == "Вы боитесь отказа."


def test_a_surviving_marker_fails_and_names_rows(tmp_path: Path) -> None:
    lines = [line("Who?", "Lona."), line("Why?", "【EXPLANATION】 Because."), line("[ОБЪЯСНЕНИЕ] What?", "That.")]
    with pytest.raises(DataError, match=r"(?s)2 records still hold.*qa\.jsonl:2 \(qa-0002\).*qa\.jsonl:3 \(qa-0003\)"):
        run(tmp_path, lines)
    assert not (tmp_path / "data/d/clean/qa.jsonl").exists()


def test_unknown_language_names_the_key_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clean_qa\.language: no markers for 'de'.*known: en, ru"):
        run(tmp_path, [line("Who?", "Lona.")], replace(CONFIG, language="de"))


def test_all_rejected_and_too_many_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no record was kept of 1 read\n  qa\.jsonl:1: empty_answer"):
        run(tmp_path, [line("Who?", "")])
    with pytest.raises(DataError, match=r"50\.0% of 2 records were rejected.*\n  qa\.jsonl:2"):
        run(tmp_path, [line("Who?", "Lona."), "broken"], replace(CONFIG, max_rejected_share=0.4))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/qa.jsonl").write_bytes(line("Кто?", "Лона.").encode("cp1251"))
    with pytest.raises(DataError, match=r"raw/qa\.jsonl: not UTF-8 at byte 14 \(line 1\)"):
        clean_qa.run(CONFIG, Workspace(tmp_path, tmp_path))


def test_config_refuses_by_key() -> None:
    section = {**vars(CONFIG), "sources": [{"path": "a", "kind": "book", "fields": {}}]}
    with pytest.raises(ConfigError, match=r"kind: 'book' is not one of qa, boundary, interview"):
        parse_section(clean_qa.Config, section, "clean_qa")


def test_rerun_is_byte_identical(tmp_path: Path) -> None:
    lines = [line(f"Who is number {n}?", f"It is {n % 3}, as the whole town has known for years.") for n in range(30)]
    outputs = []
    for _ in range(2):
        run(tmp_path, lines)
        outputs.append({p.name: p.read_bytes() for p in (tmp_path / "data/d/clean").iterdir()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"qa.jsonl", "rejected.jsonl"}


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, stages.clean_qa, stages.ingest; print([m for m in sys.modules if m in %r])"
    heavy = ["torch", "hydra", "numpy", "transformers", "rich"]
    start = time.perf_counter()
    found = subprocess.run([sys.executable, "-c", code % heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert time.perf_counter() - start < 5  # 0.2 s on an idle machine


@pytest.mark.slow
def test_counselling_answers_keep_their_question(shared_data: Path, tmp_path: Path) -> None:
    fields = {"question": "question | title", "answer": "answer", "source_document": "question_id"}
    source = Source("advice/counsel_chat.jsonl", "qa", fields)
    clean_qa.run(replace(CONFIG, raw_dir=str(shared_data), sources=[source]), Workspace(tmp_path, tmp_path))
    records = [QA.from_row(row) for row in read_jsonl(tmp_path / "data/d/clean/qa.jsonl")]
    counted = metrics(tmp_path)
    assert (counted["num_read"], counted["rejected"], len(records)) == (2129, {"duplicate": 120}, 2009)
    assert all(r.source_document and r.question for r in records)
