"""A measured style for people: a table with intervals, and a picture beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.atomic import write_text
from stages.evaluation.figures import COLOURS, new_figure, save_figure
from stages.evaluation.intervals import Estimate, ratio_estimate
from stages.evaluation.markdown import estimate, inline, table
from stages.style.profile import PUNCTUATION, StyleProfile, histogram

BIN_WORDS, NUM_BINS = 5, 10
LABELS = {
    "words_per_sentence": "words per sentence",
    "words_per_paragraph": "words per paragraph",
    "letters_per_word": "letters per word",
    "long_words_share": "share of words of 7 letters and more",
    "word_variety": "distinct words in 100 (share)",
    "dialogue_share": "share of words in dialogue",
    "first_person_share": "first person among pronouns of the narration",
    "second_person_share": "second person",
    "third_person_share": "third person",
    "past_tense_share": "past among the narration's cues of tense",
    **{f"{mark}_per_1000": f"{mark.replace('_', ' ')} per 1,000 words" for mark in PUNCTUATION},
}


def write_style_report(
    path: Path, name: str, profile: StyleProfile, system_prompt: str, metrics: Mapping[str, Any], seed: int
) -> None:
    """Writes the Markdown file `path`, and the picture with the same name in PNG."""
    found = estimates(profile, seed)
    picture = path.with_suffix(".png")
    draw_style(picture, profile, found)
    rows = [[LABELS[feature], estimate(number), str(number.n)] for feature, number in found.items()]
    low, middle, high = (profile.sentence_quantile(share) for share in (0.1, 0.5, 0.9))
    parts = [
        f"# The style of {inline(name)}",
        f"Measured on {metrics['num_train']:,} training passages ({metrics['num_train_tokens']:,} tokens); "
        f"{metrics['num_validation']:,} are held out. Intervals: 95 %, passages drawn with replacement.",
        table(["feature", "value", "passages"], rows),
        f"Sentences: a tenth has at most {low} words, half at most {middle}, nine tenths at most {high}. Person and "
        "tense are read off pronouns and verb forms outside dialogue: shares of cues, not of sentences.",
        f"![Sentence length and punctuation]({picture.name})",
        "## System prompt",
        f"> {inline(system_prompt)}" if len(system_prompt) < 600 else _quoted(system_prompt),
        *(f"**Warning:** {inline(warning)}" for warning in metrics["warnings"]),
    ]
    write_text(path, "\n\n".join(parts) + "\n")


def _quoted(text: str) -> str:
    """`inline` cuts long texts; a system prompt is shown whole, a sentence a line."""
    return "\n".join(f"> {inline(sentence)}" for sentence in text.replace(". ", ".\n").splitlines())


def estimates(profile: StyleProfile, seed: int) -> dict[str, Estimate]:
    """Feature -> its value with an interval over passages; a feature that no passage has weight for is left out."""
    found = {}
    for name in LABELS:
        ratios = [(a, b) for a, b in profile.features.get(name, []) if b]
        if ratios:
            numerators, denominators = [a for a, _ in ratios], [b for _, b in ratios]
            found[name] = ratio_estimate(numerators, denominators, range(len(ratios)), seed)
    return found


def draw_style(path: Path, profile: StyleProfile, found: Mapping[str, Estimate]) -> None:
    """Sentence lengths, and punctuation per 1,000 words with intervals."""
    figure, (left, right) = new_figure(width=10.5, num_panels=2)
    shares = histogram(profile.sentence_lengths, BIN_WORDS, NUM_BINS)
    labels = [f"{1 + n * BIN_WORDS}-{(n + 1) * BIN_WORDS}" for n in range(NUM_BINS - 1)]
    left.bar(range(NUM_BINS), shares, color=COLOURS[0])
    left.set_xticks(range(NUM_BINS), [*labels, f">{(NUM_BINS - 1) * BIN_WORDS}"], rotation=45, ha="right")
    left.set_xlabel("words in a sentence")
    left.set_ylabel("share of sentences")
    left.set_title("Sentence length", loc="left")
    marks = [mark for mark in PUNCTUATION if f"{mark}_per_1000" in found]
    numbers = [found[f"{mark}_per_1000"] for mark in marks]
    errors = [[n.value - (n.value if n.low is None else n.low) for n in numbers]]
    errors.append([(n.value if n.high is None else n.high) - n.value for n in numbers])
    right.bar(range(len(marks)), [n.value for n in numbers], yerr=errors, color=COLOURS[1], ecolor="#222222", capsize=2)
    right.set_xticks(range(len(marks)), [mark.replace("_", " ") for mark in marks], rotation=45, ha="right")
    right.set_ylabel("per 1,000 words")
    right.set_title("Punctuation", loc="left")
    save_figure(figure, path)
