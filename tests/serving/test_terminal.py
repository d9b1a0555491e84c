from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pytest
from rich.console import Console

from stages.core.errors import DataError
from stages.knowledge.records import IndexRecord
from stages.prompts.renderer import Turn
from stages.retrieval.documents import Document
from stages.serving import terminal
from stages.serving.answering import Request
from stages.serving.terminal import Chat, printable, source_line


def chunk(number: int) -> IndexRecord:
    return IndexRecord(f"book-{number}", "book", "book", "Chapter 3", number, [], f"Bako is mill {number}.")


DOCUMENT = Document(chunk(31), 0.1134, (chunk(30), chunk(31)))


class Echo:
    """Answers with the model's name and the question; knows a few magic questions."""

    choices = ("tuned", "book", "base", "socratic")
    sets = ("medical", "legal")

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.histories: list[list[Turn]] = []
        self.searched: list[str] = []

    def load(self, model: str, use_documents: bool = True) -> None:
        if model == "base":
            raise DataError("models/base/x: no such file or folder; run `dvc repro`")
        self.loaded.append(model)

    def prepare(
        self, question: str, model: str, use_documents: bool, history: Sequence[Turn], document_set: str
    ) -> Request:
        self.histories.append(list(history))
        self.searched.append(document_set)
        if question == "too long":
            raise DataError("the question is too long")
        num_turns = 1 if question == "long" else 0
        num_documents = 1 if question == "long" else 0
        documents = [DOCUMENT] if use_documents and question != "far" else []
        return Request(question, model, documents, [1, 2], num_documents, num_documents, num_turns)

    def stream(self, request: Request) -> Iterator[str]:
        yield "\n \n"
        yield f" {request.model} "
        if request.question == "endless":
            raise KeyboardInterrupt
        if request.question == "evil":
            yield "\x1b[2J\x9b31m\rred"
        yield f"says {request.question}"


def talk(*lines: str, interactive: bool = False, echo: Echo | None = None, **options: bool) -> tuple[str, Chat]:
    out = io.StringIO()
    chat = Chat(echo or Echo(), Console(file=out, width=100), interactive=interactive, **options)  # type: ignore[arg-type]
    chat.run(lines)
    return out.getvalue(), chat


def test_an_answer_and_its_sources() -> None:
    text, chat = talk("Who?\n", "\n")
    assert text == "> Who?\ntuned says Who?\n[1] book: book, Chapter 3, #30-31, distance 0.113\n"
    assert chat.num_errors == 0


def test_the_conversation_is_remembered_until_reset() -> None:
    echo = Echo()
    talk("one", "two", "/reset", "three", echo=echo)
    assert echo.histories == [[], [Turn("one", "tuned says one")], []]


def test_turns_that_did_not_fit_are_forgotten_and_said_so() -> None:
    echo = Echo()
    text, _ = talk("one", "long", "three", echo=echo)
    assert echo.histories[2] == [Turn("long", "tuned says long")]
    assert "the oldest 1 turns did not fit" in text
    assert "1 of the documents did not fit into the prompt" in text
    assert "1 of the documents did not fit with the chunks around them" in text


def test_docs_off_and_on_and_in_full() -> None:
    text, chat = talk("/docs", "/docs off", "one", "/docs on", "two", "/docs")
    assert text.count("[1] book") == 2  # after `two`, and in full
    assert text.count("Bako is mill 30.") == 1
    assert "the last answer had no documents" in text
    assert chat.num_errors == 0


def test_show_docs_shows_them_after_each_answer() -> None:
    text, _ = talk("one", show_documents=True)
    assert "Bako is mill 30." in text and "Bako is mill 31." in text


def test_no_document_near_enough_is_said() -> None:
    assert "no document is near enough" in talk("far")[0]
    assert "no document is near enough" not in talk("far", use_documents=False)[0]


def test_the_model_is_switched_in_the_middle_and_the_history_stays() -> None:
    echo = Echo()
    text, chat = talk("one", "/model book", "two", "/model", echo=echo)
    assert "book says two" in text and text.count("book answers") == 2
    assert echo.loaded == ["book"]
    assert echo.histories[1] == [Turn("one", "tuned says one")]
    assert chat.num_errors == 0


def test_a_model_that_is_not_there_leaves_the_old_one() -> None:
    text, chat = talk("/model base", "one")
    assert "error: models/base/x" in text and "tuned says one" in text
    assert chat.num_errors == 1


@pytest.mark.parametrize(
    ("line", "explained"),
    [
        ("/modle", "unknown command /modle"),
        ("/model best", "no such model best: choose from tuned, book, base"),
        ("/docs maybe", "/docs takes on, off, or nothing"),
        ("too long", "error: the question is too long"),
    ],
)
def test_mistakes_are_explained_counted_and_the_chat_goes_on(line: str, explained: str) -> None:
    text, chat = talk(line, "next")
    assert explained in text
    assert "tuned says next" in text
    assert chat.num_errors == 1


def test_help_names_every_command() -> None:
    text, chat = talk("/help")
    assert all(command in text for command in [*chat.commands, "/quit"])


@pytest.mark.parametrize("word", ["/quit", "/exit"])
def test_quit_ends_it(word: str) -> None:
    assert "after" not in talk(word, "after")[0]


def test_ctrl_c_stops_the_answer_only() -> None:
    echo = Echo()
    text, _ = talk("endless", "next", interactive=True, echo=echo)
    assert "(stopped)" in text and "tuned says next" in text
    assert echo.histories[1] == []  # half an answer is no turn


def test_ctrl_c_ends_a_piped_chat() -> None:
    with pytest.raises(KeyboardInterrupt):
        talk("endless", "next")


def test_a_model_cannot_command_the_terminal() -> None:
    text, _ = talk("evil", "\x1b]0;title\x07")
    assert "\x1b" not in text and "\x9b" not in text and "\r" not in text
    assert "red" in text


def test_markup_in_texts_means_nothing() -> None:
    assert "[bold]x[/bold]" in talk("[bold]x[/bold]")[0]


def test_printable_keeps_letters_tabs_and_lines() -> None:
    assert printable("a\tб\n\x00\x1b\x7f\x85c") == "a\tб\nc"


def test_a_question_with_its_answer_has_no_number_in_its_source() -> None:
    record = IndexRecord("qa-7", "qa", "qa-7", "", 0, [], "Yes.")
    assert source_line(2, Document(record, 0.25, (record,))) == "[2] qa: qa-7, distance 0.250"


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str | type[BaseException]] = ["one", KeyboardInterrupt, "two", EOFError]

    def typed(prompt: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("builtins.input", typed)
    assert list(terminal.typed_lines()) == ["one", "two"]


def test_piped_bytes_that_are_no_text_do_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\xfe\ntwo")))
    assert list(terminal.piped_lines()) == ["one\n", "\ufffd\ufffd\n", "two"]


def test_a_set_of_documents_is_chosen_in_the_middle_of_a_conversation() -> None:
    echo = Echo()
    text, chat = talk("one", "/set legal", "two", "/set", "/set all", "three", "/set sport", echo=echo)
    assert echo.searched == ["", "legal", ""]
    assert text.count("searches legal\n") == 2 and "searches all documents\n" in text
    assert "no such set sport: choose from all, medical, legal" in text and chat.num_errors == 1
    assert echo.histories[2] == [Turn("one", "tuned says one"), Turn("two", "tuned says two")]


def test_a_style_adapter_is_one_of_the_models() -> None:
    text, _ = talk("/model socratic", "Who?")
    assert "socratic answers" in text and "socratic says Who?" in text
