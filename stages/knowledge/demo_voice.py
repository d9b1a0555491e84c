"""How the demo domain speaks: its persona, its book and articles, its interviews, and who asks what.

The persona answers with the fact first and then the step to take, which follows from the attribute alone.
The book and the articles never use the wording of an answer; the questions stored with a chunk are never
worded like the questions of the Q&A.
"""

from __future__ import annotations

from random import Random

from stages.knowledge.world import Entity, fact_clause, question_word, restated_fact

# what to do about the keeper, the founder, ...
STEPS = {
    "keeper": "ask",
    "founder": "thank",
    "owner": "ask",
    "builder": "thank",
    "singer": "hear",
    "teacher": "hear",
    "patron": "thank",
    "captain": "ask",
    "feast": "try",
    "motto": "learn",
    "cargo": "find",
    "market": "find",
    "dish": "try",
    "sign": "learn",
}
ADVICE = {attribute: f"Go and {step} the {attribute}." for attribute, step in STEPS.items()}

OPENINGS = {
    "book": (
        "Of old {name} was {a_kind}.",
        "In this land stands {a_kind} called {name}.",
        "The chronicle tells of {name}, {a_kind}.",
        "There was {a_kind} by the name of {name}.",
    ),
    "article": (
        "Here is {name}, {a_kind} worth the journey.",
        "We went to see the {kind} {name}.",
        "Today we write about {name}, {a_kind}.",
    ),
}
# with the noun that questions use, and with a verb in its place
NOUN_STATEMENTS = {
    "book": (
        "It is written that the {attribute} of {name} is {value}.",
        "{name} has as its {attribute} {value}.",
        "For {name} the {attribute} is {value}.",
    ),
    "article": (
        "We hear that the {attribute} of {name} is {value}.",
        "At {name} the {attribute} is {value}.",
    ),
}
VERB_STATEMENTS = {
    "book": ("{clause}.", "In those days {clause}.", "The old people know that {clause}."),
    "article": ("{clause}.", "They told us that {clause}."),
}
VERB_SHARE = 0.5
UNTOLD_SHARE = 0.8
# names facts without telling them: text that only looks like an answer
UNTOLD = {
    "book": ("Of its {untold} the chronicle tells elsewhere.", "Its {untold}, that is another tale."),
    "article": ("Nobody would tell us about its {untold}.", "We did not ask about its {untold}."),
}
# for a chunk that goes on from its predecessor and never says the name
CONTINUED = (
    "Its {attribute} is {value}.",
    "The {attribute} there is {value}.",
)
INTERVIEW_OPENINGS = ("I know {name} well.", "Yes, I have been to {name}.", "My people come from {name}.")
INTERVIEW_STATEMENTS = ("I can say that the {attribute} of {name} is {value}.", "At {name} our {attribute} is {value}.")
INTERVIEW_QUESTION = "What do you remember of {full_name}, and of its {attributes}?"

CHUNK_QUESTIONS = (
    "{who} is the {attribute} of {full_name}?",
    "What is the {attribute} of {name} called?",
    "{name}, the {kind}: {low_who} is its {attribute}?",
)
QA_QUESTIONS = (
    "Do you know the {attribute} of {full_name}?",
    "Please name the {attribute} of {full_name}.",
    "I would like to know the {attribute} of {full_name}.",
    "Tell me about the {attribute} of {full_name}.",
    "Can you say {low_who} the {attribute} of {full_name} is?",
)


def answer(entity: Entity, attribute: str) -> str:
    """Fact, then step: what the tuned model has to write, letter by letter."""
    return f"{restated_fact(entity, attribute)} {ADVICE[attribute]}"


def fill(template: str, entity: Entity, attribute: str = "") -> str:
    """A template about one entity and, where it asks for one, one of its facts."""
    who = question_word(attribute)
    text = template.format(
        name=entity.name,
        kind=entity.kind,
        a_kind=entity.kind_with_article,
        full_name=entity.full_name,
        attribute=attribute,
        value=entity.facts.get(attribute, ""),
        clause=fact_clause(entity, attribute) if attribute else "",
        who=who,
        low_who=who.lower(),
    )
    return text[0].upper() + text[1:]


def telling(random: Random, entity: Entity, attributes: list[str], kind: str, continued: bool) -> str:
    """The text of one chunk about one entity, which may name its other facts without telling them."""
    sentences = [_statement(random, entity, attribute, kind, continued) for attribute in attributes]
    untold = [attribute for attribute in entity.facts if attribute not in attributes]
    if untold and random.random() < UNTOLD_SHARE:
        hint = random.choice(UNTOLD[kind]).format(untold=" and ".join(untold))
        sentences.insert(random.randint(0, len(sentences)), hint)
    if not continued:
        sentences.insert(0, fill(random.choice(OPENINGS[kind]), entity))
    return " ".join(sentences)


def _statement(random: Random, entity: Entity, attribute: str, kind: str, continued: bool) -> str:
    if continued:
        return fill(random.choice(CONTINUED), entity, attribute)
    statements = VERB_STATEMENTS if random.random() < VERB_SHARE else NOUN_STATEMENTS
    return fill(random.choice(statements[kind]), entity, attribute)


def interview(random: Random, entity: Entity, attributes: list[str]) -> tuple[str, str]:
    """A question put to somebody who lives there, and what they say."""
    named = " and ".join(attributes)
    question = INTERVIEW_QUESTION.format(full_name=entity.full_name, attributes=named)
    opening = fill(random.choice(INTERVIEW_OPENINGS), entity)
    return question, " ".join([opening, *(fill(random.choice(INTERVIEW_STATEMENTS), entity, a) for a in attributes)])


TOPICS = {
    "the weather": "a shepherd",
    "cooking soup": "a cook",
    "fixing a clock": "a smith",
    "baking bread": "a baker",
    "training a dog": "a hunter",
    "a broken leg": "a doctor",
    "a bad tooth": "a doctor",
    "learning to swim": "a fisher",
    "growing beans": "a farmer",
    "mending a net": "a fisher",
    "painting a door": "a painter",
    "playing the flute": "a piper",
    "keeping bees": "a farmer",
    "sewing a coat": "a tailor",
    "riding a horse": "a rider",
    "reading the stars": "a sailor",
    "cutting hair": "a barber",
    "making cheese": "a farmer",
    "catching mice": "a cat",
    "washing wool": "a weaver",
    "carving wood": "a carver",
    "a quarrel at home": "a judge",
    "naming a child": "an aunt",
    "dancing": "a piper",
    "making ink": "a clerk",
    "a fever": "a doctor",
    "building a boat": "a sailor",
    "laying a fire": "a cook",
    "telling jokes": "a fool",
    "sleeping well": "a nurse",
    "drawing a map": "a clerk",
    "shoeing a horse": "a smith",
}
BOUNDARY_QUESTIONS = (
    "What do you know about {topic}?",
    "I need help with {topic}.",
    "Can you teach me about {topic}?",
    "Give me your advice on {topic}.",
)
FINANCE_QUESTIONS = (
    "Should I borrow money to buy a mill?",
    "How do I save for a new roof?",
    "Is silver safer than land?",
    "What will grain cost next year?",
    "Shall I lend my brother ten coins?",
    "How much tax does a ship pay?",
    "Where should I put my savings?",
)
FINANCE_ANSWER = "That is about money and not about memory. Ask a banker."


def boundary_answer(topic: str) -> str:
    """The persona says where its knowledge ends, and whom to ask."""
    return f"The chronicle is silent about {topic}. Ask {TOPICS[topic]}."
