"""What a file of records is good for: questions with answers, passages of text, or pairs of texts with a number.

    {"frage": "Wer?", "antwort": "Lona.", "quelle": "b1"}   -> Found(role="qa", fields={"question": "frage", ...})
    {"messages": [...]}                                     -> Found(role="qa", format="chat")
    {"chapter": "I", "text": "...", "questions": [...]}     -> Found(role="texts", fields={"text": "text", ...})
    {"sentence1": "...", "sentence2": "...", "score": 3.6}  -> Found(role="pairs", fields={"a": "sentence1", ...})

Formats go by what `stages.formats` finds, other files by the names of their fields, in a few languages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from stages.core.jsonl import Line
from stages.formats.conversation import Flaw
from stages.formats.first_turns import first_turn
from stages.formats.formats import FORMATS, format_of

Row = Mapping[str, Any]
QUESTION = ("question", "q", "query", "вопрос", "frage", "pregunta", "pytanie", "domanda", "pergunta")
ANSWER = ("answer", "a", "reply", "response", "ответ", "antwort", "respuesta", "réponse", "reponse", "odpowiedź",
          "risposta", "resposta")  # fmt: skip
TITLE = ("title", "subject", "headline", "заголовок", "titel", "titre", "título")
SOURCE = ("source_document", "source", "document", "document_id", "doc_id", "doc", "file", "question_id", "thread",
          "thread_id", "url", "title", "источник", "документ", "quelle", "fuente")  # fmt: skip
TEXT = ("text", "content", "passage", "chunk", "body", "paragraph", "текст", "inhalt", "texto", "texte")
DOCUMENT = ("book", "document", "doc_id", "doc", "source", "file", "книга", "документ", "title")
PART = ("part", "часть", "teil", "partie")
SECTION = ("section", "chapter", "heading", "title", "глава", "раздел", "kapitel", "chapitre", "capítulo")
QUESTIONS = ("questions", "potential_questions", "вопросы", "fragen")
VALUE = ("score", "similarity", "relatedness", "correlation", "value", "label", "rating", "оценка", "сходство")
COUNTER = re.compile(r"id|index|idx|n|no|num|number|row|year|date|.*_id|.*_at", re.IGNORECASE)
SIDE = re.compile(r"(.*?)[_ -]?(1|2|a|b|left|right)", re.IGNORECASE)
SIDES = (("1", "2"), ("a", "b"), ("left", "right"))
MIN_PASSAGE_CHARS = 80  # on average; shorter "texts" are labels or names
SAMPLE = 500  # rows that decide


@dataclass(frozen=True)
class Found:
    """role: qa | texts | pairs, "" where nobody knows. fields: ours -> the file's. values: of pairs, all of them."""

    role: str
    format: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def how(self) -> str:
        """How it was recognised, for people."""
        return f"format {self.format}" if self.format else f"fields {', '.join(self.fields.values())}"


def recognise(lines: Sequence[Line]) -> Found:
    """What the records are; broken ones have no say."""
    rows = [line.value for line in lines if not line.error]
    sample = rows[:SAMPLE]
    keys = list(dict.fromkeys(key for row in sample for key in row))
    named = sorted({name for row in sample if (name := format_of(row))}, key=lambda n: -_num_of(sample, n))
    if named and (named[0] != "qa" or {"answers", "context"} & set(keys)):
        return Found("qa", named[0], _source(sample, keys, taken=()), keys)
    if fields := _qa_fields(sample, keys):
        taken = tuple(name for expression in fields.values() for name in expression.split(" | "))
        return Found("qa", "", fields | _source(sample, keys, taken), keys)
    if fields := _pair_fields(sample, keys):
        values = [value for row in rows if (value := number(row.get(fields["value"]))) is not None]
        return Found("pairs", "", fields, keys, values)
    if fields := _text_fields(sample, keys):
        return Found("texts", "", fields, keys)
    return Found("", keys=keys)


