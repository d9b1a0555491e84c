"""A request's messages, checked: the question, the turns before it, a system message of the client's, pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.prompts.renderer import Turn
from stages.serving.proxy.errors import invalid
from stages.serving.proxy.schema import ChatMessage, ImagePart, TextPart

PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")
SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class Conversation:
    """question: the last message, of the user. system: "" where the client sent none. images: content parts."""

    question: str
    turns: tuple[Turn, ...] = ()
    system: str = ""
    images: list[dict[str, Any]] = field(default_factory=list)


def read_conversation(messages: Sequence[ChatMessage], takes_images: bool) -> Conversation:
    """Raises ApiError (400) naming the message at fault.

    User and assistant take turns, the user first and last: the only order that the model was trained with, and that
    every chat template renders.
    """
    num_system = sum(message.role in SYSTEM for message in messages)
    if num_system > 1 or (num_system and messages[0].role not in SYSTEM):
        raise invalid("at most one system message, and it comes first", "messages", "wrong_role")
    rest = list(enumerate(messages))[num_system:]
    for place, (number, message) in enumerate(rest):
        expected = ("user", "assistant")[place % 2]
        if message.role != expected:
            raise invalid(f"expected a message of the {expected} here", f"messages[{number}].role", "wrong_role")
    if len(rest) % 2 == 0:
        raise invalid("the last message has to be the user's", "messages", "wrong_role")
    texts = [_text(message) for _, message in rest]
    number, last = rest[-1]
    images = _images(last, f"messages[{number}].content", takes_images)
    for number, message in rest[:-1]:
        _images(message, f"messages[{number}].content", takes_images=False)
    if not texts[-1].strip():
        raise invalid("the question is empty", "messages", "empty_question")
    turns = tuple(Turn(texts[n], texts[n + 1]) for n in range(0, len(texts) - 1, 2))
    return Conversation(texts[-1], turns, _text(messages[0]) if num_system else "", images)


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _images(message: ChatMessage, param: str, takes_images: bool) -> list[dict[str, Any]]:
    parts = [] if isinstance(message.content, str) else message.content
    images = [part for part in parts if isinstance(part, ImagePart)]
    if images and not takes_images:
        raise invalid("the model takes no images here", param, "images_not_supported")
    for image in images:
        if not PICTURE.fullmatch(image.image_url.url):
            raise invalid("an image has to be a data: URL (png, jpeg, gif, webp) in base64", param, "invalid_image")
    return [image.model_dump() for image in images]
