from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.evaluation import figures
from stages.evaluation.answering import Answer
from stages.evaluation.intervals import Difference, Estimate
from stages.evaluation.markdown import difference, estimate, inline, table
from stages.evaluation.memorisation import Span
from stages.evaluation.publishing import plot_csv
from stages.evaluation.report import Report
from stages.evaluation.results import MODELS, Results, Summary, as_json
from stages.generation.perplexity import TextScore
from stages.knowledge.records import Example

QUESTIONS = [
    Example(
        f"q{n}", "qa", f"Who keeps mill {n}?", f"Keeper {n}.", ["a text"], [f"b{n}"], "retrieved", f"g{n}",
        f"mill {n // 2}", [f"b{n}"],
    )
    for n in range(8)
]  # fmt: skip
BOUNDARY = [Example("x1", "boundary", "What is love?", "Ask a poet.", [], [], "none", "gx")]


def results(evidence: bool = True) -> Results:
    questions = QUESTIONS if evidence else [Example(**{**e.to_row(), "evidence": []}) for e in QUESTIONS]
    found = Results(questions, BOUNDARY, questions[:6] if evidence else [], searched=questions)
    right = {e.id: Answer(e.answer, 2.0, 4) for e in questions + BOUNDARY}
    wrong = {e.id: Answer("No | idea.", 8.0, 4) for e in questions + BOUNDARY}
    for model in MODELS:
        good = right if model == "tuned" else wrong
        half = {e.id: (right if n % 2 == 0 else wrong)[e.id] for n, e in enumerate(questions)}
        found.answers[model] = {
            "no_documents": wrong,
            "documents": good,
            "gold": good,
            "gold_distractor": half if model == "tuned" else wrong,
            "distractor": wrong,
            "boundary": {"x1": good["x1"]},
        }
        found.copied[model] = {e.id: Span(0, 2) for e in questions}
    found.copied["book"]["q0"] = Span(2, 2, "no idea", 3)
    ids = [f"b{n}" for n in range(8)]
    found.rankings = {
        "questions": {e.id: [f"b{n}", *(i for i in ids if i != f"b{n}")] for n, e in enumerate(questions)},
        "text": {e.id: ids for e in questions},
        "answers": {e.id: ids[::-1] for e in questions},
    }
    losses = [TextScore(20.0, 10, 40), TextScore(30.0, 15, 60)]
    found.perplexity = {"base": {"book_heldout": losses}, "book": {"book_heldout": [TextScore(5.0, 10, 40)]}}
    found.parity = [1.0] * 9
    return found


@pytest.fixture(scope="module")
def tree() -> Any:
    return Summary(results(), seed=1, num_resamples=200).tree()


def test_answers(tree: Any) -> None:
    assert tree["answers"]["tuned_docs"]["exact_match"].value == 1.0
    assert tree["answers"]["tuned_docs"]["exact_match"].n == 8
    assert tree["answers"]["tuned_docs"]["exact_match"].low == pytest.approx(0.05 ** (1 / 4))  # four mills
    assert tree["answers"]["tuned_docs"]["loss"].value == 0.5
    assert tree["answers"]["tuned"]["exact_match"].value == 0.0
    assert tree["answers"]["tuned"]["loss"].value == 2.0
    assert set(tree["answers"]) == {"base", "base_docs", "book", "book_docs", "tuned", "tuned_docs"}


def test_grounding_takes_none_from_the_answers_without_documents(tree: Any) -> None:
    tuned = tree["grounding"]["tuned"]
    assert {c: tuned[c]["exact_match"].value for c in tuned} == {
        "gold": 1.0,
        "gold_distractor": 0.5,
        "distractor": 0.0,
        "none": 0.0,
    }
    assert tuned["gold"]["exact_match"].n == 6


def test_comparisons_are_paired(tree: Any) -> None:
    compared = tree["compare"]["tuned_docs_vs_base_docs"]
    assert (compared.difference, compared.p, compared.n) == (1.0, 2 / 2**4, 8)
    assert tree["compare"]["retrieval_questions_vs_text"].difference == 0.75  # text finds q0 and q1 in its first two


def test_retrieval(tree: Any) -> None:
    assert tree["retrieval"]["questions"]["recall_at_1"].value == 1.0
    assert tree["retrieval"]["text"]["recall_at_5"].value == 5 / 8
    assert tree["retrieval"]["answers"]["recall_at_1"].value == 1 / 8