def question_and_answer(row: Row, found: Found) -> tuple[str, str] | None:
    """What `clean_qa` would read; None where it would reject the record."""
    if found.format:
        try:
            turn = first_turn(FORMATS[found.format].read(row), found.format == "alpaca")
        except Flaw:
            return None
        return turn.question.strip(), turn.answer.strip()
    question, answer = (
        next((text for key in found.fields[name].split(" | ") if (text := str(row.get(key) or "").strip())), "")
        for name in ("question", "answer")
    )
    return (question, answer) if question and answer else None


def number(value: Any) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None


def _num_of(rows: Sequence[Row], name: str) -> int:
    return sum(format_of(row) == name for row in rows)


def _named(keys: Sequence[str], names: Sequence[str]) -> str:
    """The key that bears the first of the names, in whatever case; "" where none does."""
    by_name = {key.strip().casefold(): key for key in reversed(keys)}
    return next((by_name[name] for name in names if name in by_name), "")


def _qa_fields(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, str]:
    question, answer = _named(keys, QUESTION), _named(keys, ANSWER)
    texts = [row.get(answer) for row in rows]
    # `q` and `a` may also be the sides of a pair, or numbers
    if not question or not answer or not any(isinstance(text, str) and number(text) is None for text in texts):
        return {}
    title = _named(keys, TITLE)
    if title and any(not str(row.get(question) or "").strip() and row.get(title) for row in rows):
        question = f"{question} | {title}"
    return {"question": question, "answer": answer}


def _source(rows: Sequence[Row], keys: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """A field that several records share, and not all: they come from one document, or answer one question."""
    for name in SOURCE:
        key = _named(keys, (name,))
        values = [row.get(key) for row in rows if isinstance(row.get(key), str | int) and row.get(key) != ""]
        if key and key not in taken and len(values) == len(rows) and 1 < len(set(values)) < len(values):
            return {"source_document": key}
    return {}


def _text_fields(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, str]:
    text, questions = _named(keys, TEXT), _named(keys, QUESTIONS)
    lengths = [len(row[text]) for row in rows if isinstance(row.get(text), str)]
    if not lengths or (not questions and sum(lengths) / len(lengths) < MIN_PASSAGE_CHARS):
        return {}
    section = [key for key in (_named(keys, PART), _named(keys, SECTION)) if key]
    found = {"document": _named(keys, DOCUMENT), "section": " + ".join(section), "text": text, "questions": questions}
    return {name: key for name, key in found.items() if key}


def _pair_fields(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, str]:
    numeric = [key for key in keys if _all_numbers(rows, key) and not COUNTER.fullmatch(key)]
    texts = [key for key in keys if _mostly_text(rows, key)]
    value = _named(numeric, VALUE) or (numeric[0] if len(numeric) == 1 else "")
    sides = next((pair for pair in combinations(texts, 2) if _are_sides(*pair)), None)
    if sides is None and len(texts) == 2 and len(keys) <= 5 and not _named(keys, TEXT):  # a text with its title is none
        sides = (texts[0], texts[1])
    return {"a": sides[0], "b": sides[1], "value": value} if sides and value else {}


def _all_numbers(rows: Sequence[Row], key: str) -> bool:
    values = [number(row.get(key)) for row in rows if row.get(key) not in (None, "")]
    return len(set(values)) > 1 and None not in values


def _mostly_text(rows: Sequence[Row], key: str) -> bool:
    """Texts that differ, and not a category or an id."""
    values = [row[key] for row in rows if isinstance(row.get(key), str) and number(row[key]) is None]
    words = sum(len(value.split()) for value in values)
    return 2 * len(values) > len(rows) and words >= 2 * len(values) and len(set(values)) * 10 > len(values)


def _are_sides(one: str, other: str) -> bool:
    first, second = SIDE.fullmatch(one), SIDE.fullmatch(other)
    if not first or not second or first[1].casefold() != second[1].casefold():
        return False
    return (first[2].casefold(), second[2].casefold()) in SIDES
