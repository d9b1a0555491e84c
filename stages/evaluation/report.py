"""reports/<domain>/report.md: what was measured, for somebody who reads a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.evaluation import rankings
from stages.evaluation.ablation import VARIANTS
from stages.evaluation.answering import clusters
from stages.evaluation.grounding import CONDITIONS
from stages.evaluation.intervals import Estimate
from stages.evaluation.markdown import difference, estimate, inline, table
from stages.evaluation.results import ANSWER_METRICS, MODELS, SYSTEMS, Results, Tree
from stages.evaluation.style_report import style_adapters_section
from stages.knowledge.records import Example

NUM_EXAMPLES = 5
NUM_FAILURES = 8
LABELS = {
    "base": "base",
    "base_docs": "base + documents",
    "book": "book",
    "book_docs": "book + documents",
    "tuned": "tuned",
    "tuned_docs": "tuned + documents",
}
HEADERS = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "loss": "loss (nats/token)",
    "mrr": "MRR",
    "ndcg_at_10": "nDCG@10",
}
SAYS = {
    "tuned_docs_vs_base_docs": "Exact match, tuned + documents less base + documents",
    "tuned_docs_vs_base_docs_contains": "Key fact in the answer, tuned + documents less base + documents",
    "tuned_docs_vs_book_docs": "Exact match, tuned + documents less book + documents",
    "tuned_docs_vs_tuned": "Exact match, tuned + documents less tuned",
    "retrieval_questions_vs_text": "Recall at 2, questions less text",
    "retrieval_questions_vs_answers": "Recall at 2, questions less answers",
}


@dataclass(frozen=True)
class Report:
    """stage_metrics: stage -> its metrics.json. figures: names of the figures that were drawn."""

    domain: str
    model: str
    results: Results
    tree: Tree
    stage_metrics: Mapping[str, Mapping[str, Any]]
    figures: Sequence[str]

    def text(self) -> str:
        """The whole report."""
        sections = [
            self._head(),
            self._answers(),
            self._grounding(),
            self._retrieval(),
            self._perplexity(),
            self._style_and_memory(),
            style_adapters_section(self.results, self.tree),
            self._boundary(),
            self._examples(),
            self._failures(),
            self._data(),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def _head(self) -> str:
        questions = self.results.questions
        num_documents, abstained = len(set(clusters(questions))), sum(example.abstains for example in questions)
        withheld = f"The right document is withheld from {abstained} of them, and the reference abstains. "
        return (
            f"# Evaluation: domain {inline(self.domain)}, base {inline(self.model)}\n\n"
            f"{len(questions)} test questions about {num_documents} source documents that training never saw. "
            f"{withheld if abstained else ''}"
            "Brackets hold 95 % intervals, clustered by source document; differences are paired, p is two-sided "
            "(sign-flip test over source documents). Where all documents agree, nothing is left to resample: "
            "the interval is then the rule of three over documents, wide on purpose.\n\n"
            f"Prompt parity (token ids equal in training and inference): {estimate(self.tree['prompt']['parity'])}"
        )

    def _answers(self) -> str:
        header = ["model", *(_header(metric) for metric in ANSWER_METRICS)]
        found = self.tree["answers"]
        rows = [[LABELS[name], *(estimate(found[name][m]) for m in ANSWER_METRICS)] for name in SYSTEMS]
        compared = [
            f"- {says}: {difference(self.tree['compare'][name])}"
            for name, says in SAYS.items()
            if name.startswith("tuned_")
        ]
        return "\n\n".join(["## Answers", table(header, rows), "\n".join(compared), self._figure("answers")])

    def _grounding(self) -> str:
        grounded, questions = self.results.grounded, self.results.questions
        if not grounded:
            return "## Grounding\n\nNot measured: no test question names the chunks that hold its answer (n = 0)."
        found = self.tree["grounding"]
        blocks = [
            table(
                ["model", *(condition.replace("_", " + ") for condition in CONDITIONS)],
                [[model, *(estimate(found[model][c][metric]) for c in CONDITIONS)] for model in MODELS],
            )
            for metric in ("exact_match", "loss")
        ]
        return "\n\n".join(
            [
                "## Grounding",
                f"{len(grounded)} of {len(questions)} questions, those whose evidence is known and fits. *gold*: one "
                "telling of the evidence; *distractor*: the chunk nearest to the question that does not hold the "
                "answer; *none*: no documents. A grounded model is right with gold and wrong without.",
                f"Exact match:\n\n{blocks[0]}",
                f"Loss (nats/token):\n\n{blocks[1]}",
                self._figure("grounding"),
            ]
        )

    def _retrieval(self) -> str:
        if "retrieval" not in self.tree:
            return "## Retrieval\n\nNot measured: no test question names the chunks that hold its answer (n = 0)."
        found = self.tree["retrieval"]
        rows = [[variant, *(estimate(found[variant][m]) for m in rankings.METRICS)] for variant in VARIANTS]
        compared = {name: self.tree["compare"][name] for name in SAYS if name.startswith("retrieval_")}
        prompted = sum(bool(set(e.evidence) & set(e.document_ids)) for e in self.results.questions)
        return "\n\n".join(
            [
                "## Retrieval: what to embed",
                f"{found['questions']['mrr'].n} questions against every chunk; none of them is stored with one. "
                "*questions*: what a chunk answers, one vector a question; *text*: its text; *answers*: both "
                "in one. Any chunk of the evidence counts as found.",
                table(["embedded", *(_header(metric) for metric in rankings.METRICS)], rows),
                "\n".join(f"- {SAYS[name]}: {difference(number)}" for name, number in compared.items())
                + f"\n- Evidence stood in the prompts of {prompted} of {len(self.results.questions)} questions.",
                self._figure("retrieval"),
            ]
        )

    def _perplexity(self) -> str:
        found = self.tree["perplexity"]
        sets = sorted({name for model in found.values() for name in model})
        rows = [[model, *(estimate(found[model][name]) for name in sets)] for model in found]
        notes = [_fall(name, found["base"][name], found["book"][name]) for name in sets]
        header = ["model", *(name.replace("_", " ") for name in sets)]
        parts = ["## Perplexity per token", table(header, rows), "\n".join(notes), self._figure("curves")]
        return "\n\n".join(parts)

    def _style_and_memory(self) -> str:
        style, memory = self.tree["style"], self.tree["memorisation"]
        parts = ["## Style and memory"]
        if style:
            rows = [[LABELS[name], estimate(style[name]["distance"], 3)] for name in SYSTEMS]
            rows += [[f"*{name}*", estimate(style[name], 3)] for name in ("floor", "ceiling")]
            parts.append(
                "Distance in style from the persona's held-out answers (function words and character 3-grams). "
                "*floor*: the persona from itself; *ceiling*: unrelated text.\n\n" + table(["model", "distance"], rows)
            )
        else:
            parts.append("Style was not measured: too few source documents.")
        longest = {
            model: max(spans.values(), key=lambda s: s.num_words) for model, spans in self.results.copied.items()
        }
        rows = [
            [m, estimate(memory[m]["verbatim_overlap"], 3), str(longest[m].num_words), inline(longest[m].text or "-")]
            for m in memory
        ]
        parts.append(
            "Without documents, the longest span of an answer that stands word for word in the book as trained on, "
            "as a share of the answer's words (*base* never saw the book: its row is chance):\n\n"
            + table(["model", "verbatim overlap", "longest span (words)", "it"], rows)
        )
        return "\n\n".join(parts)

    def _boundary(self) -> str:
        if "boundary" not in self.tree:
            return ""
        found = self.tree["boundary"]
        rows = [[m, estimate(found[m]["exact_match"]), estimate(found[m]["loss"])] for m in MODELS]
        return "\n\n".join(
            [
                "## Boundary questions",
                f"{len(self.results.boundary)} questions from outside the domain; the right answer says that they are.",
                table(["model", "exact match", _header("loss")], rows),
            ]
        )

    def _examples(self) -> str:
        """Spread over the test set, so that they are nobody's choice."""
        questions = self.results.questions
        step = max(1, len(questions) // NUM_EXAMPLES)
        shown = questions[::step][:NUM_EXAMPLES]
        return "\n\n".join(["## Examples", *(self._example(number, e) for number, e in enumerate(shown, start=1))])

    def _example(self, number: int, example: Example) -> str:
        rows = [["reference", inline(example.answer)]]
        for name, place in SYSTEMS.items():
            (text,) = self.results.texts(*place, [example])
            rows.append([LABELS[name], inline(text)])
        documents = [f"<li>{inline(text)}</li>" for text in example.documents] or ["<li>(none)</li>"]
        evidence = set(example.evidence)
        held = "they hold evidence" if evidence & set(example.document_ids) else "none of them is known evidence"
        lines = "\n".join(f"| {name} | {text} |" for name, text in rows)
        return (
            f"**{number}. {inline(example.question)}**\n\n| | answer |\n| --- | --- |\n{lines}\n\n"
            f"<details><summary>Documents in the prompt ({held})</summary>\n<ol>\n"
            + "\n".join(documents)
            + "\n</ol>\n</details>"
        )

    def _failures(self) -> str:
        questions = self.results.questions
        scores = self.results.scores("tuned", "documents", "exact_match", questions)
        wrong = [example for example, score in zip(questions, scores, strict=True) if not score]
        held = [example for example in wrong if set(example.evidence) & set(example.document_ids)]
        unknown = [example for example in wrong if not example.evidence]
        texts = self.results.texts("tuned", "documents", wrong)
        rows = [
            [inline(e.question), inline(e.answer), inline(text), "yes" if e in held else "?" if e in unknown else "no"]
            for e, text in list(zip(wrong, texts, strict=True))[:NUM_FAILURES]
        ]
        parts = [
            "## Where tuned + documents fails",
            f"{len(wrong)} of {len(questions)} questions have no exact match: {len(held)} with evidence in the prompt, "
            f"{len(wrong) - len(held) - len(unknown)} without, {len(unknown)} whose evidence is not known.",
        ]
        if rows:
            header = "| question | reference | answer | evidence in prompt |\n| --- | --- | --- | --- |\n"
            parts.append(header + "\n".join(f"| {' | '.join(row)} |" for row in rows))
        return "\n\n".join(parts)

    def _data(self) -> str:
        rows = []
        for stage, metrics in self.stage_metrics.items():
            if "num_read" in metrics:
                reasons = ", ".join(f"{reason} {count}" for reason, count in metrics.get("rejected", {}).items())
                counts = [str(metrics[key]) for key in ("num_read", "num_kept", "num_rejected")]
                rows.append([stage, *counts, reasons or "-"])
        parts = ["## Data", table(["stage", "read", "kept", "rejected", "why"], rows)]
        hashes = [f"- split hash: `{m['splits_sha256']}`" for m in self.stage_metrics.values() if "splits_sha256" in m]
        return "\n\n".join(parts + hashes)

    def _figure(self, name: str) -> str:
        return f"![{name}](figures/{name}.png)" if name in self.figures else ""


def _header(metric: str) -> str:
    return HEADERS.get(metric, metric.replace("_at_", "@").replace("_", " "))


def _fall(name: str, before: Estimate, after: Estimate) -> str:
    change = after.value / before.value - 1
    direction = "falls" if change < 0 else "rises"
    return f"- {name.replace('_', ' ')}: {direction} by {abs(change):.0%} with the book (n = {before.n} texts)"
