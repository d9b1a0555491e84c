"""A conversation as a question and its answer: the first turn, which is the only one that stands on its own.

   user: Who founded Bako?      assistant: Lona Tir.
   user: And when?              assistant: In 1204.
-> FirstTurn("Who founded Bako?", "Lona Tir.", num_follow_ups=1)
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.formats.conversation import INSTRUCTING, Conversation, Flaw


@dataclass(frozen=True)
class FirstTurn:
    """num_follow_ups: later questions; out of their conversation they ask something else. has_system: a system text
    stood above, which is not part of the question."""

    question: str
    answer: str
    num_follow_ups: int
    has_system: bool


def first_turn(conversation: Conversation, join_context: bool) -> FirstTurn:
    """join_context: the context of a single question follows it after an empty line.

    Raises Flaw: roles_out_of_order where no question with its answer comes first, tool_calls where the answer is one.
    """
    rest = [message for message in conversation.messages if message.role not in INSTRUCTING]
    roles = [message.role for message in rest]
    if roles[:2] != ["user", "assistant"]:
        raise Flaw("roles_out_of_order", f"begins with {' '.join(roles[:2])}")
    asked, answered = rest[:2]
    if answered.tool_calls:
        raise Flaw("tool_calls", f"calls {', '.join(call.name for call in answered.tool_calls)}")
    num_follow_ups = roles.count("user") - 1
    context = conversation.context.strip() if join_context and not num_follow_ups else ""
    question = f"{asked.content}\n\n{context}" if context else asked.content
    return FirstTurn(question, answered.content, num_follow_ups, len(rest) < len(conversation.messages))
