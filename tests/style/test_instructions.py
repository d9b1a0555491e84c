from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.style.instructions import Instructor, opening_of

PASSAGE = (
    "The wind rose. We saw Captain Nemo on deck with Ned Land, and Captain Nemo saw us. "
    '"Sir," said Conseil, "the New York mail is late." Then a King came; the king left Conseil. It was LATE.'
)


def instructor(*others: str, language: str = "en") -> Instructor:
    return Instructor([PASSAGE, "all that is new", *others], language, seed=13)


def test_names_are_whole_and_frequent_ones_first() -> None:
    assert instructor().names(PASSAGE) == ["Captain Nemo", "Conseil", "Ned Land"]
    assert "New York" in instructor().names("He left New York.")


def test_one_name_in_its_cases_is_one_name() -> None:
    text = "Тут Катя ушла. Он видел Катю и говорил с Катей, и Катя молчала. Соня спала."
    assert Instructor([text], "ru", 13).names(text) == ["Катя"]  # Соня begins its sentence


def test_where_every_noun_is_capitalised_there_are_no_names() -> None:
    assert instructor(language="de").names("Der Hund und die Katze.") == []


def test_the_instruction_has_length_opening_and_names() -> None:
    text = instructor().instruction("verne-1", PASSAGE)
    assert "about 50 words" in text
    assert "“The wind rose. We saw Captain Nemo on deck with …”" in text
    assert text.endswith("In it appear: Captain Nemo, Conseil, Ned Land.")
    assert text == instructor().instruction("verne-1", PASSAGE)
    assert len({instructor().instruction(f"verne-{n}", PASSAGE) for n in range(30)}) == 3


def test_the_opening_is_one_line_without_quotation_marks() -> None:
    assert opening_of('"Who goes there?"\n\nNobody.') == 'Who goes there?" Nobody.'
    assert opening_of("-- Здравствуйте, -- сказал он.").startswith("Здравствуйте")


@given(st.text(max_size=300))
def test_any_passage_gets_an_instruction(passage: str) -> None:
    text = Instructor([passage], "en", 1).instruction("x", passage)
    assert "{names}" not in text.replace(passage, "") or "{names}" in passage
    assert "about" in text
