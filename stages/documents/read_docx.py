"""DOCX (Office Open XML, ECMA-376), straight from its XML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.documents.blocks import BlockWriter, Document
from stages.documents.zip_package import Package, attribute, local

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

HEADING_NAME = re.compile(r"(?:heading|title|заголовок)\s*(\d?)", re.IGNORECASE)
BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
WRAPPERS = frozenset(["sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml", "body", "document"])
# A drawing's text stands twice, for new and for old readers; deleted and moved text only once too often
LEFT_OUT = frozenset(["Fallback", "del", "moveFrom", "instrText", "delText"])


def read_docx(path: Path, max_chars: int) -> Document:
    """Paragraphs, headings (by style or outline level), lists, tables, then foot- and endnotes."""
    package = Package(path)
    main = main_part(package)
    relations = dict(package.relations(main).values())
    levels = _heading_levels(package, relations.get("styles", ""))
    writer = BlockWriter(max_chars)
    _add_flow(package.xml(main), levels, writer)
    for kind in ("footnotes", "endnotes"):
        if relations.get(kind, "") in package:
            for note in package.xml(relations[kind]):
                if attribute(note, "type") == "":  # the others are lines drawn between text and notes
                    writer.paragraph(flowing_text(note))
    return Document("docx", core_title(package), writer.blocks)


def main_part(package: Package) -> str:
    """The member that holds the document itself."""
    return next((name for kind, name in package.relations("").values() if kind == "officeDocument"), "")


def core_title(package: Package) -> str:
    """The title among the document's properties, or ""."""
    name = "docProps/core.xml"
    if name not in package:
        return ""
    return next((" ".join((e.text or "").split()) for e in package.xml(name).iter() if local(e) == "title"), "")


def _heading_levels(package: Package, part: str) -> dict[str, int]:
    """Style id -> heading level, through the styles that a style is based on."""
    if part not in package:
        return {}
    own: dict[str, int] = {}
    parents: dict[str, str] = {}
    for style in package.xml(part):
        identity = attribute(style, "styleId")
        for entry in style.iter():
            if local(entry) == "name" and (match := HEADING_NAME.fullmatch(attribute(entry, "val"))):
                own[identity] = int(match[1] or 1)
            elif local(entry) == "basedOn":
                parents[identity] = attribute(entry, "val")
            elif local(entry) == "outlineLvl" and attribute(entry, "val").isdigit():
                own.setdefault(identity, int(attribute(entry, "val")) + 1)
    return {identity: level for identity in {*own, *parents} if (level := _inherited(identity, own, parents))}


def _inherited(identity: str, own: dict[str, int], parents: dict[str, str]) -> int:
    for _ in range(20):  # styles may be based on each other in a circle
        if identity in own:
            return own[identity] if own[identity] <= 9 else 0  # level 10 is body text
        identity = parents.get(identity, "")
    return 0


def _add_flow(root: Element, levels: dict[str, int], writer: BlockWriter) -> None:
    """Paragraphs and tables in order, whatever wraps them."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        tag = local(element)
        if tag == "p":
            _add_paragraph(element, levels, writer)
        elif tag == "tbl":
            writer.table([[flowing_text(cell) for cell in _children(row, "tc")] for row in _children(element, "tr")])
        elif tag in WRAPPERS:
            waiting.extend(reversed(element))


def _children(element: Element, tag: str) -> Iterator[Element]:
    """Rows of a table or cells of a row, also where content controls wrap them; not those of inner tables."""
    waiting = list(reversed(element))
    while waiting:
        child = waiting.pop()
        if local(child) == tag:
            yield child
        elif local(child) in WRAPPERS:
            waiting.extend(reversed(child))


def _add_paragraph(paragraph: Element, levels: dict[str, int], writer: BlockWriter) -> None:
    level, is_item = 0, False
    for properties in paragraph.iterchildren():
        if local(properties) != "pPr":
            continue
        for entry in properties:
            tag, value = local(entry), attribute(entry, "val")
            if tag == "pStyle":
                level = level or levels.get(value, 0)
            elif tag == "outlineLvl" and value.isdigit() and int(value) < 9:
                level = int(value) + 1
            is_item = is_item or tag == "numPr"
    text = flowing_text(paragraph)
    if level:
        writer.heading(level, text)
    else:
        writer.paragraph(f"- {text}" if is_item and text.strip() else text)


def flowing_text(root: Element) -> str:
    """All text below, in order; paragraphs inside end a line, cells inside end a word."""
    from lxml import etree

    pieces: list[str] = []
    skipping: Element | None = None
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = local(element)
        if event == "start" and skipping is None:
            if tag in LEFT_OUT or tag == "pPr":
                skipping = element
            elif tag == "t":
                pieces.append(element.text or "")
            else:
                pieces.append(BREAKS.get(tag, ""))
        elif event == "end":
            if skipping is element:
                skipping = None
            elif skipping is None and element is not root:
                pieces.append({"p": "\n", "tc": " "}.get(tag, ""))
    return "".join(pieces)
