"""`groundtune convert`: a file of questions, answers or conversations, checked line by line and written anew."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stages.formats.conversion import Conversion

SHOWN_REJECTIONS = 20

FormatName = StrEnum("FormatName", ["chat", "sharegpt", "alpaca", "qa", "prompt_completion", "csv"])
ToolCalls = StrEnum("ToolCalls", ["keep", "reject"])

Source = Annotated[Path, typer.Argument(metavar="IN", help="JSON lines, a JSON list, CSV or TSV.", show_default=False)]
Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="[OUT]",
        help=".jsonl, .json, .csv or .tsv; its suffix says how it is written. Left out: IN is only checked.",
        show_default=False,
    ),
]
To = Annotated[FormatName | None, typer.Option(help="The format to write; else as it came.", show_default=False)]
From = Annotated[
    FormatName | None, typer.Option("--from", help="The format of IN; else it is found out.", show_default=False)
]
Calls = Annotated[
    ToolCalls, typer.Option(help="Conversations with tool calls: keep them, or reject them by the tools' names.")
]
Rejected = Annotated[
    Path | None, typer.Option(help="JSON lines of what was rejected: origin, reason, detail.", show_default=False)
]


def convert(
    source: Source,
    target: Target = None,
    to: To = None,
    from_: From = None,
    tool_calls: Calls = ToolCalls.keep,
    rejected: Rejected = None,
) -> None:
    """Convert training data between formats, and check it line by line.

    \b
    chat               {"messages": [{"role": "user", "content": ...}, ...]}, tool calls too
    sharegpt           {"conversations": [{"from": "human", "value": ...}, ...]}
    alpaca             {"instruction": ..., "input": ..., "output": ...}, with history
    qa                 {"question": ..., "context": ..., "answer": ...}, SQuAD files too
    prompt_completion  {"prompt": ..., "completion": ...}, as texts or as messages
    csv                columns question, context, answer and others

    Every record is kept, or rejected with file:line and a reason. What the target cannot hold is counted.

    \b
    groundtune convert qa.csv train.jsonl --to chat
    groundtune convert talks.json pairs.csv --to csv --rejected rejected.jsonl
    groundtune convert train.jsonl                     # only check
    groundtune convert train.jsonl --to alpaca         # only say what would be lost
    """
    from stages.formats.conversion import convert as convert_file

    conversion = convert_file(source, target, to or "", from_ or "", tool_calls == ToolCalls.keep)
    if rejected is not None:
        conversion.ledger.write(rejected)
    for line in summary(conversion):
        typer.echo(line, err=True)


def summary(conversion: Conversion) -> list[str]:
    """What a person wants to know: rejections first, losses, the count last."""
    from stages.formats.conversion import LOSSES

    ledger = conversion.ledger
    lines = [
        f"rejected {rejection['origin']}: {rejection['reason']} {rejection['detail']}".rstrip()
        for rejection in ledger.rejections[:SHOWN_REJECTIONS]
    ]
    if ledger.num_rejected > SHOWN_REJECTIONS:
        lines.append(f"... and {ledger.num_rejected - SHOWN_REJECTIONS} more; --rejected FILE lists them all")
    lines += [f"lost {kind}: {count} times: {LOSSES[kind]}" for kind, count in conversion.losses.items()]
    counts = f"{ledger.num_read} read, {ledger.num_kept} kept, {ledger.num_rejected} rejected"
    return [*lines, f"{conversion.source} -> {conversion.target}: {counts}"]
