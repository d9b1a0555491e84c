from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.knowledge.cleaning import Markers, normalise

ENGLISH = Markers(["EXPLANATION", "INTERVENTION", "ESCALATION"], ["Not required.", "Not needed."])
RUSSIAN = Markers(["ОБЪЯСНЕНИЕ", "ВМЕШАТЕЛЬСТВО", "ЭСКАЛАЦИЯ"], ["Не требуется."], known=["EXPLANATION"])


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("[EXPLANATION] Lona. [INTERVENTION] Go. [ESCALATION] Not required.", "Lona. Go."),
        ("[explanation] Lona. [Intervention] Go. [escalation] not required", "Lona. Go."),
        ("[EXPLANATION]Lona.[/EXPLANATION][ESCALATION]Not required.[/ESCALATION]", "Lona."),
        ("[EXPLANATION] a [INTERVENTION] b [/INTERVENTION] c [/EXPLANATION]", "a b c"),
        ("[EXPLANATION [INTERVENTION]] Lona.", "Lona."),
        ("[[EXPLANATION]] Lona.", "Lona."),
        ("[EXPLANATION Lona. [INTERVENTION Go.", "Lona. Go."),
        ("[ EXPLANATION ]: Lona.", "Lona."),
        ("**[EXPLANATION]** Lona.", "Lona."),
        ("\\[EXPLANATION\\] Lona.", "Lona."),
        ("[EXPLA\u00adNATION] Lona.", "Lona."),
        ("[ [EXPLANATION]EXPLANATION] Lona.", "Lona."),
        ("[EXPLANATION]\n\nLona.\n\n\n[INTERVENTION]\nGo.", "Lona.\n\nGo."),
        ("[EXPLANATION] [ESCALATION] Not required.", ""),
        ("Not required.", "Not required."),
        ("[ESCALATION] Not required. Unless it burns.", "Not required. Unless it burns."),
        ("[/ESCALATION] Not required.", "Not required."),
        ("[explanation of terms] see below", "[explanation of terms] see below"),
        ("[explanations] see below", "[explanations] see below"),
    ],
)
def test_strips_markers_and_stubs(raw: str, clean: str) -> None:
    assert ENGLISH.strip(raw) == clean
    assert ENGLISH.leftover(clean) == ""


def test_strips_russian_markers() -> None:
    raw = "[ОБЪЯСНЕНИЕ] Вы боитесь  отказа.\n[вмешательство] Скажите прямо. [ЭСКАЛАЦИЯ] Не требуется."
    assert RUSSIAN.strip(raw) == "Вы боитесь отказа.\nСкажите прямо."


@pytest.mark.parametrize(
    "text", ["(EXPLANATION) a", "【EXPLANATION】 a", "[EXPLANATION 2] a", "EXPLANATION] a", "</EXPLANATION> a"]
)
def test_a_marker_in_an_unknown_form_is_noticed(text: str) -> None:
    assert ENGLISH.leftover(ENGLISH.strip(text))


def test_a_marker_of_another_language_is_noticed() -> None:
    assert RUSSIAN.leftover("[EXPLANATION] Да.") == "[EXPLANATION]"


PIECES = st.sampled_from(
    ["[", "]", "[/", "EXPLANATION", "Escalation", " ", "\n", "not required.", ":", "**", "\\", "x", "\u00ad"]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_no_marker_survives(text: str) -> None:
    stripped = ENGLISH.strip(text).casefold()
    for name in ("explanation", "intervention", "escalation"):
        assert f"[{name}]" not in stripped
        assert f"[/{name}]" not in stripped
    assert ENGLISH.strip(stripped) == normalise(stripped)


@given(st.text(max_size=60))
def test_text_without_brackets_is_only_normalised(text: str) -> None:
    text = text.replace("[", "(")
    assert ENGLISH.strip(text) == normalise(text)


@given(st.text(max_size=60))
def test_normalise_is_idempotent_and_nfc(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_normalise() -> None:
    assert normalise("\ufeff a\u00a0 b\t c \r\n\r\n\r\n\r\n d\u200b e\u0301 ") == "a b c\n\nd é"
    assert (
        normalise("family \U0001f468\u200d\U0001f469\u200d\U0001f467")
        == "family \U0001f468\u200d\U0001f469\u200d\U0001f467"
    )


def test_mojibake_is_repaired_and_russian_left_alone() -> None:
    assert normalise("РџСЂРёРІРµС‚, мир") == "Привет, мир"
    assert normalise("Привет, мир: ёж — «да»") == "Привет, мир: ёж — «да»"
