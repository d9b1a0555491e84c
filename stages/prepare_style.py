"""A writer's samples -> training examples: passages under a system prompt that comes from the measured style.

    verne/reef.txt, verne/squid.md  (UTF-8; TODO lines, notes and footnotes are taken out)
 -> {"id": "verne-00012", "messages": [{"role": "system", "content": "You write prose in a voice of your own. ..."},
     {"role": "user", "content": "Write a passage of about 450 words that opens with “The year 1866 ...”"},
     {"role": "assistant", "content": "The year 1866 was signalised by ..."}], "source": "reef.txt", "num_tokens": 640}

The user's part is put together by rule, from length, opening and names; with `instructions: provider` the model that
generate_sft is configured with writes it, and the rule stands in where what it writes cannot be used.

Passages of min_tokens to max_tokens, by the base model's tokenizer, are cut at chapters, scenes and paragraphs. Whole
files are held out for validation; of a single file its last part, and the passage beside it is in neither. A passage
that repeats another, or a held-out one that stands in training, is rejected.

A variant is a writer. Reads its folder `samples` and models/base/<model> (the tokenizer). Writes
data/<domain>/style/<variant>/{train,validation,rejected}.jsonl and profile.json (the measured style, and the system
prompt), reports/<domain>/prepare_style/<variant>/{metrics.json,style.md,style.png}.

    python -m stages.prepare_style @verne
    python -m stages.prepare_style @verne prepare_style.max_tokens=1000
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from stages.core.atomic import write_json
from stages.core.errors import ConfigError, DataError
from stages.core.jsonl import write_jsonl
from stages.core.ledger import Ledger
from stages.core.progress import track
from stages.core.schema import Model, Prompt, one_of
from stages.core.stage import stage_main
from stages.core.workspace import Workspace
from stages.evaluation.style_profile_report import write_style_report
from stages.generation.token_starts import LazyTokenStarts
from stages.style.examples import StyleExample
from stages.style.instructions import Instructor
from stages.style.notes import Notes
from stages.style.passages import PassageSize
from stages.style.profile import StyleProfile
from stages.style.samples import NOT_MEANT, SamplePassage, cut_samples, read_samples, usable
from stages.style.splitting import held_out, repeated_in_training
from stages.style.system_prompt import system_prompt
from stages.synthetic.languages import find_language
from stages.synthetic.passage_requests import InstructionWording, write_instructions
from stages.synthetic.settings import Local, Provider

BY_DESIGN = ("next_to_held_out",)


@dataclass
class FewExamples:
    """Fewer than num_examples of at least num_tokens are worth a warning."""

    num_tokens: int = 500
    num_examples: int = 100


@dataclass
class Config:
    """Mirrors conf/prepare_style with one of its variants over it."""

    domain: str = MISSING
    language: str = MISSING
    samples: str = MISSING
    model: Model = MISSING
    seed: int = MISSING
    min_tokens: int = MISSING
    max_tokens: int = MISSING
    validation_share: float = MISSING
    near_duplicate_similarity: float = MISSING
    max_shared_share: float = MISSING
    max_rejected_share: float = MISSING
    few_examples: FewExamples = field(default_factory=FewExamples)
    notes: dict[str, str] = field(default_factory=dict)
    instructions: str = MISSING
    wording: InstructionWording = MISSING
    prompt: Prompt = MISSING
    provider: Provider = MISSING
    local: Local = MISSING
    variant: str = MISSING

    def __post_init__(self) -> None:
        PassageSize(self.min_tokens, self.max_tokens)
        Notes(self.notes)
        one_of(self.instructions, ("rule", "provider"), "instructions")
        for name in ("validation_share", "near_duplicate_similarity", "max_shared_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1")


@dataclass
class Parts:
    """What is trained on, and what is held out."""

    train: list[SamplePassage]
    validation: list[SamplePassage]


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Reads, cuts, splits, measures, writes; returns the metrics."""
    if not config.samples:
        raise ConfigError(f"prepare_style.variants.{config.variant}.samples: name the folder of .txt and .md files")
    files, passages = Ledger("prepare_style: files"), Ledger("prepare_style: passages")
    token_starts = LazyTokenStarts(workspace, config.model)
    texts, removed = read_samples(workspace.read(config.samples), Notes(config.notes), files)
    files.check(len(texts), by_design=NOT_MEANT)
    parts = _parts(config, texts, token_starts, passages)
    profile = StyleProfile.of([passage.text for passage in parts.train], config.language)
    asked, asking = _asked(config, workspace, parts)
    examples = _examples(config, parts, profile, asked)
    metrics: dict[str, Any] = {
        "files": files.metrics(),
        "passages": passages.metrics(),
        "num_notes_removed": dict(removed),
        "instructions": asking,
    }
    metrics |= _counts(config, examples, token_starts)
    warnings = _warnings(config, metrics)
    metrics["num_warnings"] = len(warnings)
    _write(config, workspace, examples, profile, [*files.rejections, *passages.rejections], metrics, warnings)
    for warning in warnings:
        print(f"prepare_style: warning: {warning}", file=sys.stderr)
    return metrics


def _parts(config: Config, texts: dict[str, str], token_starts: LazyTokenStarts, ledger: Ledger) -> Parts:
    """The usable passages of all files, split."""
    size = PassageSize(config.min_tokens, config.max_tokens)
    found = usable(cut_samples(texts, token_starts, size, track), size, config.near_duplicate_similarity, ledger)
    ledger.check(len(found))
    parts = split(found, config, ledger)
    ledger.check(len(parts.train) + len(parts.validation), config.max_rejected_share, BY_DESIGN)
    return parts


