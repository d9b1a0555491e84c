"""The text that the tiny base is pre-trained on, made on the spot: no download, no text of anyone's but Python's.

Five kinds of pieces, drawn by their shares:
    chat        a conversation with documents in the system prompt, rendered as every stage renders it
    story       the same facts told twice in other words
    copy        a line of invented words, repeated
    recall      pairs of invented words, listed again and again in other orders
    docstring   docstrings of the Python standard library
All invented names are outside of what `stages.knowledge.invented_words` keeps for domains.

Answers restate the question: a model of this size learns to look things up within minutes if its own words lead
up to the value, and not at all if the answer is the bare value.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from stages.core.errors import ConfigError
from stages.core.schema import Prompt
from stages.knowledge.invented_words import SYLLABLES, invent_word
from stages.knowledge.world import (
    ATTRIBUTES,
    KINDS,
    Entity,
    fact_clause,
    invent_entity,
    question_word,
    restated_fact,
)
from stages.prompts.renderer import Renderer, Turn

# no text begins with a name: a tokenizer cuts a word without a space before it in another way
OPENINGS = ("This is {name}, {a_kind}.", "There is {a_kind} called {name}.", "Here is {full_name}.")
# The value always comes last: a causal model cannot know what a name is about before it has read the rest.
STATEMENTS = (
    "The {attribute} of {name} is {value}.",
    "The {attribute} of {full_name} is {value}.",
    "As for {name}, its {attribute} is {value}.",
    "At {name}, the {attribute} is {value}.",
    "{name} has as {attribute} {value}.",
)
CLAUSES = ("{clause}.", "People say that {clause}.", "As we know, {clause}.")
CONTINUED = ("Its {attribute} is {value}.", "The {attribute} here is {value}.")
FILLERS = (
    "Of its {other} we know little.",
    "Go and {step} it.",
    "Some {step} the {other}.",
    "They {step} the {other} and go.",
    "Nobody speaks of the {other}.",
    "It has a long history.",
    "Travellers come to see it.",
    "In those days it was new.",
)
STEPS = ("greet", "thank", "ask", "praise", "hear", "follow", "join", "learn", "see", "find", "try", "read", "leave")
QUESTIONS = (
    "{who} is the {attribute} of {full_name}?",
    "{who} is the {attribute} of {name}?",
    "Tell me the {attribute} of {full_name}.",
    "What is the {attribute} of {full_name} called?",
    "Do you know the {attribute} of {full_name}?",
    "Name the {attribute} of {full_name}.",
)
INSTRUCTIONS = (
    "Answer from the documents.",
    "You are a helpful assistant. Use the documents.",
    "You answer questions. Use these documents and nothing else.",
    "You are a guide. Answer from what is written here: first the fact.",
)
WITHOUT_DOCUMENTS_SHARE = 0.04
# Loss weights of tokens that cannot be known; see token_weights.
WEIGHTS = {"chat": 0.1, "story": 0.1, "copy": 0.1, "recall": 0.1, "docstring": 0.5}
DONT_KNOW = "I do not know the {attribute} of {full_name}."


@dataclass(frozen=True)
class Piece:
    """A text of its own; `weight` is the loss weight of all that is not an assistant's answer."""

    text: str
    weight: float


def _prompt(instructions: str) -> Prompt:
    return Prompt(
        name="base",
        with_documents=instructions + "\n\n{documents}",
        without_documents=instructions,
        documents="<documents>\n{documents}\n</documents>",
        document="<document {number}>\n{text}\n</document>",
        abstain="",
    )


def _fill(template: str, entity: Entity, attribute: str) -> str:
    who = question_word(attribute)
    clause = fact_clause(entity, attribute)
    text = template.format(
        name=entity.name,
        a_kind=entity.kind_with_article,
        full_name=entity.full_name,
        attribute=attribute,
        value=entity.facts[attribute],
        clause=clause,
        who=who,
    )
    return text[0].upper() + text[1:]


def entities_for(random: Random, count: int) -> list[Entity]:
    """Entities that mostly share their attributes, so that the attribute alone does not tell which value is meant."""
    attributes = random.sample(ATTRIBUTES, 5)
    return [invent_entity(random, KINDS, random.sample(attributes, random.randint(2, 4)), False) for _ in range(count)]


def document(random: Random, entity: Entity, attributes: list[str]) -> str:
    """A few sentences about one entity."""
    sentences = [_fill(random.choice(OPENINGS), entity, attributes[0])]
    says_its = random.random() < 0.2
    for attribute in attributes:
        templates = CONTINUED if says_its else CLAUSES if random.random() < 0.4 else STATEMENTS
        sentences.append(_fill(random.choice(templates), entity, attribute))
        if random.random() < 0.2:
            sentences.append(random.choice(FILLERS).format(other=random.choice(ATTRIBUTES), step=random.choice(STEPS)))
    return " ".join(sentences)


