"""What the tiny base can do before anybody tunes it, on entities that it has never seen."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from stages.core.seeding import derived_random
from stages.knowledge.world import restated_fact
from stages.prompts.renderer import Renderer
from stages.training.base_corpus import Corpus, documents_and_facts, question

NUM_PROMPTS = 60
NUM_PIECES = 40
NUM_DOCUMENTS = (0, 1, 2, 6)


def evaluate_base(model: Any, tokenizer: Any, seed: int) -> dict[str, Any]:
    """`held_out_loss`: mean over the tokens of new pieces. `exact_match`: by the number of documents in the prompt."""
    model.eval()
    corpus = Corpus(tokenizer)
    random = derived_random(seed, "base_model", "evaluation")
    pieces = corpus.pieces(random, {"chat": 1.0, "story": 1.0, "docstring": 1.0}, max_documents=4)
    losses = [_loss(model, tokenizer(next(pieces).text)["input_ids"]) for _ in range(NUM_PIECES)]
    exact = {
        f"{count}_documents": sum(_answers(model, corpus.renderers[0], random, count) for _ in range(NUM_PROMPTS))
        / NUM_PROMPTS
        for count in NUM_DOCUMENTS
    }
    return {"held_out_loss": sum(losses) / len(losses), "exact_match": exact}


@torch.no_grad()
def _loss(model: Any, ids: list[int]) -> float:
    x = torch.tensor([ids[: model.config.max_position_embeddings]])
    return float(cross_entropy(model(x).logits[0, :-1], x[0, 1:]))


@torch.no_grad()
def _answers(model: Any, renderer: Renderer, random: Random, num_documents: int) -> bool:
    """True where each token of the right answer is the likeliest one: greedy decoding would then write it."""
    texts, facts = documents_and_facts(random, max(1, num_documents))
    entity, attribute = facts[0]
    messages = renderer.messages(question(random, entity, attribute), texts[:num_documents])
    answer = renderer.completion_ids(messages, restated_fact(entity, attribute))
    ids = torch.tensor([renderer.prompt_ids(messages) + answer])
    predicted = model(ids).logits[0, -len(answer) - 1 : -1].argmax(-1)
    return bool(predicted.tolist() == answer)
