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


def test_a_language_without_markers_has_none_to_strip_but_lets_none_through(tmp_path: Path) -> None:
    config = replace(CONFIG, language="de")
    (record,) = run(tmp_path, [line("Wer?", "Lona  [sic].")], config)
    assert record.answer == "Lona [sic]."
    with pytest.raises(DataError, match=r"qa\.jsonl:1 \(qa-0001\): '\[EXPLANATION\]'"):
        run(tmp_path, [line("Wer?", "[EXPLANATION] Lona.")], config)


def test_a_domain_without_questions_has_an_empty_file(tmp_path: Path) -> None:
    clean_qa.run(replace(CONFIG, sources=[]), Workspace(tmp_path, tmp_path))
    assert (tmp_path / "data/d/clean/qa.jsonl").read_bytes() == b""
    counted = metrics(tmp_path)
    assert (counted["num_read"], counted["num_clusters"], counted["largest_cluster"]) == (0, 0, 0)


def formatted(format: str, fields: dict[str, str] | None = None, name: str = "qa.jsonl") -> clean_qa.Config:
    return replace(CONFIG, sources=[Source(name, "qa", fields or {}, format=format, style="socratic")])


def test_the_first_turn_of_a_conversation_is_a_record_and_the_rest_is_counted(tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Lona."},
        {"role": "user", "content": "Since when?"},
        {"role": "assistant", "content": "1204."},
        {"role": "user", "content": "Thanks."},
    ]
    lines = [json.dumps({"messages": talk, "thread": "t7"}), json.dumps({"messages": talk[3:5]})]
    config = replace(formatted("chat", {"source_document": "thread"}), max_rejected_share=0.0)  # follow-ups are no flaw
    assert run(tmp_path, lines, config) == [
        QA("qa-0001", "qa", "Who?", "Lona.", "t7", [], "qa-0001", [], "qa.jsonl:1", style="socratic"),
        QA("qa-0002", "qa", "Since when?", "1204.", "", [], "qa-0002", [], "qa.jsonl:2", style="socratic"),
    ]
    assert rejected(tmp_path) == [
        ("qa.jsonl:1, turn 2", "follow_up_turn", ""),
        ("qa.jsonl:1, turn 3", "follow_up_turn", ""),
    ]
    counted = metrics(tmp_path)
    assert (counted["num_read"], counted["num_kept"], counted["num_system_texts_left_out"]) == (4, 2, 1)


