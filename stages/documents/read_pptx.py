"""PPTX (Office Open XML, ECMA-376): slide by slide, with tables and the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.read_docx import core_title, flowing_text, main_part
from stages.documents.zip_package import Package, attribute, local

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

TITLES = ("title", "ctrTitle")
NOT_SAID = ("sldNum", "dt", "ftr", "hdr", "sldImg")  # placeholders for numbers, dates and footers


def read_pptx(path: Path, max_chars: int) -> Document:
    """A slide's title is a heading. A slide that fails costs itself only."""
    package = Package(path)
    names = list(_slides(package))
    writer = BlockWriter(max_chars)
    failed = []
    for number, name in enumerate(names, start=1):
        try:
            _add_slide(package, name, number, writer)
        except RejectedError as error:
            if error.reason != "broken":
                raise
            failed.append(number)
    if names and len(failed) == len(names):
        raise RejectedError("broken", f"none of its {len(names)} slides can be read")
    return Document("pptx", core_title(package), writer.blocks, len(names), failed)


def _slides(package: Package) -> Iterator[str]:
    """The slides' members, in the order in which they are shown."""
    main = main_part(package)
    relations = package.relations(main)
    for entry in package.xml(main).iter():
        if local(entry) == "sldId":
            # It has an `id` of its own and an `r:id`, which is the one that leads to the slide
            keys = [str(value) for key, value in entry.attrib.items() if str(key).endswith("}id")]
            yield relations.get(keys[0] if keys else "", ("", ""))[1]


def _add_slide(package: Package, name: str, number: int, writer: BlockWriter) -> None:
    root = package.xml(name)
    shapes = [(_placeholder(shape), shape) for shape in root.iter() if local(shape) in ("sp", "graphicFrame")]
    for kind, shape in sorted(shapes, key=lambda pair: pair[0] not in TITLES):
        if kind in TITLES:
            writer.heading(1, flowing_text(shape), number)
        elif kind not in NOT_SAID:
            _add_shape(shape, number, writer)
    for kind, notes in package.relations(name).values():
        if kind == "notesSlide":
            for shape in package.xml(notes).iter():
                if local(shape) == "sp" and _placeholder(shape) == "body":
                    _add_shape(shape, number, writer)


def _placeholder(shape: Element) -> str:
    return next((attribute(entry, "type") for entry in shape.iter() if local(entry) == "ph"), "")


def _add_shape(shape: Element, number: int, writer: BlockWriter) -> None:
    tables = [element for element in shape.iter() if local(element) == "tbl"]
    for table in tables:
        rows = [row for row in table if local(row) == "tr"]
        writer.table([[flowing_text(cell) for cell in row if local(cell) == "tc"] for row in rows], number)
    if not tables:
        for paragraph in shape.iter():
            if local(paragraph) == "p":
                writer.paragraph(flowing_text(paragraph), number)
