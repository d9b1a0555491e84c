"""Writing text with a causal language model, and scoring text that is given: batched, greedy, exact.

A batch of prompts is padded on the left, so that all of them end in the same column and continue together:

    [pad pad  12   7   3] -> 41  9 <end>
    [ 12   5  18   7   3] -> 41  9  2 <end>

Position ids count real tokens only, so a prompt gets the same continuation in any batch. Shapes: B prompts in a
batch, T columns, C completion columns, V words in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.errors import DataError
from stages.core.progress import track
from stages.prompts.renderer import TokenisedExample

REPLACEMENT = "\ufffd"  # what an unfinished UTF-8 sequence decodes to


@dataclass
class Prefix:
    """Prompts that a model has read: keys and values [B, T], which columns are real, and the next token's logits."""

    cache: Any  # transformers.DynamicCache
    mask: Any  # int64 [B, T]
    logits: Any  # [B, V]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    description: str = "generate",
) -> list[str]:
    """The greedy continuation of each prompt (token ids), up to an end token or `max_new_tokens`, as text.

    Equal to decoding every prompt alone, but for ties within rounding. Special tokens are not in the text.
    Raises DataError for an empty prompt.
    """
    stops = stop_token_ids(model, tokenizer)
    texts = [""] * len(prompts)
    for rows in _batches([len(prompt) for prompt in prompts], batch_size, description):
        prefix = _read(model, [prompts[row] for row in rows])
        for row, ids in zip(rows, _continue_greedily(model, prefix, stops, max_new_tokens), strict=True):
            texts[row] = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def completion_losses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    description: str = "score",
) -> list[tuple[float, int]]:
    """Per example: the summed negative log likelihood of the completion (nats), and its number of tokens.

    Only the columns with completions get logits: [B, C + 1, V] instead of [B, T, V].
    """
    losses = [(0.0, 0)] * len(examples)
    for rows in _batches([len(example.input_ids) for example in examples], batch_size, description):
        for row, loss in zip(rows, _score(model, [examples[row] for row in rows]), strict=True):
            losses[row] = (loss, examples[row].num_completion_tokens)
    return losses


def stream(
    model: Any, tokenizer: Any, prompt_ids: Sequence[int], max_new_tokens: int, temperature: float = 0.0
) -> Iterator[str]:
    """Yields the continuation of one prompt piece by piece; joined, the pieces are the whole text.

    A piece never ends inside a character. temperature 0 is greedy, equal to `generate`; above, tokens are drawn
    with torch's global generator.
    """
    stops = stop_token_ids(model, tokenizer)
    prefix = _read(model, [prompt_ids])
    ids: list[int] = []
    shown = ""
    while len(ids) < max_new_tokens:
        token = _choose(prefix.logits, temperature)
        if int(token) in stops:
            break
        ids.append(int(token))
        text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        whole = text.rstrip(REPLACEMENT)
        if len(whole) > len(shown):
            yield whole[len(shown) :]
            shown = whole
        if len(ids) < max_new_tokens:
            prefix = _step(model, prefix, token)
    if ids:
        yield from _rest(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False), shown)


def stop_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: of the tokenizer, of the generation config, and of the chat template.

    A base model's configuration often names only the end of a document, while its chat template ends a turn with
    another token; a model that is trained on that template writes the latter.
    """
    named = [tokenizer.eos_token_id]
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    named += configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*named, _end_of_turn(tokenizer)] if token is not None)


def _end_of_turn(tokenizer: Any) -> int | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(text[text.rindex("answer") + len("answer") :], add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return after[0] if after and after[0] in special else None


def _batches(lengths: Sequence[int], batch_size: int, description: str) -> Iterator[list[int]]:
    """Row numbers, longest first: least padding, and memory runs out at once or not at all."""
    if 0 in lengths:
        raise DataError(f"{description}: prompt {lengths.index(0)} is empty")
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return track(batches, description, len(batches))


def _left_padded(model: Any, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Token ids and mask, int64 [B, T]; what stands in the padding is never attended to."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids.to(model.device), mask.to(model.device)


def _forward(model: Any, ids: Any, mask: Any, cache: Any, num_logits: int) -> Any:
    """Logits [B, num_logits, V] of the last columns; `mask` covers what is cached and `ids`."""
    import torch

    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    with torch.inference_mode():
        return model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=num_logits,
        ).logits


def _read(model: Any, prompts: Sequence[Sequence[int]]) -> Prefix:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    ids, mask = _left_padded(model, prompts)
    return Prefix(cache, mask, _forward(model, ids, mask, cache, 1)[:, -1])


def _step(model: Any, prefix: Prefix, tokens: Any) -> Prefix:
    """One more token [B] for each prompt; the cache is extended in place."""
    mask = prefix.mask.new_ones(prefix.mask.shape[0], prefix.mask.shape[1] + 1)
    mask[:, :-1] = prefix.mask
    return Prefix(prefix.cache, mask, _forward(model, tokens[:, None], mask, prefix.cache, 1)[:, -1])


def _continue_greedily(model: Any, prefix: Prefix, stops: frozenset[int], max_new_tokens: int) -> list[list[int]]:
    import torch

    written: list[list[int]] = [[] for _ in range(prefix.mask.shape[0])]
    open_rows = list(range(len(written)))
    for step in range(max_new_tokens):
        tokens = prefix.logits.argmax(-1)
        going = [n for n, token in enumerate(tokens.tolist()) if token not in stops]
        for n in going:
            written[open_rows[n]].append(int(tokens[n]))
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(open_rows):  # finished prompts leave the batch
            keep = torch.tensor(going, device=tokens.device)
            prefix.cache.batch_select_indices(keep)
            prefix = Prefix(prefix.cache, prefix.mask[keep], prefix.logits)
            tokens, open_rows = tokens[keep], [open_rows[n] for n in going]
        prefix = _step(model, prefix, tokens)
    return written


def _score(model: Any, examples: Sequence[TokenisedExample]) -> list[float]:
    import torch

    ids, mask = _left_padded(model, [example.input_ids for example in examples])
    longest = max(example.num_completion_tokens for example in examples)
    logits = _forward(model, ids, mask, None, longest + 1)[:, :-1].float()  # [B, C, V]
    targets = ids[:, -longest:]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # [B, C]
    lengths = torch.tensor([[example.num_completion_tokens] for example in examples], device=nll.device)
    ours = torch.arange(longest, device=nll.device) >= longest - lengths
    sums: list[float] = nll.double().masked_fill(~ours, 0.0).sum(-1).tolist()
    return sums


def _choose(logits: Any, temperature: float) -> Any:
    """The next token [1] of one prompt's logits [1, V]."""
    import torch

    if temperature <= 0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits.float() / temperature, -1), 1)[:, 0]


def _rest(text: str, shown: str) -> Iterator[str]:
    if len(text) > len(shown):
        yield text[len(shown) :]
