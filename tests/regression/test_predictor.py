"""Distributions over values, and the predictor that reads them off a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.regression.distribution import Predictions
from stages.regression.number_head import NAME, add_head
from stages.regression.predictor import Predictor
from stages.regression.task import RegressionTask

PROMPTS = [[7, 9, 30, 31], [12, 40], [60, 61, 62, 63, 64, 65, 66]]


def test_what_a_distribution_says() -> None:
    values = np.array([-1.0, 0.0, 0.5])
    probabilities = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    predictions = Predictions(["x", "y"], values, probabilities, np.array([0.5, 0.0]))
    assert predictions.expected.tolist() == pytest.approx([0.05, 0.0])
    assert predictions.std.tolist() == pytest.approx([np.sqrt(0.325 - 0.0025), 0.0])
    assert predictions.quantile(0.2).tolist() == [-1.0, 0.0]  # exactly reached
    assert predictions.quantile(0.21).tolist() == [0.0, 0.0]
    assert predictions.quantile(1.0).tolist() == [0.5, 0.0]


@pytest.fixture
def model(base_workspace: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base_workspace.read("models/base/random")).eval()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_rows_come_back_in_their_order(model: Any, chat_tokenizer: Any, task: RegressionTask, batch_size: int) -> None:
    predictions = Predictor(model, chat_tokenizer, task, batch_size).predict(["a", "b", "c"], PROMPTS)
    assert predictions.ids == ["a", "b", "c"] and predictions.head is None
    assert predictions.probabilities.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    for row, prompt in enumerate(PROMPTS):
        alone = Predictor(model, chat_tokenizer, task, 1).predict(["x"], [prompt])
        assert predictions.expected[row] == pytest.approx(alone.expected[0], abs=1e-4)
        assert predictions.greedy[row] == alone.greedy[0]


def test_a_head_reads_the_state_from_which_the_number_is_written(
    model: Any, chat_tokenizer: Any, task: RegressionTask
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    add_head(model)
    torch.manual_seed(0)
    torch.nn.init.normal_(getattr(model, NAME).weight, std=0.01)
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=[NAME], task_type="CAUSAL_LM")
    ).eval()
    got = Predictor(adapted, chat_tokenizer, task, 3).predict(["a", "b", "c"], PROMPTS)
    assert got.head is not None
    before_number = chat_tokenizer('{"correlation": ', add_special_tokens=False)["input_ids"]
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[*prompt, *before_number]])
        with torch.no_grad():
            state = adapted(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            number = torch.tanh(getattr(adapted.get_base_model(), NAME)(state[None]))
        assert got.head[row] == pytest.approx(float(number), abs=1e-4)
