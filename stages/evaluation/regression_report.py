"""reports/<task>/report.md of a regression task, for somebody who reads a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.evaluation.intervals import Difference
from stages.evaluation.markdown import difference, estimate, inline, table
from stages.evaluation.pair_bootstrap import Score, Undefined
from stages.evaluation.regression_figures import label
from stages.evaluation.regression_results import (
    CEILING,
    EXPECTED,
    GREEDY,
    NEIGHBOURS,
    SplitResults,
    Summary,
    Tree,
    value_of,
)

LOWER_IS_BETTER = ("mae", "rmse")
HEADERS = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "pearson": "Pearson", "spearman": "Spearman"}
DIGITS = 3


@dataclass(frozen=True)
class RegressionReport:
    """targets: metric -> what the best system is to reach, "" where nothing is aimed at. figures: those drawn."""

    summary: Summary
    tree: Tree
    model: str
    targets: Mapping[str, float]
    figures: Sequence[str]

    def text(self) -> str:
        """The whole report."""
        sections = [
            self._head(),
            self._headline(),
            self._comparisons(),
            *(self._split(split) for split in self.summary.splits),
            self._calibration(),
            self._free_answers(),
            self._figure("loss_parts", "## Training"),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def _head(self) -> str:
        task, split = self.summary.task, self.summary.headline
        unit = f" {inline(task.unit)}" if task.unit else ""
        sizes = [
            f"{len(s.ids)} test pairs of {len({*s.first, *s.second})} texts in `{s.name}` "
            f"({s.num_train} to train on, {len(s.validation_truth)} to validate{_num_seeds(s)})"
            for s in self.summary.splits
        ]
        return (
            f"# Numbers for pairs: task {inline(task.name)}, base {inline(self.model)}\n\n"
            f"For a pair of texts the model writes `{inline(task.json_field)}`, a number from {task.low:g} to "
            f"{task.high:g}{unit} in steps of {10.0**-task.decimals:g}. {'; '.join(sizes)}. In `by_contract` no text "
            "of a test pair was seen in training, in `by_pair` both may have been, in other pairs.\n\n"
            "Brackets hold 95 % intervals; pairs share texts, so texts are resampled (pigeonhole bootstrap, rather too "
            "wide than too narrow), and with several seeds the seeds too. A trained model's number is the mean over "
            "its seeds. *greedy*: the likeliest token at every step; *expected*: the mean of the distribution over "
            "whole values; *neighbours*: "
            f"similar pairs of the training part, with their values, in the prompt.{self._shortened(split)}"
        )

    def _shortened(self, split: SplitResults) -> str:
        num = split.num_shortened
        return f" {num} texts were longer than the context and were shortened evenly." if num else ""

    def _headline(self) -> str:
        split, found = self.summary.headline, self._scores(self.summary.headline)
        names = [name for name in found if not name.endswith(NEIGHBOURS) or name == split.best]
        columns = ["r2", "mae", *self._accuracies()[:1]]
        rows = [[_bold(name, split), *(_cell(found[name][key]) for key in columns)] for name in names]
        parts = [
            f"## Headline: `{split.name}`",
            table(["system", *map(_header, columns)], rows),
            self._best(),
            self._figure("tolerance"),
            self._figure("scatter"),
        ]
        return "\n\n".join(part for part in parts if part)

    def _best(self) -> str:
        """Which system was chosen, how far it is from the ceiling, and whether it reaches its targets."""
        split, found = self.summary.headline, self._scores(self.summary.headline)
        if not split.best:
            return "No trained model was evaluated."
        lines = [f"Best on the validation pairs (the choice saw no test pair): **{label(split.best)}**."]
        ours, ceiling = value_of(found[split.best]["r2"]), value_of(found.get(CEILING, {}).get("r2", Undefined(0)))
        if ours is not None and ceiling is not None:
            lines.append(
                f"The noise ceiling, the true value given as the prediction, is R² {ceiling:.{DIGITS}f}: "
                f"{ceiling - ours:.{DIGITS}f} above it."
            )
        for key, target in self.targets.items():
            lines.append(_against_target(key, found[split.best][key], target))
        return "\n".join(f"- {line}" for line in lines)

    def _comparisons(self) -> str:
        found = self.tree.get("compare", {})
        lines = [
            f"- {_says(name, self.summary)}: {difference(number, DIGITS)}. Verdict: **{verdict(number)}**."
            for name, number in found.items()
            if "squared_error" not in name
        ]
        intro = "Differences in R² over the same pairs, texts and seeds resampled together; p is two-sided."
        return "\n\n".join(["## Comparisons", intro, "\n".join(lines)]) if lines else ""

    def _split(self, split: SplitResults) -> str:
        found = self._scores(split)
        columns = list(next(iter(found.values())))
        rows = [[_bold(name, split), *(_cell(found[name][key]) for key in columns)] for name in found]
        return f"## All systems: `{split.name}`\n\n" + table(["system", *map(_header, columns)], rows)

    def _calibration(self) -> str:
        found, split, level = self.tree["calibration"], self.summary.headline, self.summary.level
        rows = [[_bold(name, split), *(_cell(found[name][key]) for key in ("coverage", "width"))] for name in found]
        parts = [
            "## Calibration",
            f"Intervals for {level:.0%}, calibrated on the validation pairs: conformalised quantile regression where "
            "there is a distribution, else split conformal prediction.",
            table(["system", "coverage", "mean width"], rows),
            self._figure("calibration"),
        ]
        if split.best:
            parts.insert(3, _coverage_words(split.best, found[split.best]["coverage"], level))
        return "\n\n".join(part for part in parts if part)

    def _free_answers(self) -> str:
        shares, split = self.tree.get("parse_share", {}), self.summary.headline
        if not shares:
            return ""
        rows = []
        for name, share in shares.items():
            reasons = Counter(reason for reason in split.free_answers[name].reasons if reason)
            rows.append([name, _cell(share), ", ".join(f"{r} {n}" for r, n in sorted(reasons.items())) or "-"])
        return (
            "## Without the grammar\n\nConstrained decoding always gives a number. Left free, so many answers hold "
            f"one (n = {len(next(iter(split.free_answers.values())).parsed)}):\n\n"
            + table(["model", "share that parses", "what was odd"], rows)
        )

    def _scores(self, split: SplitResults) -> dict[str, dict[str, Score]]:
        """System -> metric -> score, the ceiling last."""
        tree = self.tree["regression"][self.summary.task.name]
        return {name: found[split.name] for name, found in tree.items() if split.name in found}

    def _accuracies(self) -> list[str]:
        return [key for key in next(iter(self._scores(self.summary.headline).values())) if key.startswith("acc")]

    def _figure(self, name: str, heading: str = "") -> str:
        if name not in self.figures:
            return ""
        image = f"![{name}](figures/{name}.png)"
        return f"{heading}\n\n{image}" if heading else image


def verdict(number: Difference) -> str:
    """Of a score of which more is better: better, worse or indistinguishable, by its interval."""
    if number.low > 0:
        return "better"
    return "worse" if number.high < 0 else "indistinguishable"


def _says(name: str, summary: Summary) -> str:
    """hybrid_vs_ce_by_pair -> hybrid less ce, expected value (by_pair)"""
    split = next((s for s in summary.splits[1:] if name.endswith(f"_{s.name}")), summary.headline)
    ours, theirs = name.removesuffix(f"_{split.name}").split("_vs_")
    best = label(split.best)
    if ours == "neighbours":
        words = f"Neighbours in the prompt less none ({best.removesuffix(', neighbours')})"
    elif ours == "best":
        words = f"The best ({best}) less {theirs.removesuffix('_' + GREEDY)}, greedy"
    else:
        words = f"{ours} less {theirs}, both {EXPECTED}"
    return words + ("" if split is summary.headline else f", in `{split.name}`")


def _against_target(key: str, score: Score, target: float) -> str:
    """Whether a target is reached, and whether the interval is sure of it."""
    value = value_of(score)
    wanted = f"{_header(key)} {'at most' if key in LOWER_IS_BETTER else 'at least'} {target:g}"
    if value is None:
        return f"Target {wanted}: undefined for these pairs."
    sign = -1 if key in LOWER_IS_BETTER else 1
    if sign * value >= sign * target:
        return f"Target {wanted}: reached, {_cell(score)}."
    return f"Target {wanted}: **missed by {abs(target - value):.{DIGITS}f}**, {_cell(score)}."


def _coverage_words(name: str, score: Score, level: float) -> str:
    value = value_of(score)
    if value is None or isinstance(score, Undefined) or score.low is None or score.high is None:
        return ""
    if score.low <= level <= score.high:
        return f"{label(name)}: coverage is {value:.1%} where {level:.0%} were promised, within its interval."
    word = "fewer" if value < level else "more"
    return f"{label(name)}: coverage is {value:.1%}, {word} than the {level:.0%} that were promised."


def _num_seeds(split: SplitResults) -> str:
    num = max((len(system.seeds) for system in split.systems.values()), default=0)
    return f"; {num} seed{'' if num == 1 else 's'}" if num else ""


def _cell(score: Score) -> str:
    return "undefined" if isinstance(score, Undefined) else estimate(score, DIGITS)


def _bold(name: str, split: SplitResults) -> str:
    return f"**{label(name)}**" if name == split.best else label(name)


def _header(key: str) -> str:
    return HEADERS.get(key) or "within " + key.removeprefix("acc_at_").replace("_", ".")
