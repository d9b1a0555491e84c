"""Words, stems and snippets of the knowledge base."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge import kb_fulltext
from stages.knowledge.kb_fulltext import SNIPPET_WORDS, Filter, ranked, snippet
from stages.knowledge.kb_stemming import language_of, stem, stems
from stages.knowledge.knowledge_base import open_knowledge, write_knowledge
from stages.knowledge.records import Chunk

TEXTS = [
    ("mills.pdf", "Bako", "The miller of Bako was grinding corn by the river."),
    ("mills.pdf", "Bako", "It is said that the mills of the valley are old, and that they were built by a guild."),
    ("ru.txt", "Мельница", "На мельницах жили мельники, ёлка стояла у большо́й реки."),
    ("de.txt", "Mühle", "Die Häuser an der Mühle sind nicht alt, und das Korn ist auf dem Boden."),
    ("fr.txt", "", "Le café du moulin: première maison à gauche."),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kb") / "knowledge.sqlite"
    kinds = ["book", "book", "article", "article", "article"]
    chunks = [
        Chunk(f"c-{n}", kinds[n], document, section, n, text) for n, (document, section, text) in enumerate(TEXTS)
    ]
    write_knowledge(path, [], chunks)
    return path


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("grinds", [1]),
        ("GRINDING", [1]),
        ("milling", [2]),  # mills; miller is another stem
        ("мельницей", [3]),
        ("МЕЛЬНИКОВ", [3]),
        ("елка", [3]),
        ("большои\u0306", [3]),  # й of two characters, and the text has a stress mark
        ("Haus", [4]),
        ("hauser", [4]),
        ("cafe", [5]),
        ("Gauches", [5]),  # by the rules of English, as the text
        ("valley guild corn", [2, 1]),  # two of the words before one
        ("zebra", []),
        ("", []),
        ("?! --", []),
    ],
)
def test_ranking(path: Path, query: str, expected: list[int]) -> None:
    with open_knowledge(path) as connection:
        assert ranked(connection, query, 10) == expected


def test_limit_and_filter(path: Path) -> None:
    with open_knowledge(path) as connection:
        assert set(ranked(connection, "corn korn guild", 10)) == {1, 2, 4}
        assert len(ranked(connection, "corn korn guild", 1)) == 1
        assert ranked(connection, "corn korn guild", 10, Filter(kind="article")) == [4]
        assert ranked(connection, "corn korn guild", 10, Filter(document="mills")) == ranked(
            connection, "corn guild", 9
        )
        assert ranked(connection, "corn", 10, Filter(document="m_lls")) == []


@given(st.text())
def test_any_query_is_harmless(path: Path, query: str) -> None:
    with open_knowledge(path) as connection:
        assert set(ranked(connection, query, 9)) <= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    "query", ['"', "a AND", "section:bako", "NEAR(a b)", "corn*", "'; DROP TABLE chunks", "_", "^a"]
)
def test_syntax_is_taken_as_words(path: Path, query: str) -> None:
    with open_knowledge(path) as connection:
        ranked(connection, query, 10)
        assert ranked(connection, "corn", 10) == [1]


def test_frequent_words_change_nothing_but_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are those of all words, although chunks are found by the rare ones."""
    words = [f"the {'wheel ' * (n % 3 == 0)}{'stone ' * (n % 5 == 0)}w{n % 40} {'x ' * (n % 7)}" for n in range(400)]
    write_knowledge(
        tmp_path / "k.sqlite", [], [Chunk(f"c-{n}", "book", f"{n}", "", 0, text) for n, text in enumerate(words)]
    )
    with open_knowledge(tmp_path / "k.sqlite") as connection:
        whole = ranked(connection, "w7 the wheel stone", 10)
        monkeypatch.setattr(kb_fulltext, "MAX_FOUND", 20)
        assert kb_fulltext._by_rarity(connection, [["w7"], ["the"], ["wheel"], ["stone"]]) == (
            ["w7"],
            ["stone", "wheel"],
        )
        assert ranked(connection, "w7 the wheel stone", 10) == whole
        assert len(ranked(connection, "the", 10)) == 10  # no rarer word: then this one


def test_stems_and_languages() -> None:
    assert stems("The mills of Bákö_2", "english") == ["the", "mill", "of", "bako", "2"]
    assert stems("на мельницах", "english") == ["на", "мельниц"]
    assert stem("Häuser", "german") == stem("haus", "german") == "haus"
    assert [language_of(text) for _, _, text in TEXTS] == ["english", "english", "english", "german", "english"]
    assert language_of("") == "english"


def marked(text: str, query: str) -> list[str]:
    found = snippet(text, query, ["english"])
    return [found.text[begin:end] for begin, end in found.marks]


def test_snippets_show_the_text_and_mark_the_words() -> None:
    assert marked("Bako is a mill.\nIt ground  the Corn.", "mills CORN, ground!") == ["mill", "ground", "Corn"]
    found = snippet("Bako is a mill.\nIt ground corn.", "corn", ["english"])
    assert (found.text, found.marks) == ("Bako is a mill. It ground corn.", [(26, 30)])
    assert snippet("Nothing of it.", "zebra", ["english"]).marks == []
    assert snippet("", "zebra", ["english"]).text == ""


def test_snippets_of_long_texts_are_where_most_words_are() -> None:
    text = f"corn {'filler ' * 100}the mill ground corn there {'filler ' * 100}"
    found = snippet(text, "ground corn mill", ["english"])
    assert found.text.startswith("… filler") and found.text.endswith("filler …")
    assert len(found.text.strip("… ").split()) == SNIPPET_WORDS
    assert [found.text[begin:end] for begin, end in found.marks] == ["mill", "ground", "corn"]
    last = snippet(f"{'filler ' * 100}corn.", "corn", ["english"])
    assert last.text.endswith("filler corn.") and [last.text[b:e] for b, e in last.marks] == ["corn"]


@given(st.text(), st.text())
def test_any_text_has_a_snippet(text: str, query: str) -> None:
    found = snippet(text, query, ["english", "german"])
    assert all(0 <= begin < end <= len(found.text) for begin, end in found.marks)
    assert "\n" not in found.text
