"""A small head that reads the number off the hidden state from which the model begins to write it.

It is a module of the base model, so that PEFT saves it in the adapter beside the LoRA weights, and a checkpoint holds
it like everything else that is trained.
"""

from __future__ import annotations

from typing import Any

NAME = "number_head"


def add_head(model: Any) -> None:
    """Puts an untrained head on a base model: hidden state -> a number on the unit scale, 0 at first."""
    import torch

    head = torch.nn.Linear(model.config.hidden_size, 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    setattr(model, NAME, head.to(model.device))


def read_head(model: Any, hidden: Any) -> Any:
    """[B] numbers in (-1, 1) from hidden states [B, D]; `model` carries the adapter with the head."""
    head = getattr(getattr(model, "module", model).get_base_model(), NAME)  # module: below torch's DDP
    return head(hidden.to(next(head.parameters()).dtype)).squeeze(-1).tanh()