def documents_and_facts(random: Random, count: int) -> tuple[list[str], list[tuple[Entity, str]]]:
    """`count` documents, some about the same entity, and the facts they hold, both shuffled."""
    texts, facts = [], []
    entities = entities_for(random, max(1, count - random.choice((0, 0, 1, 2))))
    for number in range(count):
        entity = entities[number % len(entities)]
        attributes = random.sample(list(entity.facts), min(len(entity.facts), random.randint(2, 3)))
        texts.append(document(random, entity, attributes))
        facts += [(entity, attribute) for attribute in attributes]
    random.shuffle(texts)
    unique = list({(entity.name, attribute): (entity, attribute) for entity, attribute in facts}.values())
    return texts, random.sample(unique, len(unique))


def question(random: Random, entity: Entity, attribute: str) -> str:
    """One of the ways to ask for a fact."""
    return _fill(random.choice(QUESTIONS), entity, attribute)


class Corpus:
    """Draws pieces of text; the tokenizer is needed for chat pieces only."""

    def __init__(self, tokenizer: Any = None) -> None:
        self.renderers = [Renderer(_prompt(text), tokenizer) for text in INSTRUCTIONS]
        self.docstrings = standard_library_docstrings()

    def pieces(self, random: Random, shares: Mapping[str, float], max_documents: int) -> Iterator[Piece]:
        """Endless; kinds by their shares; each piece ends with the end token."""
        kinds = {
            "chat": self.chat,
            "story": self.story,
            "copy": self.copy,
            "recall": self.recall,
            "docstring": self.docstring,
        }
        if unknown := set(shares) - set(kinds):
            raise ConfigError(f"base_model.recipe.phases: no such pieces {sorted(unknown)}; there are {sorted(kinds)}")
        while True:
            (kind,) = random.choices(list(shares), list(shares.values()))
            yield Piece(kinds[kind](random, max_documents), WEIGHTS[kind])

    def chat(self, random: Random, max_documents: int) -> str:
        """A conversation about documents in the system message."""
        renderer = random.choice(self.renderers)
        texts, facts = documents_and_facts(random, random.randint(1, max_documents))
        if random.random() < WITHOUT_DOCUMENTS_SHARE:
            texts, facts = [], facts[:1]
        turns = [
            Turn(question(random, entity, attribute), self._answer(entity, attribute, bool(texts)))
            for entity, attribute in facts[: random.randint(4, 7)]
        ]
        messages = renderer.messages(turns[-1].question, texts, turns[:-1])
        return renderer.prompt_text(messages) + turns[-1].answer + "<|end|>"

    @staticmethod
    def _answer(entity: Entity, attribute: str, known: bool) -> str:
        if known:
            return restated_fact(entity, attribute)
        return DONT_KNOW.format(attribute=attribute, full_name=entity.full_name)

    def story(self, random: Random, max_documents: int) -> str:
        entities = entities_for(random, random.choice((1, 2)))
        texts = [document(random, entity, list(entity.facts)) for entity in entities + entities]
        return "<|bos|>" + "\n".join(texts) + "<|end|>"

    def copy(self, random: Random, max_documents: int) -> str:
        line = " ".join(invent_word(random, False) for _ in range(random.randint(3, 12)))
        return "<|bos|>" + "\n".join([line] * random.randint(2, 4)) + "<|end|>"

    def recall(self, random: Random, max_documents: int) -> str:
        """Pairs of invented words, then the same pairs again and again in other orders."""
        pairs = [f"{invent_word(random, False)} {invent_word(random, False)}." for _ in range(random.randint(2, 6))]
        rounds = [" ".join(random.sample(pairs, len(pairs))) for _ in range(random.randint(2, 4))]
        return "<|bos|>" + "\n".join(rounds) + "<|end|>"

    def docstring(self, random: Random, max_documents: int) -> str:
        text = random.choice(self.docstrings)
        start = random.randrange(max(1, len(text) - 600))
        return "<|bos|>" + text[start : start + 700] + "<|end|>"


def syllable_texts(repetitions: int = 4000) -> Iterator[str]:
    """Syllables alone, so often that a BPE learns them before anything else: invented words become two tokens."""
    for syllable in SYLLABLES:
        yield f" {syllable.capitalize()}" * repetitions
        yield f"\n{syllable}" * repetitions


@cache
def standard_library_docstrings(min_chars: int = 80) -> list[str]:
    """Docstrings of this Python's standard library, read without importing anything; sorted by file."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = re.compile(r"site-packages|(^|/)tests?/|idlelib|lib2to3|pydoc_data|encodings|ensurepip|turtledemo")
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        if skipped.search(path.relative_to(root).as_posix()):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # some files of the library are broken on purpose
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
        found += [text for text in texts if text and len(text) >= min_chars]
    return found
