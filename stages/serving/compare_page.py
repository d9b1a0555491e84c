"""The HTML page of a comparison: one file, no server, nothing loaded from anywhere.

The reader sees two answers without names, in an order drawn for each prompt and pair, and says which is better. What
was said stays in the browser until it is downloaded as JSON lines, in the format that preference training reads:

    {"prompt": [{"role": "user", ...}], "chosen": [{"role": "assistant", ...}], "rejected": [...],
     "chosen_model": "tuned", "rejected_model": "base"}
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from stages.core.fingerprint import fingerprint
from stages.core.seeding import derived_random
from stages.serving.compare_measures import Measures
from stages.serving.compare_models import ModelRun
from stages.serving.compare_page_parts import SCRIPT, STYLE
from stages.serving.compare_prompts import AskedPrompt
from stages.serving.compare_show import EXPLANATION, measure_rows

# Nothing may be fetched, whatever stands in an answer
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], measures: Measures, seed: int) -> str:
    """The whole page; the same comparison gives the same bytes."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Which answer is better?</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Which answer is better?</h1>
<p class="dim">Two answers to the same prompt, without names, in random order. Keys: <kbd>1</kbd> left,
<kbd>2</kbd> no difference, <kbd>3</kbd> right, <kbd>Backspace</kbd> back.</p>
<progress id="progress" aria-label="answered"></progress> <span id="count" class="dim"></span>
<section id="vote" aria-live="polite">
<h2>Prompt</h2>
<details id="system-box"><summary>System message</summary><div id="system" class="text"></div></details>
<div id="prompt" class="text"></div>
<div class="pair">
<article><h2>A</h2><div id="a" class="text"></div></article>
<article><h2>B</h2><div id="b" class="text"></div></article>
</div>
<div class="buttons">
<button id="vote-a">A is better</button><button id="vote-tie">No difference</button>
<button id="vote-b">B is better</button>
</div>
</section>
<section id="done" hidden><h2>Result</h2><div id="result"></div></section>
<div class="buttons"><button id="back">Back</button><button id="download">Download preferences</button>
<span id="kept" class="dim"></span></div>
<details id="measures"><summary>Measures (names the models)</summary>
<p class="dim">{html.escape(EXPLANATION)}</p>
<div class="wide">{_table(measures)}</div>
{"".join(f"<p>Note: {html.escape(note)}.</p>" for note in measures.notes)}
</details>
<details id="all"><summary>All answers side by side (names the models)</summary>
<div class="wide">{_answers(prompts, runs)}</div>
</details>
<noscript><p>Voting needs JavaScript; the answers above do not.</p></noscript>
</main>
<script type="application/json" id="data">{_embedded(_data(prompts, runs, seed))}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _data(prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun], seed: int) -> dict[str, Any]:
    """models: names. prompts: messages and an answer a model. pairs: prompt, left model, right model, in the order
    they are shown; equal answers are no pair."""
    pairs = []
    for number, prompt in enumerate(prompts):
        for left, right in combinations(range(len(runs)), 2):
            if runs[left].answers[number] == runs[right].answers[number]:
                continue
            rng = derived_random(seed, "sides", prompt.origin, runs[left].name, runs[right].name)
            pairs.append([number, left, right] if rng.random() < 0.5 else [number, right, left])
    derived_random(seed, "order of pairs").shuffle(pairs)
    asked = [
        {"messages": list(prompt.messages), "answers": [run.answers[number] for run in runs]}
        for number, prompt in enumerate(prompts)
    ]
    data = {"models": [run.name for run in runs], "prompts": asked, "pairs": pairs}
    return {**data, "key": f"groundtune-{fingerprint(data)[:16]}"}


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _table(measures: Measures) -> str:
    header, rows = measure_rows(measures)
    return _rows(header, rows)


def _answers(prompts: Sequence[AskedPrompt], runs: Sequence[ModelRun]) -> str:
    rows = [[prompt.text, *(run.answers[number] for run in runs)] for number, prompt in enumerate(prompts)]
    return _rows(["prompt", *(run.name for run in runs)], rows)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
