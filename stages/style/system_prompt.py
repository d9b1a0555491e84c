"""A system prompt that says what was measured of a writer's style, in his language.

The bounds between "short" and "long" are those of the wording; where a figure lies near one, the number that stands
beside the adjective still tells the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.style.profile import StyleProfile
from stages.style.wording import OTHER_LANGUAGE, WORDINGS, Wording, wording_of

CLEAR_SHARE = 0.65  # of the cues, before a narrator has a tense
TYPICAL_FACTOR = 1.5  # times what is usual in the language, before a mark is typical of a writer


def system_prompt(profile: StyleProfile) -> str:
    """One paragraph; the same profile gives the same text."""
    wording = wording_of(profile.language)
    traits = [
        _sentences(profile, wording),
        _narrator(profile, wording),
        _graded(profile, "dialogue_share", wording.dialogue),
        _graded(profile, "word_variety", wording.variety),
        _punctuation(profile, wording),
        _paragraphs(profile, wording),
    ]
    if profile.language not in WORDINGS:
        traits.append(OTHER_LANGUAGE.format(language=profile.language))
    return wording.system.format(traits=" ".join(trait for trait in traits if trait))


def _sentences(profile: StyleProfile, wording: Wording) -> str:
    mean = profile.value("words_per_sentence") or 0.0
    low, high = profile.sentence_quantile(0.1), profile.sentence_quantile(0.9)
    return _first_up_to(wording.sentences, mean).format(mean=round(mean), low=low, high=high)


def _narrator(profile: StyleProfile, wording: Wording) -> str:
    first, third, past = (profile.value(f"{name}_share") for name in ("first_person", "third_person", "past_tense"))
    if first is None or third is None or past is None:
        return ""
    # A first-person narrator speaks of others too, so a fifth of the pronouns is enough for him
    person = wording.person["first" if first >= 0.2 else "third"]
    tense = "past" if past >= CLEAR_SHARE else "present" if past <= 1 - CLEAR_SHARE else ""
    return f"{person} {wording.tense[tense]}"


def _graded(profile: StyleProfile, feature: str, grades: Sequence[tuple[float, str]]) -> str:
    value = profile.value(feature)
    return "" if value is None else _first_up_to(grades, value).format(percent=round(100 * value))


def _punctuation(profile: StyleProfile, wording: Wording) -> str:
    rates = {mark: profile.value(f"{mark}_per_1000") or 0.0 for mark in wording.usual_marks}
    typical = [mark for mark, usual in wording.usual_marks.items() if rates[mark] >= TYPICAL_FACTOR * usual]
    often = ", ".join(wording.marks[mark] for mark in typical)
    return wording.punctuation.format(often=often) if often else ""


def _paragraphs(profile: StyleProfile, wording: Wording) -> str:
    return wording.paragraphs.format(mean=round(profile.value("words_per_paragraph") or 0.0))


def _first_up_to(grades: Sequence[tuple[float, str]], value: float) -> str:
    return next((text for bound, text in grades if value <= bound), grades[-1][1])
