"""Every real document beside this checkout: read, with so much text, headings and pages; or rejected with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.documents.folder import files_of
from stages.documents.limits import Limits
from stages.documents.parsing import Outcome, parse_files

# name -> reason, or (format, characters, pages, something that stands in it)
EXPECTED: dict[str, str | tuple[str, int, int, str]] = {
    "csv_semicolon.csv": ("csv", 1118, 0, "Index | Customer Id | First Name"),
    "docx_encrypted.docx": "needs_password",
    "docx_headings.docx": ("docx", 342, 0, "Paragraph 1.1.2"),
    "docx_images_lists_tables.docx": ("docx", 754, 0, "Swimming in the lake"),
    "docx_rich_cells.docx": ("docx", 1173, 0, "Table with rich cells"),
    "docx_tables.docx": ("docx", 1164, 0, "Cell 1.0 | Merged Cell 1.1 1.2"),
    "docx_truncated.docx": "broken",
    "epub3_wasteland.epub": ("epub", 10273, 1, "April is the cruellest month, breeding"),
    "epub_war_of_the_worlds.epub": ("epub", 355928, 6, "No one would have believed in the last years"),
    "html_cp1251_no_charset.html": ("html", 504, 0, "Надежды на разрешение в пятницу"),
    "html_time_machine.html": ("html", 198852, 0, "The Time Traveller (for so it will be convenient"),
    "html_utf16le.html": ("html", 21, 0, "text"),
    "html_wikipedia_page.html": ("html", 26718, 0, "waterfowl"),
    "md_table.md": ("markdown", 203, 0, "Huey | Tick | Riri | Qui"),
    "md_wiki.md": ("markdown", 4768, 0, "IBM"),
    "odt_text.odt": ("odt", 1769, 0, "heading level 1"),
    "pdf_bad_page.pdf": ("pdf", 86800, 19, "controlled substances"),
    "pdf_dense_table.pdf": ("pdf", 5646, 1, "\nAlabama 18,870 23,022"),
    "pdf_encrypted_empty_password.pdf": ("pdf", 38, 1, ""),
    "pdf_encrypted_needs_password.pdf": "needs_password",
    "pdf_header_only.pdf": "broken",
    "pdf_malformed.pdf": ("pdf", 9, 1, "2021 3 31"),
    "pdf_multi_page.pdf": ("pdf", 9342, 5, ""),
    "pdf_russian_lecture01.pdf": ("pdf", 17619, 7, "машинное обучение"),
    "pdf_scan_fax_no_text.pdf": "no_text_layer",
    "pdf_two_column_paper.pdf": (
        "pdf",
        82744,
        14,
        "Dynamic languages such as JavaScript are more difficult to compile",
    ),
    "pdf_zero_bytes.pdf": "empty",
    "txt_cp1251_russian.txt": ("txt", 1210, 0, ""),
    "txt_cp866_russian.txt": ("txt", 206, 0, ""),
    "txt_koi8r_russian.txt": ("txt", 1210, 0, ""),
    "txt_utf16le_bom.srt": ("subtitles", 630, 0, "About 2 months ago"),
}


@pytest.fixture(scope="module")
def outcomes(shared_data: Path) -> dict[str, Outcome]:
    paths = [found.path for found in files_of(shared_data / "docs")]
    return {outcome.path.name: outcome for outcome in parse_files(paths, Limits(), num_workers=2)}


def test_all_of_them_have_an_expected_outcome(outcomes: dict[str, Outcome]) -> None:
    assert sorted(outcomes) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_outcome(name: str, outcomes: dict[str, Outcome]) -> None:
    expected, outcome = EXPECTED[name], outcomes[name]
    if isinstance(expected, str):
        assert (outcome.document, outcome.reason) == (None, expected), outcome.detail
        return
    document = outcome.document
    assert document is not None, (outcome.reason, outcome.detail)
    text = document.text
    assert (document.format, len(text), document.num_pages) == expected[:3]
    assert expected[3] in text
    assert all(text[block.begin : block.end] == block.text for block in document.blocks)
    assert "\ufffd" not in text


def test_headings_of_a_pdf_without_an_outline(outcomes: dict[str, Outcome]) -> None:
    document = outcomes["pdf_two_column_paper.pdf"].document
    assert document is not None
    headings = [block.text for block in document.blocks if block.kind == "heading"]
    assert {"Abstract", "1. Introduction", "2. Overview: Example Tracing Run", "3. Trace Trees"} <= set(headings)


def test_one_text_in_three_charsets(outcomes: dict[str, Outcome]) -> None:
    texts = [outcomes[f"txt_{charset}_russian.txt"].document for charset in ("cp1251", "koi8r", "cp866")]
    cp1251, koi8r, cp866 = (document.text if document else "" for document in texts)
    assert cp1251 == koi8r
    assert sum("а" <= letter <= "я" for letter in cp866.lower()) > 0.6 * len(cp866)


def test_headings_of_a_docx(outcomes: dict[str, Outcome]) -> None:
    document = outcomes["docx_headings.docx"].document
    assert document is not None
    headings = [block.path for block in document.blocks if block.kind == "heading"]
    assert headings[:5] == [
        ("Test Document",),
        ("Section 1",),
        ("Section 1", "Section 1.1"),
        ("Section 1", "Section 1.2"),
        ("Section 1", "Section 1.2", "Section 1.2.3"),
    ]