def test_perplexity_is_of_all_tokens_together(tree: Any) -> None:
    assert tree["perplexity"]["base"]["book_heldout"].value == pytest.approx(math.exp(2.0))
    assert tree["perplexity"]["book"]["book_heldout"] == Estimate(math.exp(0.5), None, None, 1)


def test_memorisation_and_parity_and_boundary(tree: Any) -> None:
    assert tree["memorisation"]["book"]["verbatim_overlap"].value == 1 / 8
    assert tree["memorisation"]["base"]["verbatim_overlap"].value == 0.0
    assert tree["prompt"]["parity"].n == 9
    assert tree["boundary"]["tuned"]["exact_match"].value == 1.0


def test_without_evidence_retrieval_and_grounding_are_left_out_and_the_report_says_so() -> None:
    found = results(evidence=False)
    tree = Summary(found, seed=1, num_resamples=200).tree()
    assert "grounding" not in tree
    assert "retrieval" not in tree
    assert "retrieval_questions_vs_text" not in tree["compare"]
    text = Report("demo", "tiny", found, tree, {}, []).text()
    assert text.count("Not measured: no test question names the chunks") == 2


def test_json_has_the_promised_shape(tree: Any) -> None:
    found = as_json(tree)
    assert set(found["answers"]["base"]["loss"]) == {"value", "low", "high", "n"}
    assert set(found["compare"]["tuned_docs_vs_base_docs"]) == {"difference", "low", "high", "p", "n"}


def test_the_report_shows_four_models_side_by_side_and_where_it_fails(tree: Any) -> None:
    stages: dict[str, dict[str, Any]] = {
        "clean_qa": {"num_read": 9, "num_kept": 8, "num_rejected": 1, "rejected": {"empty": 1}},
        "build_rag_data": {"splits_sha256": "abc123"},
    }
    text = Report("demo", "tiny", results(), tree, stages, ["answers"]).text()
    for label in ("base", "base + documents", "tuned", "tuned + documents"):
        assert f"| {label} |" in text
    assert "| clean_qa | 9 | 8 | 1 | empty 1 |" in text
    assert "split hash: `abc123`" in text
    assert "![answers](figures/answers.png)" in text
    assert "retrieval.png" not in text
    assert "0 of 8 questions have no exact match" in text
    assert "No &#124; idea." in text  # a bar in an answer does not end its cell


def test_tables_hold_as_many_cells_as_columns(tree: Any) -> None:
    text = Report("demo", "tiny", results(), tree, {}, []).text()
    lines = text.splitlines()
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|"), line


def test_numbers_as_people_read_them() -> None:
    assert estimate(Estimate(0.9372, 0.9, 0.96, 3)) == "0.94 [0.90, 0.96]"
    assert estimate(Estimate(3.2, None, None, 1)) == "3.20 (no interval)"
    assert difference(Difference(0.5, 0.25, 0.75, 0.00001, 9)) == "+0.50 [+0.25, +0.75], p < 0.001"
    assert "no difference shown" in difference(Difference(0.1, -0.1, 0.3, 0.4, 9))


def test_text_from_outside_has_no_effect_in_markdown() -> None:
    text = inline("a | b <img src=x>\n[link](http://x) `code` *bold*")
    assert not set("|<>[]`*\n") & set(text)
    assert inline("&amp;") == "&#38;amp;"
    assert inline("  ") == "*(empty)*"
    assert len(inline("x" * 5000)) < 700


def test_a_table() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_plot_csv_names_every_number() -> None:
    tree = {"tuned": {"gold": {"exact_match": Estimate(1.0, 0.5, 1.0, 6)}}}
    assert plot_csv(tree) == "name,metric,value,low,high,n\ntuned/gold,exact_match,1.0,0.5,1.0,6\n"


def test_figures_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    numbers = [Estimate(0.5, 0.2, 0.9, 9), Estimate(3.0, None, None, 1)]
    rows = [{"step": 1.0, "train_loss": 2.0, "eval_loss": 3.0}, {"step": 2.0, "train_loss": 1.0, "eval_loss": 2.0}]
    for name in ("a", "b"):
        figures.bars(tmp_path / f"bars_{name}.png", ["x", "y"], {"s": numbers, "t": numbers}, "title", "score")
        figures.curves(tmp_path / f"curves_{name}.png", {"one": rows, "two": rows})
    for kind in ("bars", "curves"):
        image = (tmp_path / f"{kind}_a.png").read_bytes()
        assert image == (tmp_path / f"{kind}_b.png").read_bytes()
        assert image.startswith(b"\x89PNG")
        assert b"matplotlib" not in image
