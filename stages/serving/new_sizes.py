"""What the stages' defaults would get wrong for the material of a new domain: shares, sizes, lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stages.serving.folder_survey import Records, Survey

FEW_GROUPS = 30  # fewer questions than that, and a tenth of them may be none
SMALL_BASE_BYTES = 1_800  # of a question and its answer: what 768 tokens of the tiny base hold
MANY_ROWS = 500
BIG_TEXT_BYTES = 300_000


def sizes(survey: Survey, qa: Sequence[Records], language: str, small: bool, fetched: bool) -> Iterator[str]:
    """Lines of YAML. small, fetched: see new_domain.Wanted. qa: those that are read."""
    yield ""
    if language != "en" and not fetched:
        yield "retrieval: {fulltext: true}   # by words too: the default embedder knows English only"
    if not qa:
        yield "generate_sft: {limit: 500}    # pairs in all, spread over the documents; 0: no limit"
    yield from _section("clean_qa", list(_repeated(qa)))
    yield from _section("ingest", [*_rejected(survey), *(_small_chunks() if small else ())])
    yield from _section("build_rag_data", [*_split(qa), *(_small_prompts(qa) if small else ())])
    if not small:
        return
    if sum(records.num_records or MANY_ROWS for records in qa) >= MANY_ROWS:
        yield "train_rag_lora: {training: {num_epochs: 2}}   # many rows for the small base that is built here"
        yield "evaluate: {limit: 60}"
    if _num_text_bytes(survey) > BIG_TEXT_BYTES:
        yield "train_book_lora: {training: {num_epochs: 1}}"


def _section(name: str, settings: Sequence[tuple[str, str]]) -> Iterator[str]:
    if settings:
        yield f"{name}:"
        yield from (f"  {key}: {value}" for key, value in settings)


def _rejected(survey: Survey) -> Iterator[tuple[str, str]]:
    """ingest fails where most files of a folder cannot be read; here it is known beforehand that many cannot."""
    num_others = len(survey.not_understood)
    if survey.documents and num_others > 0.3 * (num_others + len(survey.documents)):
        yield "max_rejected_documents_share", f"0.95   # {num_others} files beside the documents are none"


def _repeated(qa: Sequence[Records]) -> Iterator[tuple[str, str]]:
    """clean_qa fails where many records are rejected; here it is known beforehand that they are copies, or unusable."""
    pairs = [pair for records in qa for _, pair, _ in records.asked]
    num_unusable = sum(records.num_broken for records in qa)
    num_rejected = len(pairs) - len(set(pairs)) + num_unusable
    share = num_rejected / (len(pairs) + num_unusable) if pairs else 0.0
    if share > 0.08:
        told = f"{len(pairs) - len(set(pairs))} come more than once, {num_unusable} cannot be used"
        yield "max_rejected_share", f"{_allowed(share)}   # of {len(pairs) + num_unusable} records {told}"


def _allowed(share: float) -> float:
    """A share that is at least so large, with some room."""
    return min(1.0, math.ceil(10 * share + 0.5) / 10)


def _small_chunks() -> Iterator[tuple[str, str]]:
    yield "chunk_tokens", "250   # the small base reads little at a time"
    yield "overlap_tokens", "25"


def _num_text_bytes(survey: Survey) -> int:
    records = sum(found.num_bytes for found in survey.texts)
    return records + sum(seen.num_bytes for seen in survey.documents)


def _split(qa: Sequence[Records]) -> Iterator[tuple[str, str]]:
    """Shares that leave no part empty, where each group of questions goes one way as a whole."""
    num_groups = sum(records.num_groups for records in qa)
    if not qa or num_groups >= FEW_GROUPS:
        return
    share = 0.2 if num_groups > 4 else 0.25 if num_groups == 4 else 0.33
    told = f"{num_groups} groups of questions with one source or answer"
    few = "; too few to evaluate on" if num_groups < 3 else ""
    split = f"{{train: {1 - 2 * share:.2f}, validation: {share}, test: {share}}}"
    yield "split", f"{split}   # .7, .1, .2 may leave a part empty: {told}{few}"


def _small_prompts(qa: Sequence[Records]) -> Iterator[tuple[str, str]]:
    """For a base that reads little: passages may be less near, and long answers are many."""
    yield "max_distance", "0.7"
    yield "num_following", "1"
    sizes = [size for records in qa for _, _, size in records.asked]
    long = sum(size > SMALL_BASE_BYTES for size in sizes) / len(sizes) if sizes else 0.0
    if long > 0.05:
        yield (
            "max_rejected_share",
            f"{_allowed(long)}   # about {long:.0%} of the answers are longer than the base reads",
        )
