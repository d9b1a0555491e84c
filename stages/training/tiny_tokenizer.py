"""The tokenizer of the tiny base: byte-level BPE with a chat template, trained on the spot.

    <|bos|><|system|>
    ...<|end|>
    <|user|>
    ...<|end|>
    <|assistant|>
    ...<|end|>

The end token stands inside the generation block: a tuned model has to learn when to stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.core.atomic import new_folder
from stages.core.seeding import derived_random
from stages.training.base_corpus import Corpus, syllable_texts

END, ASSISTANT = "<|end|>", "<|assistant|>"
SPECIAL_TOKENS = ["<|pad|>", "<|bos|>", END, "<|system|>", "<|user|>", ASSISTANT]
TOKENIZER_SHARES = {"story": 0.7, "docstring": 0.3}
NUM_SAMPLES = 1500
# What every prompt repeats around its documents and answers should cost few tokens.
FENCES = ["<documents>\n<document 1>\n", "\n</document>\n<document 2>\n", "\n</document>\n</documents>", "At", "The"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>\n"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """A PreTrainedTokenizerFast of exactly `vocabulary` tokens where the texts give that many merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",  # noqa: S106  # not a password
        eos_token=END,
        pad_token="<|pad|>",  # noqa: S106
        additional_special_tokens=SPECIAL_TOKENS[3:],
        model_max_length=max_positions,
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
    )


def token_weights(tokenizer: Any, ids: list[int], weight: float) -> list[float]:
    """Loss weights of the tokens of a piece: 1 for what can be known, else `weight`.

    Known is what the assistant says, end token included, and every token that followed the same token before:
    the rest of a piece is mostly names drawn at random, from which nothing can be learned.
    """
    assistant, end = tokenizer.convert_tokens_to_ids([ASSISTANT, END])
    weights, seen = [], set()
    speaking, previous = False, -1
    for token in ids:
        weights.append(1.0 if speaking or (previous, token) in seen else weight)
        seen.add((previous, token))
        speaking = (speaking or token == assistant) and token != end
        previous = token
    return weights


def save_new_tokenizer(folder: Path, vocabulary: int, max_positions: int, seed: int) -> Any:
    """Trains a tokenizer on a sample of the base's text and saves it; returns it."""
    random = derived_random(seed, "base_model", "tokenizer")
    pieces = Corpus().pieces(random, TOKENIZER_SHARES, max_documents=4)
    sample = [next(pieces).text for _ in range(NUM_SAMPLES)]
    tokenizer = train_tokenizer([*sample, *FENCES * NUM_SAMPLES, *syllable_texts()], vocabulary, max_positions)
    with new_folder(folder) as new:
        tokenizer.save_pretrained(new)
    return tokenizer
