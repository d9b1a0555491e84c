"""`groundtune sft`: look at the pairs that a model wrote, and decide which of them are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.core.errors import DataError
from stages.core.workspace import Workspace
from stages.serving.kb_display import print_json, say
from stages.serving.options import AsJson, DomainName, Params

if TYPE_CHECKING:
    from stages.synthetic.reviews import Pair, Review

State = StrEnum("State", ["proposed", "accepted", "edited", "rejected"])

OfState = Annotated[State | None, typer.Option("--state", help="Only pairs in this state.", show_default=False)]
OfStyle = Annotated[str, typer.Option("--style", help="Only pairs in this style.")]
Ids = Annotated[list[str], typer.Argument(help="Ids of pairs.", show_default=False)]
Note = Annotated[str, typer.Option(help="Why; it is kept with the decision.", show_default=False)]
NEXT = "`dvc repro` brings it into force"
KEYS = "[a]ccept  [e]dit  [r]eject  [s]kip  [q]uit"


def sft_app(params: Params, workspace: Workspace) -> typer.Typer:
    """The group of commands. params: from a domain's name ("": the configured one) to params.yaml as it is for it."""
    app = typer.Typer(no_args_is_help=True, help="Generated questions and answers: list, show, review.")
    commands = GeneratedPairs(params, workspace)
    app.command("list")(commands.list_pairs)
    for command in (commands.show, commands.review, commands.accept, commands.reject, commands.edit):
        app.command()(command)
    return app


class GeneratedPairs:
    """The commands. Decisions are only added to the reviews' file; pairs.jsonl is a product and stays as it is."""

    def __init__(self, params: Params, workspace: Workspace) -> None:
        self._params, self._workspace = params, workspace

    def list_pairs(
        self, state: OfState = None, style: OfStyle = "", domain: DomainName = "", as_json: AsJson = False
    ) -> None:
        """List the pairs and how many are in each state, decisions that are not yet in force included."""
        _, pairs, orphaned = self._reviewed(domain)
        shown = [pair for pair in pairs if _is_wanted(pair, state, style)]
        if as_json:
            print_json({"counts": _counts(pairs), "pairs": [asdict(pair) for pair in shown]})
            return
        for pair in shown:
            say(f"{pair.id}  {pair.state:<8}  {pair.style}  {_first_line(pair.question)}")
        for review in orphaned:
            say(f"orphaned: {review.pair} was {review.state} ({review.at}), and is no longer written")
        say(", ".join(f"{count} {name}" for name, count in _counts(pairs).items()))

    def show(
        self,
        pair: Annotated[str, typer.Argument(help="A pair's id.", show_default=False)],
        domain: DomainName = "",
        as_json: AsJson = False,
    ) -> None:
        """Show a pair with the chunk it was written from."""
        _, pairs, _ = self._reviewed(domain)
        found = _find(pairs, pair)
        text = self._chunk_texts(domain).get(found.chunk, "")
        if as_json:
            print_json({**asdict(found), "chunk_text": text})
        else:
            _show_pair(found, text)

    def review(self, state: OfState = State.proposed, style: OfStyle = "", domain: DomainName = "") -> None:
        """Decide about pair after pair: a accept, e edit, r reject, s skip, q quit. Every decision is kept at once."""
        path, pairs, _ = self._reviewed(domain)
        texts = self._chunk_texts(domain)
        wanted = [pair for pair in pairs if _is_wanted(pair, state, style)]
        num_decided = 0
        for number, pair in enumerate(wanted, start=1):
            say(f"\n({number} of {len(wanted)})")
            _show_pair(pair, texts.get(pair.chunk, ""))
            try:
                decision = _ask(pair)
            except typer.Abort:
                break
            if decision is not None:
                _keep(path, [decision])
                num_decided += 1
        say(f"{num_decided} decided of {len(wanted)}; {NEXT}" if num_decided else "nothing was decided", err=True)

    def accept(self, pairs: Ids, note: Note = "", domain: DomainName = "") -> None:
        """Accept pairs as they are."""
        self._decide(pairs, "accepted", note, domain)

    def reject(self, pairs: Ids, note: Note = "", domain: DomainName = "") -> None:
        """Reject pairs: they are never trained on."""
        self._decide(pairs, "rejected", note, domain)

    def edit(
        self,
        pair: Annotated[str, typer.Argument(help="A pair's id.", show_default=False)],
        question: Annotated[str | None, typer.Option(help="The new question.", show_default=False)] = None,
        answer: Annotated[str | None, typer.Option(help="The new answer.", show_default=False)] = None,
        note: Note = "",
        domain: DomainName = "",
    ) -> None:
        """Correct a pair's question, its answer, or both."""
        if question is None and answer is None:
            raise typer.BadParameter("give --question, --answer, or both")
        path, known, _ = self._reviewed(domain)
        found = _find(known, pair)
        _keep(path, [_edited(found, question, answer, note)])
        say(f"kept in {path}; {NEXT}", err=True)

    def _decide(self, ids: Sequence[str], state: str, note: str, domain: str) -> None:
        from stages.synthetic.reviews import Review, now

        path, pairs, _ = self._reviewed(domain)
        found = [_find(pairs, pair_id) for pair_id in ids]  # all, before anything is written
        _keep(path, [Review(pair.id, state, at=now(), note=note) for pair in found])
        say(f"{len(found)} {state}, kept in {path}; {NEXT}", err=True)

    def _reviewed(self, domain: str) -> tuple[Path, list[Pair], list[Review]]:
        """Where reviews go, the pairs with what was decided by now, and decisions without a pair."""
        from stages.core.jsonl import read_jsonl
        from stages.synthetic.reviews import REVIEWS, Pair, read_reviews, reviewed

        settings = self._params(domain)["domain"]
        path = self._workspace.inputs / settings["curation_dir"] / REVIEWS
        rows = read_jsonl(self._workspace.read(f"data/{settings['name']}/sft/pairs.jsonl"))
        pairs, orphaned = reviewed([Pair(**row).as_generated() for row in rows], read_reviews(path))
        return path, pairs, orphaned

    def _chunk_texts(self, domain: str) -> dict[str, str]:
        from stages.knowledge.knowledge_base import read_chunks

        name = self._params(domain)["domain"]["name"]
        return {chunk.id: chunk.text for chunk in read_chunks(self._workspace.read(f"data/{name}/knowledge.sqlite"))}


