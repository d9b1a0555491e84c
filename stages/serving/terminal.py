"""The conversation in a terminal: streams answers, shows their sources, obeys commands.

Everything that a model or a document says is untrusted: control characters never reach the terminal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from stages.core.errors import GroundtuneError
from stages.prompts.renderer import Turn
from stages.retrieval.documents import Document
from stages.serving.answering import Answerer, Request
from stages.serving.finding import numbers
from stages.serving.releases import is_release

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed: ESC would start a command
PROMPT = "\001\033[1;36m\002you>\001\033[0m\002 "  # \001 and \002 tell readline what takes no room

HELP = """\
/docs             the documents of the last answer, in full
/docs on|off      look up documents, or answer without any
/model            which model answers
/model NAME       switch: tuned (book and RAG LoRA), book (without the LoRA), base (as it came), or a style adapter
/set              which set of documents is searched
/set NAME         switch to this set; /set all searches all
/reset            forget the conversation so far
/help             this list
/quit             leave; Ctrl-D does so too, Ctrl-C stops an answer"""


class Chat:
    """One conversation. `interactive`: a person types, so Ctrl-C stops an answer and not the program."""

    def __init__(
        self,
        answerer: Answerer,
        console: Console,
        model: str = "tuned",
        use_documents: bool = True,
        show_documents: bool = False,
        interactive: bool = True,
    ) -> None:
        self.answerer, self.console, self.interactive = answerer, console, interactive
        self.model, self.use_documents, self.show_documents = model, use_documents, show_documents
        self.document_set = ""
        self.history: list[Turn] = []
        self.documents: list[Document] = []
        self.num_errors = 0
        self.commands: dict[str, Callable[[str], None]] = {
            "/docs": self._docs,
            "/model": self._model,
            "/set": self._set,
            "/reset": self._reset,
            "/help": lambda argument: self._say(HELP),
        }

    def run(self, lines: Iterable[str]) -> None:
        """Takes line after line until they end or one says /quit. Our errors are shown, and the chat goes on."""
        for line in lines:
            line = line.strip()
            if line in ("/quit", "/exit"):
                break
            if not line:
                continue
            if not self.interactive:
                self.console.print(Text(f"> {printable(line)}", style="bold"))
            try:
                self._command(line) if line.startswith("/") else self._answer(line)
            except GroundtuneError as error:
                self.num_errors += 1
                self.console.print(Text(f"error: {printable(str(error))}", style="red"))

    def _command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        action = self.commands.get(name)
        if action is None:
            self.num_errors += 1
            self._say(f"unknown command {printable(name)}\n{HELP}", "yellow")
        else:
            action(argument.strip())

    def _docs(self, argument: str) -> None:
        if argument in ("on", "off"):
            self.use_documents = argument == "on"
            self._say("answers look up documents" if self.use_documents else "answers come without documents")
        elif argument:
            self.num_errors += 1
            self._say("/docs takes on, off, or nothing", "yellow")
        elif self.documents:
            show_documents(self.console, self.documents)
        else:
            self._say("the last answer had no documents")

    def _model(self, argument: str) -> None:
        choices = self.answerer.choices
        if argument and argument not in choices and not is_release(argument):
            self.num_errors += 1
            self._say(f"no such model {printable(argument)}: choose from {', '.join(choices)}", "yellow")
            return
        if argument:
            with self.console.status(f"loading {argument}"):
                self.answerer.load(argument, use_documents=False)
            self.model = argument
        self._say(f"{self.model} answers")

    def _set(self, argument: str) -> None:
        sets = self.answerer.sets
        if argument and argument != "all" and argument not in sets:
            self.num_errors += 1
            self._say(f"no such set {printable(argument)}: choose from {', '.join(['all', *sets])}", "yellow")
            return
        if argument:
            self.document_set = "" if argument == "all" else argument
        self._say(f"searches {self.document_set or 'all documents'}")

    def _reset(self, argument: str) -> None:
        self.history, self.documents = [], []
        self._say("forgotten; a new conversation begins")

    def _answer(self, question: str) -> None:
        pieces: list[str] = []
        try:
            with self.console.status("searching"):
                request = self.answerer.prepare(
                    question, self.model, self.use_documents, self.history, self.document_set
                )
            for piece in self.answerer.stream(request):
                shown = piece if pieces else piece.lstrip()  # an answer begins with a word
                if shown:
                    pieces.append(shown)
                    self.console.print(Text(printable(shown)), end="", soft_wrap=True)
            self.console.print()
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            self.console.print(Text(" (stopped)", style="yellow"))
            return
        # what was dropped once would be dropped again: forget it
        self.history = [*self.history[request.num_dropped_turns :], Turn(question, "".join(pieces).strip())]
        self.documents = request.documents
        self._show_sources(request)

    def _show_sources(self, request: Request) -> None:
        for note in dropped(request):
            self._say(note, "yellow")
        if self.show_documents:
            show_documents(self.console, request.documents)
        else:
            show_sources(self.console, request.documents)
        if self.use_documents and not request.documents and not request.num_dropped_documents:
            self._say("no document is near enough: answered without")

    def _say(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(text, style=style))


def printable(text: str) -> str:
    """`text` without control characters other than tab and line feed."""
    return CONTROL.sub("", text)


def dropped(request: Request) -> list[str]:
    """What did not fit into the prompt, in words."""
    notes = []
    if request.num_dropped_turns:
        notes.append(f"the oldest {request.num_dropped_turns} turns did not fit and are forgotten")
    if request.num_without_siblings:
        notes.append(f"{request.num_without_siblings} of the documents did not fit with the chunks around them")
    if request.num_dropped_documents:
        notes.append(f"{request.num_dropped_documents} of the documents did not fit into the prompt and were left out")
    return notes


def source_line(number: int, document: Document) -> str:
    """`[1] book, Chapter 3, #30-32, distance 0.113`."""
    hit = document.hit
    place = [hit.document] if hit.section in ("", hit.document) else [hit.document, hit.section]
    if hit.kind != "qa":
        place.append(f"#{numbers(document)}")
    place.append(f"distance {document.distance:.3f}")
    return printable(f"[{number}] {hit.kind}: {', '.join(place)}")


def show_sources(console: Console, documents: Sequence[Document]) -> None:
    """One line for each document."""
    for number, document in enumerate(documents, start=1):
        console.print(Text(source_line(number, document), style="dim"))


def show_documents(console: Console, documents: Sequence[Document]) -> None:
    """Every document in full, as it stood in the prompt."""
    for number, document in enumerate(documents, start=1):
        title = Text(source_line(number, document))
        console.print(Panel(Text(printable(document.text)), title=title, title_align="left", border_style="dim"))


def typed_lines() -> Iterator[str]:
    """What a person types, with line editing; Ctrl-C clears the line, Ctrl-D ends."""
    with suppress(ImportError):  # not on every system
        import readline  # noqa: F401  # gives input() its line editing and history
    while True:
        try:
            yield input(PROMPT)
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl-D leaves)")
        except EOFError:
            print()
            return


def piped_lines() -> Iterator[str]:
    """One question or command per line of standard input, whatever its bytes are."""
    for raw in sys.stdin.buffer:
        yield raw.decode("utf-8", errors="replace")
