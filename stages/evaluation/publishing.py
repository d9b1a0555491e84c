"""Writes what an evaluation found: report.md, figures, and tables for DVC's plots.

reports/<domain>/plots/answers.csv, one line for each number of a group of metrics.json:

    name,metric,value,low,high,n
    tuned_docs,exact_match,0.94,0.89,0.98,96

Figures and plots are replaced as whole folders. What could not be measured has a table without rows and no figure.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.atomic import new_folder, write_text
from stages.core.workspace import Workspace
from stages.evaluation import answers, figures, grounding, rankings
from stages.evaluation.ablation import VARIANTS
from stages.evaluation.intervals import Estimate
from stages.evaluation.report import HEADERS, LABELS, Report
from stages.evaluation.results import MODELS, SYSTEMS, Results, Tree

DATA_STAGES = ("ingest", "clean_qa", "generate_sft", "build_index", "build_rag_data")
TRAININGS = {"train_book_lora": "Book LoRA", "train_rag_lora": "RAG LoRA"}
PLOTS = ("answers", "grounding", "retrieval")


def publish(workspace: Workspace, domain: str, model: str, results: Results, tree: Tree) -> None:
    """Raises DataError where the metrics or curves of an earlier stage are missing."""
    folder = f"reports/{domain}"
    stage_metrics = {
        stage: json.loads(workspace.read(f"{folder}/{stage}/metrics.json").read_text(encoding="utf-8"))
        for stage in DATA_STAGES
    }
    curves = {
        title: _read_curve(workspace.read(f"{folder}/{stage}/curve.csv").read_text(encoding="utf-8"))
        for stage, title in TRAININGS.items()
    }
    with new_folder(workspace.write(f"{folder}/figures")) as figures_folder:
        drawn = draw_figures(figures_folder, tree, curves)
    with new_folder(workspace.write(f"{folder}/plots")) as plots_folder:
        for name in PLOTS:
            write_text(plots_folder / f"{name}.csv", plot_csv(tree.get(name, {})))
    report = Report(domain, model, results, tree, stage_metrics, drawn)
    write_text(workspace.write(f"{folder}/report.md"), report.text())


def draw_figures(folder: Path, tree: Tree, curves: Mapping[str, Any]) -> list[str]:
    """Draws what there are numbers for; returns the names of the figures."""
    drawn = []
    for name, (groups, series, title, ylabel) in _bar_charts(tree).items():
        figures.bars(folder / f"{name}.png", groups, series, title, ylabel)
        drawn.append(name)
    figures.curves(folder / "curves.png", curves)
    return [*drawn, "curves"]


def _bar_charts(tree: Tree) -> dict[str, tuple[list[str], dict[str, list[Estimate]], str, str]]:
    """Name -> groups, series, title, label of the y axis."""
    metrics = [HEADERS.get(metric, metric) for metric in answers.METRICS]
    found = tree["answers"]
    series = {LABELS[name]: [found[name][metric] for metric in answers.METRICS] for name in SYSTEMS}
    charts = {"answers": (metrics, series, "Answers to held-out questions", "score")}
    if "grounding" in tree:
        conditions = [name.replace("_", " + ") for name in grounding.CONDITIONS]
        found = tree["grounding"]
        series = {m: [found[m][name]["exact_match"] for name in grounding.CONDITIONS] for m in MODELS}
        charts["grounding"] = (conditions, series, "Exact match by the documents in the prompt", "exact match")
    if "retrieval" in tree:
        names = [HEADERS.get(metric, metric.replace("_at_", "@")) for metric in rankings.METRICS]
        found = tree["retrieval"]
        series = {variant: [found[variant][metric] for metric in rankings.METRICS] for variant in VARIANTS}
        charts["retrieval"] = (names, series, "Retrieval by what is embedded", "score")
    return charts


def plot_csv(group: Tree) -> str:
    """A group of estimates, nested to any depth, as CSV; the last key is the metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "metric", "value", "low", "high", "n"])
    for (*path, metric), estimate in _leaves(group, ()):
        numbers = estimate.to_json()
        writer.writerow(["/".join(path), metric, *(numbers[key] for key in ("value", "low", "high", "n"))])
    return text.getvalue()


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Estimate]]:
    found: list[tuple[tuple[str, ...], Estimate]] = []
    for key, value in tree.items():
        found += _leaves(value, (*path, key)) if isinstance(value, Mapping) else [((*path, key), value)]
    return found


def _read_curve(text: str) -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(text))]