def _is_wanted(pair: Pair, state: State | None, style: str) -> bool:
    return (state is None or pair.state == state.value) and style in ("", pair.style)


def _find(pairs: Iterable[Pair], pair_id: str) -> Pair:
    for pair in pairs:
        if pair.id == pair_id:
            return pair
    raise DataError(f"{pair_id}: no pair has this id; `groundtune sft list` names them")


def _counts(pairs: Sequence[Pair]) -> dict[str, int]:
    counts = Counter(pair.state for pair in pairs)
    return {"pairs": len(pairs), **{state.value: counts[state.value] for state in State}}


def _show_pair(pair: Pair, text: str) -> None:
    say(f"{pair.id}: {pair.state}, {pair.style}, by {pair.model}, from {pair.chunk} ({pair.document})")
    say("\n".join(f"    | {line}" for line in text.strip().splitlines()) or "    | (the chunk is no longer there)")
    say(f"Question: {pair.question}\nAnswer: {pair.answer}")
    if pair.original:
        say(f"As written: {pair.original['question']} | {pair.original['answer']}")
    if pair.note:
        say(f"Note: {pair.note}")


def _ask(pair: Pair) -> Review | None:
    """The decision; None: skipped. Raises typer.Abort for the end: q, the end of the input, Ctrl-C."""
    from stages.synthetic.reviews import Review, now

    while True:
        key = typer.prompt(KEYS, prompt_suffix=" > ", default="s", show_default=False).strip().lower()[:1]
        if key == "e":
            question = typer.prompt("Question", default=pair.question)
            return _edited(pair, question, typer.prompt("Answer", default=pair.answer), "")
        if key in ("a", "r"):
            return Review(pair.id, "accepted" if key == "a" else "rejected", at=now())
        if key == "q":
            raise typer.Abort
        if key == "s":
            return None


def _edited(pair: Pair, question: str | None, answer: str | None, note: str) -> Review:
    from stages.synthetic.reviews import Review, now

    question = (pair.question if question is None else question).strip()
    answer = (pair.answer if answer is None else answer).strip()
    if not question or not answer:
        raise DataError(f"{pair.id}: a pair has a question and an answer; to leave it out, reject it")
    return Review(pair.id, "edited", question, answer, now(), note)


def _keep(path: Path, reviews: Iterable[Review]) -> None:
    from stages.synthetic.reviews import append_review

    for review in reviews:
        append_review(path, review)


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
