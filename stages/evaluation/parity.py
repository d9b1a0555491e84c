"""Does inference see the token ids that training saw? Counted over golden prompts.

Three ways from a question and its documents to ids: the training path (`Renderer.tokenise`, its prompt part), the
path of chat and evaluation (`Renderer.messages`, `Renderer.prompt_ids`), and the tokenizer's own chat template
without any code of ours, which is what an inference server does. All three must agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.knowledge.records import Example
from stages.prompts.renderer import Renderer


def prompts_agree(renderer: Renderer, example: Example) -> bool:
    """Whether the three paths give equal ids."""
    trained = renderer.tokenise(example.question, example.documents, example.answer)
    prompt = trained.input_ids[: len(trained.input_ids) - trained.num_completion_tokens]
    messages = renderer.messages(example.question, example.documents)
    served = renderer.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    return prompt == renderer.prompt_ids(messages) == list(served)


def parity(renderer: Renderer, examples: Sequence[Example]) -> list[float]:
    """1.0 or 0.0 per example."""
    return [float(prompts_agree(renderer, example)) for example in examples]