def split(passages: Sequence[SamplePassage], config: Config, ledger: Ledger) -> Parts:
    """Held-out passages, and training ones that are neither their neighbours nor hold the same text.

    Reasons: next_to_held_out, stands_in_training (of a held-out one).
    """
    sizes: dict[str, list[int]] = {}
    for passage in passages:
        sizes.setdefault(passage.source, []).append(passage.num_tokens)
    first = held_out(sizes, config.validation_share, config.seed)
    parts, places = Parts([], []), Counter[str]()
    for passage in passages:
        place, begin = places[passage.source], first.get(passage.source)
        places[passage.source] += 1
        if begin is None or place < begin - 1:
            parts.train.append(passage)
        elif place >= begin:
            parts.validation.append(passage)
        else:
            ledger.reject(passage.origin, "next_to_held_out")
    ours, theirs = ([passage.text for passage in part] for part in (parts.validation, parts.train))
    repeated = repeated_in_training(ours, theirs, config.max_shared_share)
    for number, training in repeated.items():
        detail = f"much of it stands in {parts.train[training].origin}"
        ledger.reject(parts.validation[number].origin, "stands_in_training", detail)
    parts.validation = [passage for number, passage in enumerate(parts.validation) if number not in repeated]
    if not parts.validation:
        raise DataError(
            f"{config.samples}: every held-out passage stands in training too; remove older drafts of the same text, "
            "or raise max_shared_share"
        )
    return parts


def _asked(config: Config, workspace: Workspace, parts: Parts) -> tuple[dict[SamplePassage, str], dict[str, Any]]:
    """The instructions that a model wrote, and counts: who wrote how many, at what cost, why others were not used."""
    passages = [*parts.train, *parts.validation]
    if config.instructions == "rule":
        return {}, {"num_by_provider": 0, "num_by_rule": len(passages)}
    language, texts = find_language(config.language).name, [passage.text for passage in passages]
    written, usage = write_instructions(config, config.wording, language, texts, workspace)
    asked = {passage: found.text for passage, found in zip(passages, written, strict=True) if found.text}
    return asked, {
        "num_by_provider": len(asked),
        "num_by_rule": len(passages) - len(asked),
        "rejected": dict(sorted(Counter(found.reason for found in written if found.reason).items())),
        "num_prompt_tokens": usage.num_prompt_tokens,
        "num_completion_tokens": usage.num_completion_tokens,
        "cost": usage.cost(config.provider),
    }


def _examples(
    config: Config, parts: Parts, profile: StyleProfile, asked: Mapping[SamplePassage, str]
) -> dict[str, list[StyleExample]]:
    """Split -> examples; ids count through both, in the order of the files. asked: instructions that are there."""
    system = system_prompt(profile)
    instructor = Instructor([passage.text for passage in parts.train], config.language, config.seed)
    everything = sorted([*parts.train, *parts.validation], key=lambda passage: (passage.source, passage.number))
    numbers = {passage: number for number, passage in enumerate(everything, start=1)}

    def example(passage: SamplePassage) -> StyleExample:
        identifier = f"{config.variant}-{numbers[passage]:05d}"
        user = asked.get(passage) or instructor.instruction(identifier, passage.text)
        return StyleExample(identifier, system, user, passage.text, passage.source, passage.num_tokens)

    return {name: list(map(example, getattr(parts, name))) for name in ("train", "validation")}


def _counts(config: Config, examples: dict[str, list[StyleExample]], token_starts: LazyTokenStarts) -> dict[str, Any]:
    """Sizes of the two parts."""
    everything = [example for part in examples.values() for example in part]
    prompts = token_starts([f"{example.system}\n{example.user}" for example in everything])
    longest = max(len(prompt) + example.num_tokens for prompt, example in zip(prompts, everything, strict=True))
    return {
        **{f"num_{name}": len(part) for name, part in examples.items()},
        **{f"num_{name}_tokens": sum(example.num_tokens for example in part) for name, part in examples.items()},
        "num_long_examples": sum(example.num_tokens >= config.few_examples.num_tokens for example in everything),
        "longest_example_tokens": longest,  # without the template's own few: training.max_length must be above it
    }


def _warnings(config: Config, counts: dict[str, Any]) -> list[str]:
    """What a person should know before he trains on this."""
    few, found = config.few_examples, []
    if counts["num_long_examples"] < few.num_examples:
        found.append(
            f"{counts['num_long_examples']} examples of at least {few.num_tokens} tokens; style is learned from "
            f"{few.num_examples} or more: add samples"
        )
    held_out_tokens = counts["num_validation_tokens"]
    share = held_out_tokens / (held_out_tokens + counts["num_train_tokens"])
    if not 0.5 <= share / config.validation_share <= 2:
        found.append(
            f"{share:.0%} of the tokens are held out instead of {config.validation_share:.0%}: whole files are, and "
            "they are few or uneven; cut the samples into more files"
        )
    return found


def _write(
    config: Config,
    workspace: Workspace,
    examples: dict[str, list[StyleExample]],
    profile: StyleProfile,
    rejections: list[dict[str, str]],
    metrics: dict[str, Any],
    warnings: list[str],
) -> None:
    data, report = (
        f"{kind}/{config.domain}/{name}/{config.variant}"
        for kind, name in (("data", "style"), ("reports", "prepare_style"))
    )
    for name, part in examples.items():
        write_jsonl(workspace.write(f"{data}/{name}.jsonl"), [example.to_row() for example in part])
    write_jsonl(workspace.write(f"{data}/rejected.jsonl"), rejections)
    system = examples["train"][0].system
    write_json(workspace.write(f"{data}/profile.json"), {**profile.to_json(), "system_prompt": system})
    path = workspace.write(f"{report}/style.md")
    write_style_report(path, config.variant, profile, system, metrics | {"warnings": warnings}, config.seed)
    write_json(workspace.write(f"{report}/metrics.json"), metrics)


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