def test_tools_and_greetings_first_are_rejected_by_name(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    lines = [
        json.dumps({"messages": [{"role": "user", "content": "Rain?"}, {"role": "assistant", "tool_calls": [call]}]}),
        json.dumps({"messages": [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Hi."}]}),
        json.dumps({"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Lona."}]}),
        '{"messages": [',
    ]
    assert [r.id for r in run(tmp_path, lines, formatted("chat"))] == ["qa-0003"]
    assert [(origin, reason) for origin, reason, _ in rejected(tmp_path)] == [
        ("qa.jsonl:4", "broken_record"),
        ("qa.jsonl:1", "tool_calls"),
        ("qa.jsonl:2", "roles_out_of_order"),
    ]


def test_input_is_part_of_the_question_and_context_names_the_source(tmp_path: Path) -> None:
    alpaca = [json.dumps({"instruction": "Translate.", "input": "Bonjour", "output": "Hello"})]
    assert [r.question for r in run(tmp_path, alpaca, formatted("alpaca"))] == ["Translate.\n\nBonjour"]
    rows = [line(f"Who is number {n}?", f"Nobody number {n}.", context="A long passage.") for n in range(2)]
    first, second = run(tmp_path, rows, formatted("qa"))
    assert first.question == "Who is number 0?"
    assert first.source_document == second.source_document == "context-e70ee84fe2283fb7"
    assert metrics(tmp_path)["num_contexts_left_out"] == 2
    named = run(tmp_path, [line("Who?", "Lona.", context="A.", doc="d1")], formatted("qa", {"source_document": "doc"}))
    assert named[0].source_document == "d1"


def test_a_table_in_a_format_is_found_out(tmp_path: Path) -> None:
    lines = ["instruction,input,output", "Translate.,Bonjour,Hello"]
    (record,) = run(tmp_path, lines, formatted("csv", name="qa.csv"), "qa.csv")
    assert (record.id, record.question, record.origin) == ("qa-0002", "Translate.\n\nBonjour", "qa.csv:2")


def test_articles_with_questions_give_ids_of_their_own(tmp_path: Path) -> None:
    questions = [{"question": f"Q{n}?", "answers": [{"text": f"A number {n}", "answer_start": 0}]} for n in range(2)]
    article = {"title": "T", "paragraphs": [{"context": "C", "qas": questions}, {"qas": "none"}]}
    text = json.dumps({"version": "1.1", "data": [article, article]})
    config = replace(formatted("qa", {"source_document": "title"}, "squad.json"), near_duplicate_similarity=1.0)
    records = run(tmp_path, [text], config, "squad.json")
    assert [(r.id, r.answer, r.source_document) for r in records] == [
        ("qa-0001", "A number 0", "T"),
        ("qa-0002", "A number 1", "T"),
    ]
    assert records[1].origin == "squad.json: record 1, paragraph 1, question 2"
    assert sorted((origin, reason) for origin, reason, _ in rejected(tmp_path)) == [
        ("squad.json: record 1, paragraph 2", "broken_record"),
        ("squad.json: record 2, paragraph 1, question 1", "duplicate"),
        ("squad.json: record 2, paragraph 1, question 2", "duplicate"),
        ("squad.json: record 2, paragraph 2", "broken_record"),
    ]


def test_a_format_needs_no_question_and_answer_and_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"domain\.qa \(qa\.jsonl\): unknown field question"):
        run(tmp_path, [line("Who?", "Lona.")], formatted("qa", {"question": "q"}))
    section = {**vars(CONFIG), "sources": [{"path": "a", "kind": "qa", "format": "alpacca"}]}
    with pytest.raises(ConfigError, match="format: 'alpacca' is not one of"):
        parse_section(clean_qa.Config, section, "clean_qa")


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "num_read", "reasons", "num_kept"),
    [
        ("chat/lf_alpaca_en_demo.json", "alpaca", 999, {"duplicate": 14, "short_answer": 1}, 984),
        ("chat/lf_v1_sft_demo.jsonl", "chat", 500, {"duplicate": 1, "short_answer": 1, "short_question": 1}, 497),
        ("chat/sharegpt_dummy_conversation.json", "sharegpt", 1000, {"duplicate": 166, "follow_up_turn": 500}, 334),
        ("qa/xquad.de.json", "qa", 1190, {"duplicate": 7, "short_answer": 1}, 1182),
    ],
)
def test_real_files_in_their_formats(
    shared_data: Path, tmp_path: Path, name: str, format: str, num_read: int, reasons: dict[str, int], num_kept: int
) -> None:
    config = replace(CONFIG, raw_dir=str(shared_data), sources=[Source(name, "qa", format=format)])
    clean_qa.run(config, Workspace(tmp_path, tmp_path))
    counted = metrics(tmp_path)
    assert (counted["num_read"], counted["rejected"], counted["num_kept"]) == (num_read, reasons, num_kept)


@pytest.mark.slow
def test_conversations_that_all_call_tools_are_refused_by_name(shared_data: Path, tmp_path: Path) -> None:
    source = Source("chat/openai_messages_tool_calls.jsonl", "qa", format="chat")
    with pytest.raises(DataError, match=r"(?s)no record was kept of 5 read.*:1: tool_calls calls get_weather"):
        clean_qa.run(replace(CONFIG, raw_dir=str(shared_data), sources=[source]), Workspace(tmp_path, tmp_path))
