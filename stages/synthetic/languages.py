"""Is a text in the language that was asked for? By its script, and among languages of one script by stop words.

A light heuristic: it knows whole sentences in another language from those in the right one, and lets names, numbers
and short answers pass, about which nobody can say. Its words also tell content words from the others.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass

from stages.core.errors import ConfigError
from stages.knowledge.shingles import words

MIN_LETTERS = 12  # of a text whose script is judged
MIN_STOP_WORDS = 3  # of another language, before a text can be in it
MARGIN = 2  # times the stop words of the right one

EN = """
    the of and to in a is that it was for on are as with his they at be this from have or by had not but what
    all were when we there can an your which their said if do will each about how up out them then she many some
    so these would other into has more her two him see could no than been who its now did get why where does may
    must should you i he me my our us also because between during after before while whose
"""
RU = """
    и в не на я что он с как это по но к из у за от так о для же все она вы мы они бы если уже или ни до его ее
    её их чтобы когда только был была были быть есть кто где то этот эта эти при чем под над без можно нужно
    также потому почему какой какая какие какое каким который которая которые которое после перед между во со ли
    нет да тем того этого тоже еще ещё свой своей своих себя чей чья чьё чьи чем кого кому кем зачем
"""
DE = """
    der die das und ist in zu den von mit sich des auf für nicht ein eine einer eines einem einen als auch es an
    werden aus er hat dass sie nach wird bei um am sind noch wie über so zum war haben nur oder aber vor zur bis
    mehr durch man sein wurde was wer wo wann warum welche welcher welches ihre seine
"""
FR = """
    le la les de des du et est un une en que qui dans pour pas au aux sur ce il elle se ne plus par avec sont
    comme mais ou où son sa ses été cette ces leur nous vous être quel quelle pourquoi quand
"""
ES = """
    el la los las de del y en que es un una por con para no se lo su al como más pero sus le ya o fue este esta
    son entre cuando muy sin sobre también qué quién cuál por cómo dónde
"""
IT = """
    il lo la gli le di del della e è un una in che per non con si da al dei delle sono come più ma anche nel
    nella alla o chi quale perché quando dove questo questa
"""
PT = """
    o a os as de do da dos das e em um uma que é não para com se por mais como mas foi ao ele ela sua seu ou ser
    quando muito há nos já está também qual quem onde
"""
NL = """
    de het een en van in is dat op te zijn met voor niet aan er om ook als dan maar bij uit wat door over naar
    heeft wordt werd deze dit hij zij wie waar waarom wanneer
"""
PL = """
    i w na z się nie jest to do że o jak ale po co od za przez dla czy tak przy są był była było być kto gdzie
    kiedy który która które ten ta te oraz jego jej ich
"""
UK = """
    і в не на я що він з як це по але до із у за від так про для же всі вона ви ми вони б якщо вже або ні його
    її їх щоб коли тільки був була були бути є хто де та й цей ця ці при чому без також який яка які після перед
    між
"""


@dataclass(frozen=True)
class Language:
    """script: as Unicode names begin. inflects_names: a name has other endings in other cases."""

    name: str
    scripts: tuple[str, ...]
    stop_words: frozenset[str] = frozenset()
    inflects_names: bool = False
    capitalises_nouns: bool = False


def _language(
    name: str, stop_words: str, script: str = "LATIN", inflects: bool = False, nouns: bool = False
) -> Language:
    return Language(name, (script,), frozenset(stop_words.split()), inflects, nouns)


LANGUAGES = {
    "de": _language("German", DE, nouns=True),
    "en": _language("English", EN),
    "es": _language("Spanish", ES),
    "fr": _language("French", FR),
    "it": _language("Italian", IT),
    "nl": _language("Dutch", NL),
    "pl": _language("Polish", PL, inflects=True),
    "pt": _language("Portuguese", PT),
    "ru": _language("Russian", RU, "CYRILLIC", inflects=True),
    "uk": _language("Ukrainian", UK, "CYRILLIC", inflects=True),
    "ar": _language("Arabic", "", "ARABIC"),
    "el": _language("Greek", "", "GREEK", inflects=True),
    "he": _language("Hebrew", "", "HEBREW"),
    "hi": _language("Hindi", "", "DEVANAGARI"),
    "ja": Language("Japanese", ("CJK", "HIRAGANA", "KATAKANA")),
    "ko": Language("Korean", ("HANGUL",)),
    "zh": Language("Chinese", ("CJK",)),
}


def find_language(code: str) -> Language:
    """Raises ConfigError naming the known codes."""
    if code not in LANGUAGES:
        raise ConfigError(f"generate_sft.language: {code!r} is not known; known: {', '.join(sorted(LANGUAGES))}")
    return LANGUAGES[code]


def wrong_language(text: str, code: str) -> str:
    """What speaks against the language `code`, for people; "" where nothing does."""
    language = LANGUAGES[code]
    scripts = Counter(script_of(letter) for letter in text if letter.isalpha())
    right = sum(scripts[script] for script in language.scripts)
    if scripts.total() >= MIN_LETTERS and right * 2 < scripts.total():
        return f"most letters are {scripts.most_common(1)[0][0].capitalize()}"
    counts = {other: _count_stop_words(text, other) for other in LANGUAGES}
    strongest = max(counts, key=lambda other: (counts[other], other == code, other))
    if strongest != code and counts[strongest] >= max(MIN_STOP_WORDS, MARGIN * counts[code] + 1):
        return f"looks {LANGUAGES[strongest].name}"
    return ""


def script_of(letter: str) -> str:
    """The first word of a letter's Unicode name, such as CYRILLIC."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def _count_stop_words(text: str, code: str) -> int:
    stop_words = LANGUAGES[code].stop_words
    return sum(word in stop_words for word in words(text))
