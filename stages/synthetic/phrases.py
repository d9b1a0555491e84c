"""Turns of phrase that give a bad pair away, in English, Russian and German.

They look for what is said about a text, not for words: "the document must be signed" is fine in a contract.
"""

from __future__ import annotations

import re

from stages.knowledge.shingles import words
from stages.synthetic.languages import LANGUAGES

TEXT_EN = (
    r"(?:text|passage|excerpt|paragraph|article|document|chapter|section|chunk|context|fragment|material|source)s?"
)
TEXT_RU = r"(?:текст|отрыв(?:ок|к)|фрагмент|абзац|документ|стать|глав|раздел|материал|источник|контекст)\w*"
TEXT_DE = r"(?:text|abschnitt|auszug|absatz|artikel|dokument|kapitel|kontext|textstelle)\w*"

ABOUT_THE_TEXT = re.compile(
    rf"\b(?:in|from|by|per|to) (?:this|the (?:given|above|provided|following|present)) {TEXT_EN}\b"
    rf"|\b(?:according to|based on|as per) (?:the|this) {TEXT_EN}\b"
    rf"|\b(?:this|the (?:given|above|provided)) {TEXT_EN} (?:\w+ly )?\w+s\b"
    rf"|\b(?:in|from|throughout) the (?:text|passage|excerpt|paragraph|context)\b"
    rf"|\bthe (?:{TEXT_EN}|author|writer|narrator)(?: \w+ly)? (?:says?|states?|mentions?|describes?|discuss(?:es)?|"
    r"explains?|suggests?|argues?|claims?|notes?|refers?|does not (?:say|mention|state|specify))\b"
    rf"|\b(?:does|do|did|is|are) the (?:{TEXT_EN}|author|writer|narrator) (?:say|state|mention|describe|discuss|"
    r"explain|suggest|argue|claim|refer)\b"
    r"|\b(?:mentioned|described|stated|discussed|listed|provided|as (?:said|noted)) (?:above|in the (?:text|passage|"
    r"excerpt|document|article|context))\b"
    rf"|\b(?:согласно|судя по|исходя из) (?:\w+ )?{TEXT_RU}"
    rf"|\bв (?:этом|данном|приведённом|приведенном|представленном) {TEXT_RU}"
    rf"|\b(?:в|из|по) (?:тексте|текста|тексту|отрывке|отрывка|отрывку|абзаце|фрагменте)\b"
    r"|\bавтор(?:\w{0,2})? (?:текста|статьи|отрывка|говор\w+|пиш\w+|утвержда\w+|счита\w+|описыва\w+|упомина\w+|"
    r"отмеча\w+)"
    r"|\b(?:говор\w+|пиш\w+|утвержда\w+|счита\w+|описыва\w+|упомина\w+) автор\b"
    r"|\b(?:упомянут|описан|указан|сказан|приведен|приведён)\w* (?:выше|в (?:тексте|отрывке|документе|статье))"
    rf"|\b(?:in|aus) (?:diesem|dem (?:gegebenen|vorliegenden|obigen)|obigem) {TEXT_DE}\b"
    rf"|\b(?:laut|gemäß) (?:diesem|dem|des|der) {TEXT_DE}\b|\bim (?:text|abschnitt|auszug|absatz)\b"
    r"|\bder (?:text|autor|verfasser|abschnitt) (?:sagt|erwähnt|beschreibt|nennt|erklärt|schreibt|behauptet)\b",
    re.IGNORECASE,
)

REFUSED = re.compile(
    r"^\W*(?:i(?:'|’)?m sorry|i am sorry|sorry,|i (?:cannot|can(?:'|’)?t|am (?:unable|not able)) (?:to )?\w+|"
    r"as an? (?:ai|language model)|i(?:'|’)?m (?:unable|just an ai)"
    r"|(?:к сожалению|извините|простите)[,\s]+(?:но )?я (?:не могу|не в состоянии)|я не могу (?:ответить|"
    r"помочь|выполнить)"
    r"|как (?:языковая модель|искусственный интеллект)"
    r"|es tut mir leid|ich kann (?:diese|dabei|das) \w+ nicht|als (?:ki|sprachmodell))",
    re.IGNORECASE,
)

NOT_ANSWERABLE = re.compile(
    rf"\b(?:the (?:{TEXT_EN}|information)|it) (?:does not|doesn(?:'|’)?t|do not|is not|isn(?:'|’)?t) "
    r"(?:\w+ )?(?:say|mention(?:ed)?|state[d]?|specif(?:y|ied)|provide[d]?|given|contain|available|known)\b"
    r"|\b(?:not (?:mentioned|specified|stated|provided|given) in|no information (?:about|on|is|in)|"
    r"cannot be (?:answered|determined)|(?:i|we) (?:do not|don(?:'|’)?t) know)\b|^\W*(?:n/?a|unknown|none)\W*$"
    r"|\b(?:не указан|не упомянут|не упомина|не сказан|не говорится|нет информации|нет данных|невозможно (?:ответить|"
    r"определить))\w*|^\W*(?:неизвестно|я не знаю)\b"
    r"|\b(?:nicht (?:erwähnt|angegeben|genannt)|keine (?:angabe|information)\w*|wird nicht gesagt)\b",
    re.IGNORECASE,
)

PRONOUNS = {
    "en": frozenset(words("he she it they him her them his hers its their theirs this these those")),
    "ru": frozenset(words("он она оно они его её ее их ему ей им ним ней них это этот эта эти этого этой этих этом")),
    "de": frozenset(words("er sie es ihn ihm ihr ihnen sein seine ihre dies dieser diese dieses")),
}


def about_the_text(text: str) -> str:
    """The words that speak about a text instead of its subject; "" where there are none."""
    found = ABOUT_THE_TEXT.search(text)
    return found[0] if found else ""


def refusal(text: str) -> str:
    """How a model begins that will not answer."""
    found = REFUSED.search(text)
    return found[0].strip() if found else ""


def says_unanswerable(text: str) -> str:
    """Where an answer says that there is none."""
    found = NOT_ANSWERABLE.search(text)
    return found[0] if found else ""


def pronoun_without_antecedent(question: str, language: str) -> str:
    """The pronoun before which the question has named nothing: `What does he do?`, but not `When does a cell ...`."""
    stop_words = LANGUAGES[language].stop_words
    for word in words(question):
        if word in PRONOUNS.get(language, ()):
            return word
        if word not in stop_words:
            break
    return ""
