"""Batched reading of the distribution against one pair after the other, on a model of the embedded base's size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stages.generation.decoding import generate
from stages.regression.pair_prompts import PairRenderer
from stages.regression.predictor import Predictor
from stages.regression.task import RegressionTask

NUM_PAIRS = 48
PROMPT_TOKENS = 70


@pytest.mark.slow
def test_a_batch_is_five_times_as_fast_as_writing_answer_after_answer(
    task: RegressionTask, chat_tokenizer: Any
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1280, **sizes)).eval()
    prompts = torch.randint(10, 200, (NUM_PAIRS, PROMPT_TOKENS)).tolist()
    predictor = Predictor(model, chat_tokenizer, task, batch_size=NUM_PAIRS)
    ids = [str(number) for number in range(NUM_PAIRS)]
    num_tokens = len(PairRenderer(task, chat_tokenizer).answer_ids(-0.42))
    batched = cpu_s(lambda: predictor.predict(ids, prompts))
    one_by_one = cpu_s(lambda: generate(model, chat_tokenizer, prompts, num_tokens, batch_size=1))
    assert one_by_one > 5 * batched


def cpu_s(run: Callable[[], Any]) -> float:
    """The least CPU time of three, on one thread: other processes do not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(3):
            started = time.process_time()
            run()
            times.append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return min(times)
