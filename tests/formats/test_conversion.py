"""Whole files: found out, checked line by line, written, counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import read_jsonl
from stages.formats.conversion import LOSSES, convert


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def rejected(conversion: Any) -> list[tuple[str, str]]:
    return [(r["origin"], r["reason"]) for r in conversion.ledger.rejections]


def test_csv_becomes_chat(tmp_path: Path) -> None:
    source = write(tmp_path / "qa.csv", "question;context;answer;n\r\nWho?;Bako;Lona.;1\r\nWhy?;;;2\r\n")
    conversion = convert(source, tmp_path / "out.jsonl", "chat")
    assert (conversion.source, conversion.target, conversion.losses) == ("qa", "chat", {"context_joined": 1})
    assert rejected(conversion) == [("qa.csv:3", "missing_field")]
    assert read_jsonl(tmp_path / "out.jsonl") == [
        {
            "messages": [{"role": "user", "content": "Who?\n\nBako"}, {"role": "assistant", "content": "Lona."}],
            "n": "1",
        }
    ]


def test_json_comes_as_a_list_and_csv_with_every_cell_quoted(tmp_path: Path) -> None:
    rows = [{"question": "Who?", "answer": 'a "b"\nc', "tags": ["x"]}, {"question": "Q", "answer": "A", "note": ""}]
    source = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    convert(source, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == [
        {"question": "Who?", "context": "", "answer": 'a "b"\nc', "tags": ["x"]},
        {"question": "Q", "context": "", "answer": "A", "note": ""},
    ]
    conversion = convert(source, tmp_path / "a.csv")
    assert conversion.losses == {"field_became_text": 2}
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["question", "context", "answer", "tags", "note"],
            ["Who?", "", 'a "b"\nc', '["x"]', ""],
            ["Q", "", "A", "", ""],
        ]


def test_a_table_holds_only_what_fits_into_cells(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "Who?", "completion": "Lona."},
        {
            "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Who?"}],
            "completion": [{"role": "assistant", "content": "Lona."}],
        },
    ]
    source = write(tmp_path / "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    conversion = convert(source, tmp_path / "p.csv")
    assert rejected(conversion) == [("p.jsonl:2", "several_messages")]
    assert (tmp_path / "p.csv").read_text() == '"prompt","completion"\n"Who?","Lona."\n'
    assert [row["prompt"] for row in read_jsonl(source)] != []
    convert(source, tmp_path / "both.jsonl")  # in lines all become messages, as readers expect one type a file
    assert [type(row["prompt"]) for row in read_jsonl(tmp_path / "both.jsonl")] == [list, list]
    with pytest.raises(DataError, match="a table cannot hold chat"):
        convert(source, tmp_path / "c.csv", "chat")
    with pytest.raises(DataError, match=r"a table needs a name that ends in \.csv or \.tsv"):
        convert(source, tmp_path / "c.jsonl", "csv")


def test_history_survives_a_table(tmp_path: Path) -> None:
    row = {"instruction": "Now?", "input": "", "output": "No.", "history": [["Who?", "Lona."]]}
    source = write(tmp_path / "h.jsonl", json.dumps(row) + "\n")
    assert convert(source, tmp_path / "h.tsv", "alpaca").losses == {"field_became_text": 1}
    convert(tmp_path / "h.tsv", tmp_path / "again.jsonl")
    assert read_jsonl(tmp_path / "again.jsonl") == [row]


def test_every_kind_of_loss_has_its_words(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "S", "name": "x"},
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Lona."},
        ],
        "input": "taken",
    }
    source = write(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    conversion = convert(source, None, "alpaca")
    assert conversion.losses == {"developer_role": 1, "field_name_taken": 1, "message_fields": 1}
    assert set(conversion.losses) <= set(LOSSES)


def test_tool_calls_are_rejected_by_name_on_demand(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    talk = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    plain = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "No."}]
    source = write(tmp_path / "a.jsonl", "".join(json.dumps({"messages": m}) + "\n" for m in (talk, plain)))
    assert convert(source, None).ledger.num_kept == 2
    (rejection,) = convert(source, None, tool_calls=False).ledger.rejections
    assert rejection == {"origin": "a.jsonl:1", "reason": "tool_calls", "detail": "calls weather"}


def test_mixed_formats_and_broken_lines_are_named(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"question": "Who?", "answer": "Lona."}',
        '{"instruction": "Who?", "output": "Lona."}',
        '{"question": "cut',
        '{"question": "Who?", "answer": NaN}',
        '{"question": "Who?", "answer": "x", "score": NaN}',
        '{"question": "Who?", "answer": "\\ud800"}',
        '{"question": "Why?", "answer": "So.", "n": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"question": "Why?", "answer": "So.\u2028"}\r',
    ]
    conversion = convert(write(tmp_path / "a.jsonl", "\n".join(lines)), tmp_path / "b.jsonl")
    assert rejected(conversion) == [
        ("a.jsonl:2", "other_format"),
        ("a.jsonl:3", "broken_record"),
        ("a.jsonl:4", "broken_record"),
        ("a.jsonl:5", "broken_record"),
        ("a.jsonl:6", "broken_record"),
        ("a.jsonl:7", "broken_record"),
        ("a.jsonl:8", "broken_record"),
    ]
    assert [row["answer"] for row in read_jsonl(tmp_path / "b.jsonl")] == ["Lona.", "So.\u2028"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"\xef\xbb\xbf \r\n", "the file is empty"),
        ("a.jsonl", '{"question": "Who?"}'.encode("utf-16"), "iconv -f UTF-16"),
        ("a.csv", "question,answer\nКто?,Лона\n".encode("cp1251"), r"not UTF-8 at byte 16 \(line 2\)"),
        ("a.json", '[{"question": "Q", "answer": "A"},\n{"question"}]', r"a\.json:2: broken JSON in the record"),
        ("a.json", '[{"question": "Q", "answer": "A"}', r"a\.json:1: broken JSON"),
        ("a.json", "[]", "in no known format.*it holds no record"),
        ("a.jsonl", '{"frage": "Q", "antwort": "A"}', "in no known format.*records have antwort, frage"),
        ("a.csv", 'question,answer\nWho?,"open\n', r"a\.csv:2: a quote that opens here is never closed"),
        ("a.bin", b"\x00\x01\x02\xff" * 50, "in no known format"),
    ],
)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, name: str, data: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert(write(tmp_path / name, data), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_cell_of_a_million_letters(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", f"question,answer\nQ,{'x' * 1_000_000}\n")
    convert(source, tmp_path / "a.jsonl", "prompt_completion")
    assert [len(row["completion"]) for row in read_jsonl(tmp_path / "a.jsonl")] == [1_000_000]


def test_names_that_contradict(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", '{"question": "Q", "answer": "A"}\n')
    with pytest.raises(DataError, match="would overwrite what is read"):
        convert(source, tmp_path / "." / "a.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        convert(source, tmp_path)
    with pytest.raises(ConfigError, match="unknown format yaml; known: chat, sharegpt, alpaca"):
        convert(source, None, "yaml")
    with pytest.raises(ConfigError, match="unknown format xml"):
        convert(source, None, format="xml")
    with pytest.raises(DataError, match=r"a\.jsonl:1: other_format is qa, not chat"):
        convert(source, None, format="chat")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "to", "source", "counts", "losses"),
    [
        ("chat/lf_alpaca_en_demo.json", "chat", "alpaca", (999, 999), {"context_joined": 412}),
        ("chat/lf_alpaca_en_demo.json", "qa", "alpaca", (999, 999), {}),
        ("chat/lf_v1_sft_demo.jsonl", "sharegpt", "chat", (500, 500), {}),
        ("chat/lf_v1_sft_demo.jsonl", "alpaca", "chat", (500, 500), {"message_fields": 1000}),
        ("chat/openai_messages_tool_calls.jsonl", "sharegpt", "chat", (5, 5), {}),
        ("chat/openai_messages_tool_calls.jsonl", "prompt_completion", "chat", (5, 5), {}),
        ("chat/sharegpt_dummy_conversation.json", "alpaca", "sharegpt", (500, 500), {}),
        ("chat/sharegpt_dummy_conversation.json", "qa", "sharegpt", (500, 167), {}),
        ("qa/xquad.de.json", "alpaca", "qa", (1190, 1190), {}),
        ("qa/xquad.de.questions.jsonl", "prompt_completion", "qa", (1190, 1190), {}),
        ("advice/counsel_chat.jsonl", "chat", "qa", (2129, 2129), {}),
    ],
)
def test_real_files(
    shared_data: Path, tmp_path: Path, name: str, to: str, source: str, counts: tuple[int, int], losses: dict[str, int]
) -> None:
    conversion = convert(shared_data / name, tmp_path / "there.jsonl", to)
    assert (conversion.source, conversion.losses) == (source, losses)
    assert (conversion.ledger.num_read, conversion.ledger.num_kept) == counts
    if losses or counts[0] != counts[1]:
        return
    convert(tmp_path / "there.jsonl", tmp_path / "back.jsonl", source)
    convert(shared_data / name, tmp_path / "normal.jsonl", source)
    assert (tmp_path / "back.jsonl").read_bytes() == (tmp_path / "normal.jsonl").read_bytes()
