"""The sentences that system prompts and instructions are put together from, in English and Russian.

A writer in another language gets the English ones, which then name the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """traits: what is said of a feature above (or below) a bound. instructions: with {words}, {opening} and {names}."""

    quotes: tuple[str, str]
    system: str  # {traits}
    sentences: tuple[tuple[float, str], ...]  # up to so many words on average: with {mean}, {low} and {high}
    person: Mapping[str, str]
    tense: Mapping[str, str]
    dialogue: tuple[tuple[float, str], ...]  # up to such a share: with {percent}
    variety: tuple[tuple[float, str], ...]  # up to such a share
    punctuation: str  # {often}
    marks: Mapping[str, str]
    usual_marks: Mapping[str, float]  # per 1,000 words in fiction of the language at large, roughly
    paragraphs: str  # {mean}
    instructions: tuple[str, ...]
    names: str  # {names}
    between_names: str


EN = Wording(
    quotes=("“", "”"),
    system="You write prose in a voice of your own. {traits} Write connected prose only: no headings, no lists, no "
    "comments on the text.",
    sentences=(
        (12, "Your sentences are short: {mean} words on average, most between {low} and {high}."),
        (20, "Your sentences are of middle length: {mean} words on average, most between {low} and {high}."),
        (1e9, "Your sentences are long: {mean} words on average, most between {low} and {high}."),
    ),
    person={"first": "You narrate in the first person", "third": "You narrate in the third person"},
    tense={"past": "in the past tense.", "present": "in the present tense.", "": "in changing tenses."},
    dialogue=(
        (0.05, "There is hardly any dialogue."),
        (0.35, "About {percent} % of the words are dialogue."),
        (1.0, "Dialogue carries the text: about {percent} % of the words."),
    ),
    variety=(
        (0.66, "Your words are plain, and you repeat them without fear."),
        (0.74, "Your words are neither plain nor sought."),
        (1.0, "Your vocabulary is rich, and words seldom come again soon."),
    ),
    punctuation="Typical of your punctuation: {often}.",
    marks={
        "commas": "many commas",
        "semicolons": "semicolons",
        "colons": "colons",
        "dashes": "dashes",
        "exclamation_marks": "exclamation marks",
        "question_marks": "questions",
        "ellipses": "ellipses",
        "parentheses": "parentheses",
    },
    usual_marks={
        "commas": 70.0,
        "semicolons": 4.0,
        "colons": 2.5,
        "dashes": 8.0,
        "exclamation_marks": 5.0,
        "question_marks": 7.0,
        "ellipses": 2.0,
        "parentheses": 2.0,
    },
    paragraphs="A paragraph has about {mean} words.",
    instructions=(
        "Write a passage of about {words} words that opens with {opening}{names}",
        "Continue from this opening for about {words} words: {opening}{names}",
        "Write about {words} words of prose. It begins: {opening}{names}",
    ),
    names=" In it appear: {names}.",
    between_names=", ",
)
RU = Wording(
    quotes=("«", "»"),
    system="Ты пишешь прозу своим собственным голосом. {traits} Пиши только связную прозу: без заголовков, списков и "
    "замечаний о тексте.",
    sentences=(
        (10, "Предложения короткие: в среднем слов — {mean}, чаще всего от {low} до {high}."),
        (17, "Предложения средней длины: в среднем слов — {mean}, чаще всего от {low} до {high}."),
        (1e9, "Предложения длинные: в среднем слов — {mean}, чаще всего от {low} до {high}."),
    ),
    person={"first": "Повествование от первого лица,", "third": "Повествование от третьего лица,"},
    tense={"past": "в прошедшем времени.", "present": "в настоящем времени.", "": "времена чередуются."},
    dialogue=(
        (0.05, "Диалога почти нет."),
        (0.35, "Диалог занимает около {percent} % слов."),
        (1.0, "Текст держится на диалоге: около {percent} % слов."),
    ),
    variety=(
        (0.74, "Слова простые, повторов ты не боишься."),
        (0.82, "Слова ни простые, ни изысканные."),
        (1.0, "Словарь богатый, слова редко повторяются рядом."),
    ),
    punctuation="Характерная пунктуация: {often}.",
    marks={
        "commas": "много запятых",
        "semicolons": "точки с запятой",
        "colons": "двоеточия",
        "dashes": "тире",
        "exclamation_marks": "восклицательные знаки",
        "question_marks": "вопросы",
        "ellipses": "многоточия",
        "parentheses": "скобки",
    },
    usual_marks={
        "commas": 120.0,
        "semicolons": 3.0,
        "colons": 2.5,
        "dashes": 20.0,
        "exclamation_marks": 5.0,
        "question_marks": 7.0,
        "ellipses": 2.0,
        "parentheses": 2.0,
    },
    paragraphs="В абзаце около {mean} слов.",
    instructions=(
        "Напиши отрывок примерно в {words} слов, который начинается так: {opening}{names}",
        "Продолжи это начало, примерно {words} слов: {opening}{names}",
        "Напиши прозу объёмом около {words} слов. Начало: {opening}{names}",
    ),
    names=" В тексте упоминаются: {names}.",
    between_names=", ",
)
WORDINGS = {"en": EN, "ru": RU}
OTHER_LANGUAGE = "Write in the language with the code {language}."


def wording_of(language: str) -> Wording:
    """English where there is none for the language."""
    return WORDINGS.get(language, EN)
