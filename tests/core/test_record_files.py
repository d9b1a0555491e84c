from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.core.jsonl import Line
from stages.core.record_files import iterate_records, read_text

ROWS: list[dict[str, Any]] = [{"q": "Who?"}, {"q": "Why?", "n": [1]}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
WRAPPED = json.dumps({"version": 1, "data": ROWS})


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_numbers_tell_records_apart_also_on_one_line(tmp_path: Path) -> None:
    spread = list(iterate_records(write(tmp_path, "a.json", '[\n {"q": 1}, {"q": 2},\n\n 3]')))
    assert [(i.origin, i.number, i.error) for i in spread] == [
        ("a.json:2", 1, ""),
        ("a.json:2", 2, ""),
        ("a.json:4", 3, "expected a JSON object, found int"),
    ]


def test_what_a_file_is_its_content_says(tmp_path: Path) -> None:
    assert [i.value for i in iterate_records(write(tmp_path, "a.json", LINES))] == ROWS
    assert [i.value for i in iterate_records(write(tmp_path, "b.jsonl", WRAPPED))] == ROWS
    (alone,) = iterate_records(write(tmp_path, "c.json", '{\n "q": 1\n}\n'))
    assert (alone.value, alone.number) == ({"q": 1}, 1)


def test_tables_as_pandas_and_spreadsheets_leave_them(tmp_path: Path) -> None:
    huge = "x" * 200_000  # more than the csv module takes by default
    text = f',q,a\n0,{huge},\n,,\n1,"two ""words""",b\n'
    items = list(iterate_records(write(tmp_path, "a.csv", text)))
    assert [i.value for i in items] == [{"": "0", "q": huge}, {"": "1", "q": 'two "words"', "a": "b"}]


def test_origins_exactly(tmp_path: Path) -> None:
    assert list(iterate_records(write(tmp_path, "a.jsonl", '\n{"q": 1}\r\n[2]\n'))) == [
        Line("a.jsonl:2", {"q": 1}, "", 2),
        Line("a.jsonl:3", {}, "expected a JSON object, found list", 3),
    ]
    assert list(iterate_records(write(tmp_path, "a.json", '{"data": [{"q": 1}, 2]}'))) == [
        Line("a.json: record 1", {"q": 1}, "", 1),
        Line("a.json: record 2", {}, "expected a JSON object, found int", 2),
    ]
    assert list(iterate_records(write(tmp_path, "a.tsv", 'q\tn\n"two\nlines"\t1\n2\n3\t4\n'))) == [
        Line("a.tsv:2", {"q": "two\nlines", "n": "1"}, "", 2),
        Line("a.tsv:4", {}, "1 cells under 2 columns", 4),
        Line("a.tsv:5", {"q": "3", "n": "4"}, "", 5),
    ]


def test_the_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, "a.txt", "\ufeffДа\n")) == "Да\n"
    assert [line.value for line in iterate_records(write(tmp_path, "a.json", f"\ufeff{json.dumps(ROWS)}"))] == ROWS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1, max_size=4),
    st.sampled_from([None, 0, 2]),
)
def test_a_list_holds_what_json_reads_from_it(tmp_path_factory: pytest.TempPathFactory, rows: Any, indent: Any) -> None:
    path = write(tmp_path_factory.getbasetemp(), "list.json", json.dumps(rows, ensure_ascii=True, indent=indent))
    lines = list(iterate_records(path))
    assert [line.value for line in lines] == rows
    assert [line.number for line in lines] == list(range(1, len(rows) + 1))


@given(st.binary(max_size=60), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv"]))
def test_any_bytes_are_records_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        lines = list(iterate_records(path))
    except DataError as error:
        assert str(path) in str(error)
        return
    assert all(isinstance(line.value, dict) and line.origin.startswith(name) for line in lines)


@pytest.mark.parametrize("read", [iterate_records, read_text])
def test_a_folder_and_nothing_are_told_apart(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match="a folder; name a file in it"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "qa.jsonl")
