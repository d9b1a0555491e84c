"""What a comparison looks like in a terminal, as Markdown, and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.evaluation.intervals import Estimate
from stages.evaluation.markdown import estimate, inline, table
from stages.serving.compare_measures import LABELS, Measures
from stages.serving.compare_models import ModelRun
from stages.serving.compare_prompts import AskedPrompt
from stages.serving.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column

SHOWN_PROMPTS = 5  # in the terminal; the files hold all
DIGITS = {"words": 0, "repetition": 2, "copying": 2}
EXPLANATION = (
    "Greedy answers to the same prompts; 95 % intervals in brackets. Style distance: function words and character "
    "3-grams against the author's held-out text, 0 is the same style; beside it what the author's own text and that of "
    "other authors reach in pieces of the same lengths. "
    "Gain: bits per byte below the first model. Repetition: share of 4-grams of words that came before in the answer. "
    "Copying: longest span that stands word for word in the training text, as a share of the answer."
)


def measure_rows(measures: Measures) -> tuple[list[str], list[list[str]]]:
    """(header, rows): a model a row, a measure a column."""
    columns = [key for key in LABELS if any(key in found for found in measures.models.values())]
    rows = [[name, *(_cell(found.get(key), key) for key in columns)] for name, found in measures.models.items()]
    return ["model", *(LABELS[key] for key in columns)], rows


def _cell(found: Estimate | None, key: str) -> str:
    return "-" if found is None else estimate(found, DIGITS.get(key, 3))


def measures_json(measures: Measures) -> dict[str, Any]:
    """metrics.json: every estimate with its interval and n."""
    return {
        "models": {
            name: {key: found[key].to_json() for key in LABELS if key in found}
            for name, found in measures.models.items()
        },
        "longest_copy_words": {name: span.num_words for name, span in measures.longest_copies.items()},
        "notes": measures.notes,
    }


def markdown(prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], measures: Measures) -> str:
    """The measures, then the answers side by side; long ones are cut, answers.jsonl has them whole."""
    header, rows = measure_rows(measures)
    copies = [
        f"- {inline(name)}: {span.num_words} words: {inline(span.text)}"
        for name, span in measures.longest_copies.items()
        if span.num_words
    ]
    answers = [
        [inline(prompt.text), *(inline(run.answers[number]) for run in runs)] for number, prompt in enumerate(prompts)
    ]
    parts = [
        "# " + inline(" against ".join(run.name for run in runs)),
        EXPLANATION,
        table(header, [[inline(row[0]), *row[1:]] for row in rows]),
        *(f"Note: {inline(note)}." for note in measures.notes),
        *(["## Longest spans copied from the training text", "\n".join(copies)] if copies else []),
        "## Answers",
        table(["prompt", *(inline(run.name) for run in runs)], answers),
    ]
    return "\n\n".join(parts) + "\n"


def show(console: Console, prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], measures: Measures) -> None:
    """The measures, one a line, and the first answers side by side."""
    from rich.table import Table
    from rich.text import Text

    header, rows = measure_rows(measures)
    upright = Table(*(_column(row[0]) for row in [header, *rows]), title="Measures", title_justify="left")
    for number, label in enumerate(header[1:], start=1):
        upright.add_row(label, *(row[number] for row in rows))
    console.print(upright)
    for note in measures.notes:
        console.print(Text(f"note: {printable(note)}", style="dim"))
    names = map(_column, ["prompt", *(run.name for run in runs)])
    answers = Table(*names, title="Answers", title_justify="left")
    for number, prompt in enumerate(prompts[:SHOWN_PROMPTS]):
        cells = [prompt.text, *(run.answers[number] for run in runs)]
        answers.add_row(*(Text(printable(cell)) for cell in cells), end_section=True)
    console.print(answers)


def _column(name: str) -> Column:
    """Long words are folded: models stutter, and an ellipsis would hide it."""
    from rich.table import Column
    from rich.text import Text

    return Column(Text(printable(name)), overflow="fold")
