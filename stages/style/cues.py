"""Words that tell in which person and tense a narrator speaks, by language.

Cues, not a grammar: they are counted in narration, outside dialogue, and only their shares are used. A language that
is not here gets no such figure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cues:
    """person: name -> pronouns. past, present: words, and the endings of words of at least `min_letters`."""

    person: Mapping[str, frozenset[str]]
    past: re.Pattern[str]
    present: re.Pattern[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _one_of(words: str, endings: str = "", min_letters: int = 5, but: str = "") -> re.Pattern[str]:
    """Full match of one of the words, or of a longer word with one of the endings that is not among `but`."""
    choice = "|".join(words.split())
    if not endings:
        return re.compile(choice)
    exceptions = f"(?!(?:{'|'.join(but.split())})$)" if but else ""
    return re.compile(rf"{choice}|{exceptions}(?=\w{{{min_letters}}})\w*(?:{'|'.join(endings.split())})")


EN = Cues(
    {
        "first": _words("i me my mine myself we us our ours ourselves"),
        "second": _words("you your yours yourself"),
        "third": _words("he him his himself she her hers herself they them their theirs themselves"),
    },
    past=_one_of(
        "was were had did said went came saw took knew thought got made found gave told felt stood heard left became "
        "began brought kept held ran sat spoke turned fell lay rose seemed",
        "ed",
        but="indeed speed hundred sacred naked wicked exceed proceed succeed",
    ),
    present=_one_of(
        "am is are has does says goes comes sees takes knows thinks gets makes finds gives tells feels stands hears "
        "leaves becomes begins brings keeps holds runs sits speaks turns falls lies rises seems"
    ),
)
RU = Cues(
    {
        "first": _words(
            "я меня мне мной мною мой моя моё мое мои моего моей моему моих моим моими моею "
            "мы нас нам нами наш наша наше наши нашего нашей нашему наших нашим"
        ),
        "second": _words("ты тебя тебе тобой тобою твой твоя твоё твое твои вы вас вам вами ваш ваша ваше"),
        "third": _words("он его ему им нём нем него нему ним она её ее ей ею неё нее ней нею они их ими них ними"),
    },
    past=_one_of(
        "был была было были шёл шел шла шли дал дала дали ел ела пил пила",
        "ал ала ало али ил ила ило или ел ела ело ели ял яла яло яли ул ула уло ули ыл ыла ыло ыли лся лась лось лись",
        but="капитал материал журнал металл сигнал начала сначала мысли земли",
    ),
    present=_one_of(
        "есть знаю знает вижу видит иду идёт идет могу может хочу хочет",
        "аю яю ею ую аешь ает яет еет ует ёт ают яют еют уют ится ется ются ятся атся",
        but="ответ совет портрет кабинет предмет букет",
    ),
)
CUES = {"en": EN, "ru": RU}
