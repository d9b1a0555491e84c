from __future__ import annotations

from pathlib import Path

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.schema import Source
from stages.core.workspace import Workspace
from stages.knowledge.raw_files import (
    Item,
    WrongTypeError,
    check_fields,
    iterate_items,
    list_of,
    raw_path,
    text_of,
)

ROWS = [{"q": "Who?", "a": "Lona, they say."}, {"q": "Why?", "a": 'She "had" to.'}]
FORMS = {
    "a.jsonl": '\ufeff{"q": "Who?", "a": "Lona, they say."}\n{"q": "Why?", "a": "She \\"had\\" to."}\n',
    "a.json": '[{"q": "Who?", "a": "Lona, they say."}, {"q": "Why?", "a": "She \\"had\\" to."}]',
    "b.json": '{"data": [{"q": "Who?", "a": "Lona, they say."}, {"q": "Why?", "a": "She \\"had\\" to."}]}',
    "a.csv": 'q,a\nWho?,"Lona, they say."\nWhy?,"She ""had"" to."\n',
    "b.csv": 'q;a\r\nWho?;Lona, they say.\r\nWhy?;"She ""had"" to."\r\n',
    "a.tsv": 'q\ta\nWho?\tLona, they say.\nWhy?\t"She ""had"" to."\n',
}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_records(tmp_path: Path, name: str) -> None:
    assert [item.values for item in iterate_items(write(tmp_path, name, FORMS[name]))] == ROWS


def test_broken_records_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = list(iterate_items(write(tmp_path, "a.jsonl", '{"q": 1}\n\n{"q": \n[1]\n{"q": 2}\n')))
    assert [(i.origin, i.number, bool(i.error)) for i in lines] == [
        ("a.jsonl:1", 1, False),
        ("a.jsonl:3", 3, True),
        ("a.jsonl:4", 4, True),
        ("a.jsonl:5", 5, False),
    ]
    cells = list(iterate_items(write(tmp_path, "a.csv", 'q,a\n1,2\n1\n"x"y,2\n"two\nlines",4\n5,6\n')))
    assert [i.origin for i in cells if i.error] == ["a.csv:3", "a.csv:4"]
    assert cells[-2] == Item("a.csv:5", 5, {"q": "two\nlines", "a": "4"})
    assert cells[-1] == Item("a.csv:7", 7, {"q": "5", "a": "6"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", 'q,a\n1,"open\n2,3\n', r"a\.csv:2: a quote"),
        ("a.json", "[{]", "broken JSON"),
        ("a.json", '[{"q": 1}] {"q": 2}', r"a\.json:1: the JSON list ends here"),
        ("a.csv", "q,q\n1,2\n", r"a\.csv:1: the header needs a name of its own"),
        ("a.xls", "x", r"cannot read \.xls"),
        ("a.jsonl", b'{"q": "\xd0\xb0"}\n{"q": "\xe9t\xe9"}', r"not UTF-8 at byte 19 \(line 2\)"),
        ("a.csv", "q,a\n".encode("utf-16"), "not UTF-8 at byte 0.*iconv -f UTF-16 -t UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(iterate_items(write(tmp_path, name, text)))


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"raw/qa\.jsonl: no such raw file; see domain\.raw_dir"):
        raw_path(workspace, "raw", "qa.jsonl")
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw", "qa.jsonl", "")
    with pytest.raises(DataError, match="the file is empty"):
        raw_path(workspace, "raw", "qa.jsonl")


def test_field_mapping() -> None:
    source = Source("a", "qa", {"question": "q | title", "answer": "part + text", "evidence": "ev"})
    values = {"q": "  ", "title": "T", "part": "ONE", "text": 2, "ev": ["x", "", None, "y"]}
    assert text_of(values, source, "question") == "T"
    assert text_of(values, source, "answer") == "ONE 2"
    assert text_of(values, source, "source_document") == ""
    assert list_of(values, source, "evidence") == ["x", "y"]
    assert list_of({"ev": "x"}, source, "evidence") == ["x"]
    assert list_of({}, source, "evidence") == []
    with pytest.raises(WrongTypeError, match="title holds list"):
        text_of({"title": ["T"]}, source, "question")


def test_a_field_whose_name_holds_an_operator_is_taken_as_it_is() -> None:
    assert text_of({"a | b": "x"}, Source("a", "qa", {"question": "a | b"}), "question") == "x"


def test_mapping_errors_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"domain\.qa \(a\): unknown field qestion; known: question, answer"):
        check_fields(Source("a", "qa", {"qestion": "q"}), ("question",), ("answer",), "domain.qa")
    with pytest.raises(ConfigError, match=r"fields\.question is missing"):
        check_fields(Source("a", "qa", {"answer": "q"}), ("question",), ("answer",), "domain.qa")
