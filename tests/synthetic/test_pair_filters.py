"""Every filter with what it must catch and what it must let pass, in English, Russian and German."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import ConfigError
from stages.knowledge.records import Chunk
from stages.synthetic import phrases
from stages.synthetic.drafts import Draft
from stages.synthetic.filters import Judge
from stages.synthetic.grounding import names_in, support
from stages.synthetic.languages import LANGUAGES, find_language, wrong_language
from stages.synthetic.plan import POTENTIAL_QUESTIONS
from stages.synthetic.settings import Filters, Style

FILTERS = Filters(
    min_question_chars=10,
    max_question_chars=200,
    min_answer_chars=2,
    max_answer_chars=400,
    min_grounded_share=0.6,
    min_confidence=0.9,
    near_duplicate_similarity=0.8,
)
TEXT = "The mill Bako was founded by Lona Tir in 1,250. It grinds 3.5 tons of rye a day for the villages of the valley."
CHUNK = Chunk("book-0001", "book", "mills", "", 1, TEXT)


def judged(
    question: str, answer: str, style: str = "factual", language: str = "en", text: str = TEXT
) -> tuple[str, str]:
    styles = {"factual": Style("x"), "problem": Style("x", may_invent=True, min_grounded_share=0.2)}
    judge = Judge(FILTERS, styles, language, "The documents do not say.")
    (draft,) = judge([Draft(replace(CHUNK, text=text), style, 1, question, answer)])
    return draft.reason, draft.detail


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("Who founded the mill Bako?", "Lona Tir founded it in 1250.", ""),
        ("How much does the mill Bako grind?", "It grinds 3,5 tons of rye daily.", ""),
        ("Who founded the mill Bako?", "Lona Tir founded it in 1251.", "not_grounded"),
        ("Who founded the mill Bako?", "Miran Tir founded it.", "not_grounded"),
        ("Who founded the mill Zuna?", "Lona Tir founded it.", "not_grounded"),
        ("What does the mill Bako do?", "It bakes bread and sells cakes to travellers.", "not_grounded"),
        ("", "Lona Tir.", "empty"),
        ("Who founded the mill Bako?", " - ", "empty"),
        ("Who?", "Lona Tir.", "too_short"),
        ("Who founded the mill Bako?", "rye " * 101, "too_long"),
        ("Who founded the mill Bako?", "I'm sorry, but I can't help with that.", "refused"),
        ("Who owns the mill Bako?", "The documents do not say.", "not_answerable"),
        ("Who owns the mill Bako?", "This is not mentioned in the document.", "not_answerable"),
        ("Who owns the mill Bako?", "The mill Bako.", "not_answerable"),
        ("What does the passage say about the mill Bako?", "Lona Tir founded it.", "about_the_text"),
        ("Who founded the mill Bako?", "According to the text, Lona Tir.", "about_the_text"),
        ("When was it founded?", "The mill Bako was founded in 1250.", "not_standalone"),
        ("Wer hat die Mühle Bako gegründet?", "Lona Tir hat sie in dem Jahr 1250 gegründet.", "wrong_language"),
    ],
)
def test_a_pair_is_kept_or_has_its_reason(question: str, answer: str, reason: str) -> None:
    found, detail = judged(question, answer)
    assert found == reason, detail


def test_a_problem_may_name_persons_and_numbers_of_its_own() -> None:
    question = "Anna brings 7 tons of rye to the mill Bako. How long does the mill grind?"
    answer = "1. The mill grinds 3.5 tons of rye a day.\n2. So it grinds for 2 days."
    assert judged(question, answer, "problem")[0] == ""
    assert judged(question, answer)[0] == "not_grounded"


def test_russian_pairs() -> None:
    text = "Мельницу Бако основала Лона Тир в 1250 году. Она мелет рожь для деревень долины."
    good = ("Кто основал мельницу Бако?", "Мельницу Бако основала Лона Тир.")
    assert judged(*good, language="ru", text=text)[0] == ""
    assert judged("Чья это мельница Бако?", "Лоны Тир.", language="ru", text=text)[0] == "not_standalone"
    assert judged("Кем основана мельница Бако?", "Лоной Тир.", language="ru", text=text)[0] == ""
    assert judged("Кто основал мельницу Бако?", "Миран Тир.", language="ru", text=text)[0] == "not_grounded"
    assert (
        judged("Что говорится в тексте о мельнице?", "Её основала Лона.", language="ru", text=text)[0]
        == "about_the_text"
    )
    assert (
        judged("Кто основал мельницу Бако?", "К сожалению, я не могу ответить.", language="ru", text=text)[0]
        == "refused"
    )
    assert judged("Who founded the mill Bako?", "Lona Tir.", language="ru", text=text)[0] == "wrong_language"


def test_near_duplicates_go_within_a_style_and_leave_the_first() -> None:
    judge = Judge(FILTERS, {"a": Style("x"), "b": Style("x")}, "en", "")
    question = "Who is the person that founded the mill Bako in the valley?"
    texts = [
        (question, "Lona Tir."),
        (question, "It was Lona Tir."),
        (question.replace("Who is", "who  is"), "Lona Tir"),
    ]
    drafts = [Draft(CHUNK, style, n, *pair) for style in "ab" for n, pair in enumerate(texts, start=1)]
    found = judge([drafts[0], drafts[3], *drafts[1:3], *drafts[4:]])
    assert [(d.style, d.number, d.reason) for d in found if not d.reason] == [("a", 1, ""), ("b", 1, "")]
    assert {d.detail for d in found if d.style == "b" and d.reason} == {"of book-0001, b 1"}


def test_potential_questions_need_no_answer_and_may_recur_in_another_chunk() -> None:
    judge = Judge(FILTERS, {}, "en", "")
    other = replace(CHUNK, id="book-0002")
    asked = [
        Draft(chunk, POTENTIAL_QUESTIONS, n, "Who founded the mill Bako?") for chunk in (CHUNK, other) for n in (1, 2)
    ]
    assert [draft.reason for draft in judge(asked)] == ["", "near_duplicate", "", "near_duplicate"]


def test_an_answer_that_was_guessed_goes() -> None:
    draft = Draft(CHUNK, "factual", 1, "Who founded the mill Bako?", "Lona Tir founded it.", confidence=0.89)
    judge = Judge(FILTERS, {}, "en", "")
    assert [(d.reason, d.detail) for d in judge([draft])] == [("not_confident", "0.890")]
    assert judge([replace(draft, confidence=0.9)])[0].reason == ""


def test_a_reason_that_a_draft_has_is_kept() -> None:
    draft = Draft(CHUNK, "factual", 1).rejected("invalid_json", "half")
    assert Judge(FILTERS, {}, "en", "")([draft]) == [draft]


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("The heart is a muscle that pumps blood.", "en", ""),
        ("Das Herz ist ein Muskel, der das Blut durch den Körper pumpt.", "en", "looks German"),
        ("Сердце качает кровь по всему телу.", "en", "most letters are Cyrillic"),
        ("Das Herz ist ein Muskel, der das Blut durch den Körper pumpt.", "de", ""),
        ("The heart is a muscle and it pumps the blood of the body.", "de", "looks English"),
        ("Серце качає кров по всьому тілу, і це не є м'яз, як та що або", "ru", "looks Ukrainian"),
        ("Lona Tir", "de", ""),
        ("1250", "ru", ""),
        ("iPhone 15", "ru", ""),
        ("心臓は血液を全身に送り出す筋肉である", "ja", ""),
        ("El corazón es un músculo que bombea la sangre por el cuerpo.", "fr", "looks Spanish"),
    ],
)
def test_languages_are_told_apart(text: str, code: str, told: str) -> None:
    assert wrong_language(text, code) == told


def test_an_unknown_language_names_the_known() -> None:
    with pytest.raises(ConfigError, match="'xx' is not known; known: ar, de, el, en"):
        find_language("xx")


@pytest.mark.parametrize(
    "fine",
    [
        "The document must be signed by both parties.",
        "What is a text editor?",
        "Who is the author of the law?",
        "How is an article of clothing washed?",
        "Was ist ein Absatz am Schuh?",
        "Как подписать документ?",
    ],
)
def test_words_about_texts_are_not_talk_about_the_text(fine: str) -> None:
    assert phrases.about_the_text(fine) == ""


@pytest.mark.parametrize(
    "bad",
    [
        "In this passage, what is described?",
        "As mentioned in the text, rye is ground.",
        "What does the author say about rye?",
        "Based on the document, who owns the mill?",
        "О чём пишет автор?",
        "Согласно тексту, кто владеет мельницей?",
        "Was wird in diesem Text beschrieben?",
        "Laut dem Text gehört sie Lona.",
    ],
)
def test_talk_about_the_text_is_found(bad: str) -> None:
    assert phrases.about_the_text(bad)


@pytest.mark.parametrize(
    ("question", "pronoun"),
    [
        ("What does he do?", "he"),
        ("When was it built?", "it"),
        ("What does a cell need before it divides?", ""),
        ("Why does Lona love her mill?", ""),
        ("Когда он родился?", "он"),
        ("Что клетка делает, когда ей холодно?", ""),
    ],
)
def test_pronouns_need_what_they_stand_for(question: str, pronoun: str) -> None:
    language = "ru" if question[0] > "z" else "en"
    assert phrases.pronoun_without_antecedent(question, language) == pronoun


def test_names_are_told_from_the_first_word_of_a_sentence() -> None:
    assert names_in("Today the mill of Lona's burnt. Miran Tir came. Rye was lost in Zuna.", "en") == [
        *("Lona", "Miran", "Tir", "Zuna"),
    ]


def test_forms_of_a_word_and_of_a_number_are_known() -> None:
    found = support("Celebrations cost 1000.50 in Bako.", "Bako celebrates for 1,000.5 coins.", "en")
    assert (found.missing_numbers, found.missing_names) == ([], [])
    assert found.missing_words == ["cost"]
    chinese = support("心脏是肌肉", "心脏是一块肌肉,它泵送血液。", "zh")
    assert 0.5 <= chinese.share < 1


@settings(max_examples=150, deadline=None)
@given(question=st.text(max_size=80), answer=st.text(max_size=80), code=st.sampled_from(sorted(LANGUAGES)))
def test_no_text_breaks_a_filter(question: str, answer: str, code: str) -> None:
    judge = Judge(FILTERS, {}, code, "")
    (draft,) = judge([Draft(CHUNK, "factual", 1, question, answer)])
    assert judge([draft]) == [draft]
