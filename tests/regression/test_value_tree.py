"""The tree of values and what is read off it, against brute force: one string, one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.core.errors import DataError
from stages.regression.answer import value_texts
from stages.regression.hybrid import tree_of
from stages.regression.pair_prompts import PairRenderer
from stages.regression.readout import Readout, run_window
from stages.regression.task import RegressionTask
from stages.regression.value_tree import ROOT, ValueTree, build_tree

torch = pytest.importorskip("torch")

PROMPTS = [[7, 9, 30, 31], [12, 40], [60, 61, 62, 63, 64, 65, 66]]
SAME_FIXTURES = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(base_workspace: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base_workspace.read("models/base/random")).eval()


def next_log_probs(model: Any, ids: Sequence[int]) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)])).logits[0, -1].double().log_softmax(-1)


def brute_force(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """The probability of each answer where, at every token, only tokens of a possible answer are allowed."""
    probabilities = []
    for answer in answers:
        probability = 1.0
        for k, token in enumerate(answer):
            allowed = sorted({other[k] for other in answers if list(other[:k]) == list(answer[:k])})
            if len(allowed) > 1:
                scores = next_log_probs(model, [*prompt, *answer[:k]])[allowed].softmax(-1)
                probability *= float(scores[allowed.index(token)])
        probabilities.append(probability)
    return probabilities


def step_by_step(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> int:
    """The answer that greedy constrained decoding writes."""
    left, k = list(range(len(answers))), 0
    while len(left) > 1:
        allowed = sorted({answers[n][k] for n in left})
        best = allowed[int(next_log_probs(model, [*prompt, *answers[left[0]][:k]])[allowed].argmax())]
        left = [n for n in left if answers[n][k] == best]
        k += 1
    return left[0]


def read(model: Any, tree: ValueTree, prompts: Sequence[Sequence[int]]) -> tuple[Any, list[int]]:
    readout = Readout(tree)
    with torch.no_grad():
        choices = readout.choice_log_probs(run_window(model, readout.batch(prompts), 1 + tree.num_nodes).logits)
    return readout.leaf_log_probs(choices).exp(), readout.greedy(choices).tolist()


@SAME_FIXTURES
@given(
    low=st.integers(-12, 5),
    width=st.integers(1, 30),
    decimals=st.integers(0, 1),
    rationale=st.sampled_from(["", "why"]),
)
def test_one_pass_equals_brute_force(
    task: RegressionTask, chat_tokenizer: Any, model: Any, low: int, width: int, decimals: int, rationale: str
) -> None:
    high = round(low + width / 10, 1) if decimals else low + width
    task = replace(task, low=low, high=high, decimals=decimals, tolerance=0.05, rationale_field=rationale)
    renderer = PairRenderer(task, chat_tokenizer)
    values = [float(text) for text in value_texts(task)]
    answers = [renderer.answer_ids(value, "A" if rationale else "") for value in values]
    probabilities, greedy = read(model, tree_of(renderer, 1000), PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        assert probabilities[row].tolist() == pytest.approx(brute_force(model, prompt, answers), rel=2e-3, abs=1e-7)
        assert greedy[row] == step_by_step(model, prompt, answers)


def test_a_batch_reads_as_one_by_one(task: RegressionTask, chat_tokenizer: Any, model: Any) -> None:
    tree = tree_of(PairRenderer(task, chat_tokenizer), 64)
    together, _ = read(model, tree, PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone, _ = read(model, tree, [prompt])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-3, atol=1e-6)


def test_forced_tokens_are_no_choice() -> None:
    tree = build_tree([1, 2, 3], [[5, 6, 1, 9], [5, 6, 2, 9], [5, 7, 8, 9]], 100)
    assert (tree.tokens, tree.parents, tree.depths) == ([5, 6], [ROOT, 0], [1, 2])
    assert [(b.node, b.tokens) for b in tree.branchings] == [(0, [6, 7]), (1, [1, 2])]
    assert tree.leaves == [1, 2, 3]
    assert tree.paths == [[(0, 0), (1, 0)], [(0, 0), (1, 1)], [(0, 1)]]
    assert tree.follow([5, 6, 2, 9]) == [0, 1]
    assert tree.sees.tolist() == [[True, False], [True, True]]


def test_a_number_that_begins_another_is_told_by_what_follows() -> None:
    tree = build_tree([1, 10, 11], [[1, 99], [1, 0, 99], [1, 1, 99]], 100)
    assert [b.tokens for b in tree.branchings] == [[99, 0, 1]]
    assert [b.means for b in tree.branchings] == [[1, 10, 11]]


def test_a_cut_tree_keeps_groups_with_their_means(task: RegressionTask, chat_tokenizer: Any, model: Any) -> None:
    renderer = PairRenderer(task, chat_tokenizer)
    whole, cut = tree_of(renderer, 1000), tree_of(renderer, 30)
    assert len(whole.leaves) == 201 and len(cut.leaves) == 103
    assert sorted(n for members in cut.members for n in members) == list(range(201))
    assert cut.leaves == sorted(cut.leaves)
    all_probabilities, _ = read(model, whole, PROMPTS)
    probabilities, _ = read(model, cut, PROMPTS)
    sums = torch.stack([all_probabilities[:, members].sum(-1) for members in cut.members], -1)
    torch.testing.assert_close(probabilities, sums, rtol=1e-3, atol=1e-6)


def test_values_written_alike_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 and another value are written with the same tokens"):
        build_tree([1, 2], [[5, 6], [5, 6]], 10)
