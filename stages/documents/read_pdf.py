"""PDF through pdfium: paragraphs page by page, headings from the document's outline or by the size of the type."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.pdf_headings import Headings, large_lines, line_heights, outline_headings
from stages.documents.read_text import dehyphenated, is_row

SENTENCE_END = re.compile(r"[.!?…:;][\"'»”’)\]]*$")
BULLET = re.compile(r"^(?:[•▪◦●■–—*-]|\(?\d{1,3}[.)]|[a-zа-я]\))\s")
DIGITS = re.compile(r"\d+")
MIN_PAGES_OF_RUNNING_LINE = 4
FULL_LINE_SHARE = 0.8  # a line shorter than this much of a full one ends a paragraph, if it ends a sentence


def read_pdf(path: Path, max_chars: int) -> Document:
    """Raises RejectedError: needs_password, broken, no_text_layer, empty. A page that fails is counted, not fatal."""
    document = _open(path)
    try:
        pages, heights, failed, num_images = _pages(document)
        if len(failed) == len(document):
            raise RejectedError("broken", f"none of its {len(document)} pages can be read")
        if not any(pages.values()):
            what = f"{len(document)} pages, {num_images} with images only"
            raise RejectedError("no_text_layer" if num_images else "empty", what)
        writer = BlockWriter(max_chars)
        running = _running_lines(pages)
        edges = {line for lines in pages.values() for line in lines if _masked(line) in running}
        headings = outline_headings(document) or large_lines(pages, heights, edges)
        _write(pages, headings, running, writer)
        title = str(document.get_metadata_dict().get("Title", "")).strip()
        without = sum(not lines for lines in pages.values())
        counts = {"num_pages_without_text": str(without)} if without else {}
        return Document("pdf", title, writer.blocks, len(document), failed, counts)
    finally:
        document.close()


def _open(path: Path) -> Any:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        locked = getattr(error, "err_code", None) in (4, 5)  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
        raise RejectedError("needs_password" if locked else "broken", "" if locked else str(error)) from error
    if len(document) == 0:
        raise RejectedError("empty", "a PDF without pages")
    return document


def _pages(document: Any) -> tuple[dict[int, list[str]], dict[int, list[float]], list[int], int]:
    """(lines by page number, their heights, pages that failed, number of pages that hold images and no text)."""
    import pypdfium2

    pages: dict[int, list[str]] = {}
    heights: dict[int, list[float]] = {}
    failed = []
    num_images = 0
    for index in range(len(document)):
        try:
            page = document[index]
            textpage = page.get_textpage()
            text = textpage.get_text_range()
            heights[index + 1] = line_heights(textpage, text)
            textpage.close()
            if not text.strip():
                num_images += any(True for _ in page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]))
            page.close()
        except (pypdfium2.PdfiumError, UnicodeError, ValueError):
            failed.append(index + 1)
            continue
        pages[index + 1] = [line.strip() for line in text.splitlines() if line.strip()]
    return pages, heights, failed, num_images


def _write(pages: dict[int, list[str]], outline: Headings, running: set[str], writer: BlockWriter) -> None:
    for page, lines in pages.items():
        kept = [line for n, line in enumerate(lines) if not (_at_edge(n, lines) and _masked(line) in running)]
        headings = list(outline.get(page, []))
        pending: list[str] = []
        for line in kept:
            place = next((n for n, (_, title) in enumerate(headings) if _same(title, line)), None)
            if place is None:
                pending.append(line)
                continue
            _paragraphs(pending, page, writer)
            for level, title in headings[: place + 1]:
                writer.heading(level, title, page)
            pending, headings = [], headings[place + 1 :]
        _rest(headings, pending, page, writer)


def _rest(headings: list[tuple[int, str]], lines: list[str], page: int, writer: BlockWriter) -> None:
    """Titles that stand on no line of the page (pictures, other wording) go before what is left of it."""
    for level, title in headings:
        writer.heading(level, title, page)
    _paragraphs(lines, page, writer)


def _paragraphs(lines: list[str], page: int, writer: BlockWriter) -> None:
    for paragraph in _joined(lines):
        writer.paragraph(paragraph, page)


def _joined(lines: list[str]) -> Iterator[str]:
    """Lines into paragraphs: pdfium gives no gaps, so a short last line and a list's mark must do."""
    if not lines:
        return
    full = quantiles([len(line) for line in lines], n=10)[-1] if len(lines) > 1 else len(lines[0])
    begun: list[str] = []
    for line in lines:
        if begun and BULLET.match(line):
            yield dehyphenated(begun)
            begun = []
        begun.append(line)
        if len(line) < FULL_LINE_SHARE * full and SENTENCE_END.search(line):
            yield dehyphenated(begun)
            begun = []
    if begun:
        yield dehyphenated(begun)


def _running_lines(pages: dict[int, list[str]]) -> set[str]:
    """First and last lines that stand, but for digits, on most pages: running titles and page numbers."""
    counts = Counter(
        masked
        for lines in pages.values()
        for masked in {_masked(line) for n, line in enumerate(lines) if _at_edge(n, lines)}
    )
    least = max(MIN_PAGES_OF_RUNNING_LINE, len(pages) // 2)
    return {masked for masked, count in counts.items() if count >= least}


def _at_edge(number: int, lines: list[str]) -> bool:
    return number == 0 or number == len(lines) - 1


def _masked(line: str) -> str:
    return line if is_row(line) else DIGITS.sub("#", line)  # rows of a table all look alike without their numbers


def _same(title: str, line: str) -> bool:
    """A heading's line may carry its number: `2.1 Methods`."""
    title, line = title.casefold(), " ".join(line.casefold().split())
    return line == title or (line.endswith(title) and len(line) <= len(title) + 12)
