"""ODT (OpenDocument text, OASIS ODF 1.3), straight from its XML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.zip_package import Package, attribute, local

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# Deleted text, comments, generated tables of contents, counters that no reader sees
LEFT_OUT = frozenset(
    ["tracked-changes", "annotation", "table-of-content", "alphabetical-index", "sequence-decls", "forms"]
)
ROWS = ("table-header-rows", "table-rows", "table-row-group")


def read_odt(path: Path, max_chars: int) -> Document:
    """Headings with their levels, paragraphs, list items, tables; footnotes where they stand."""
    package = Package(path)
    if "META-INF/manifest.xml" in package and b"encryption-data" in package.read("META-INF/manifest.xml"):
        raise RejectedError("needs_password")
    writer = BlockWriter(max_chars)
    body = next((e for e in package.xml("content.xml") if local(e) == "body"), None)
    if body is not None:
        _add_flow(body, writer)
    return Document("odt", _title(package), writer.blocks)


def _title(package: Package) -> str:
    if "meta.xml" not in package:
        return ""
    return next((" ".join((e.text or "").split()) for e in package.xml("meta.xml").iter() if local(e) == "title"), "")


def _add_flow(body: Element, writer: BlockWriter) -> None:
    waiting: list[tuple[Element, bool]] = [(body, False)]  # element, and whether it begins a list item
    while waiting:
        element, begins_item = waiting.pop()
        tag = local(element)
        if tag == "h":
            level = attribute(element, "outline-level")
            writer.heading(int(level) if level.isdigit() else 1, _text(element))
        elif tag == "p":
            text = _text(element)
            writer.paragraph(f"- {text}" if begins_item and text.strip() else text)
        elif tag == "table":
            writer.table([[_text(cell) for cell in row if local(cell) == "table-cell"] for row in _rows(element)])
        elif tag not in LEFT_OUT:
            children = [(child, tag in ("list-item", "list-header") and n == 0) for n, child in enumerate(element)]
            waiting.extend(reversed(children))


def _rows(table: Element) -> list[Element]:
    rows: list[Element] = []
    for child in table:
        if local(child) == "table-row":
            rows.append(child)
        elif local(child) in ROWS:
            rows.extend(row for row in child if local(row) == "table-row")
    return rows


def _text(root: Element) -> str:
    """All text below, in order; `<text:s text:c="3"/>` is three spaces."""
    from lxml import etree

    pieces: list[str] = []
    skipping: Element | None = None
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = local(element)
        if event == "start" and skipping is None:
            if tag in LEFT_OUT:
                skipping = element
            else:
                pieces += [{"s": " ", "tab": "\t", "line-break": "\n"}.get(tag, ""), element.text or ""]
        elif event == "end":
            if skipping is None:
                pieces.append({"p": "\n", "note-citation": " "}.get(tag, "") if element is not root else "")
            if skipping is None or skipping is element:
                skipping = None
                pieces.append(element.tail or "" if element is not root else "")
    return "".join(pieces)
