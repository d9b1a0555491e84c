"""The part of a report about several manners from one knowledge model."""

from __future__ import annotations

from stages.evaluation import answers as answer_metrics
from stages.evaluation.markdown import difference, estimate, inline, table
from stages.evaluation.results import Results, Tree

NUM_EXAMPLES = 3


def style_adapters_section(results: Results, tree: Tree) -> str:
    """The section; empty where the domain has no style adapters."""
    if results.style_adapters is None:
        return ""
    found, adapters = tree["style_adapters"], results.style_adapters
    rows = [
        [name, str(len(manner.questions)), *_own(found["answers"].get(name))]
        for name, manner in adapters.manners.items()
    ]
    nearer = [
        f"- *{a}* is nearer to its own manner than *{b}* by {difference(found['nearer'][f'{a}_vs_{b}'])}"
        for a in adapters.manners
        for b in adapters.manners
        if a != b
    ]
    step = max(1, len(results.questions) // NUM_EXAMPLES)
    examples = [
        [inline(e.question), *(inline(adapters.shared[name][e.id].text) for name in adapters.manners)]
        for e in results.questions[::step][:NUM_EXAMPLES]
    ]
    return "\n\n".join(
        [
            "## Several manners from one knowledge model",
            "Each adapter with documents, on held-out questions of its own styles:",
            table(["adapter", "questions", *(metric.replace("_", " ") for metric in answer_metrics.METRICS)], rows),
            "Asked the same questions, each answer's distance from the manner of an adapter (the training answers of "
            "its styles; function words and character 3-grams), compared question by question:",
            "\n".join(nearer),
            table(["question", *adapters.manners], examples),
        ]
    )


def _own(found: Tree | None) -> list[str]:
    return [estimate(found[metric]) if found else "-" for metric in answer_metrics.METRICS]
