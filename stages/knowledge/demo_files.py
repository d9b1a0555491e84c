"""Manuscripts as real files: PDF, DOCX, HTML, EPUB and plain text, the same bytes every time.

Formats that are written by libraries carry the time of writing unless they are told not to: a fixed date stands there.
"""

from __future__ import annotations

import csv
import html
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from stages.knowledge.demo_documents import Manuscript

DATE = (2000, 1, 1, 0, 0, 0)
EPUB_CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)


def to_pdf(manuscript: Manuscript) -> bytes:
    """With headings by size alone, as most PDFs have them."""
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    stream, styles = io.BytesIO(), getSampleStyleSheet()
    flow = [Paragraph(html.escape(manuscript.title), styles["Title"])]
    for heading, paragraphs in manuscript.sections:
        flow.append(Paragraph(html.escape(heading), styles["Heading1"]))
        flow += [Paragraph(html.escape(paragraph), styles["BodyText"]) for paragraph in paragraphs]
    SimpleDocTemplate(stream, title=manuscript.title, invariant=1).build(flow)
    return stream.getvalue()


def to_docx(manuscript: Manuscript) -> bytes:
    """With Word's heading styles."""
    import datetime

    from docx import Document

    document = Document()
    document.core_properties.title = manuscript.title
    document.core_properties.created = document.core_properties.modified = datetime.datetime(*DATE[:3])
    document.add_heading(manuscript.title, level=0)
    for heading, paragraphs in manuscript.sections:
        document.add_heading(heading, level=1)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    stream = io.BytesIO()
    document.save(stream)
    return _undated(stream.getvalue())


def to_html(manuscript: Manuscript) -> bytes:
    """With a menu that is no text of the document."""
    body = "\n".join(_html_section(heading, paragraphs) for heading, paragraphs in manuscript.sections)
    title = html.escape(manuscript.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f'<body><nav><a href="/">Home</a></nav>\n<main><h1>{title}</h1>\n{body}\n</main></body></html>\n'
    ).encode()


def to_epub(manuscript: Manuscript) -> bytes:
    """EPUB 3 with a part for each section."""
    parts = [f"part{number}" for number in range(1, len(manuscript.sections) + 1)]
    items = "".join(f'<item id="{p}" href="{p}.xhtml" media-type="application/xhtml+xml"/>' for p in parts)
    spine = "".join(f'<itemref idref="{part}"/>' for part in parts)
    title = html.escape(manuscript.title)
    package = (
        '<?xml version="1.0"?><package version="3.0" unique-identifier="id" xmlns="http://www.idpf.org/2007/opf">'
        f'<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title>'
        f'<dc:identifier id="id">{html.escape(manuscript.name)}</dc:identifier><dc:language>en</dc:language></metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    members = {"mimetype": "application/epub+zip", "META-INF/container.xml": EPUB_CONTAINER, "book.opf": package}
    for part, (heading, paragraphs) in zip(parts, manuscript.sections, strict=True):
        members[f"{part}.xhtml"] = (
            f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head>'
            f"<body>{_html_section(heading, paragraphs)}</body></html>"
        )
    return _zipped({name: text.encode() for name, text in members.items()})


def to_txt(manuscript: Manuscript) -> bytes:
    """With chapter headings."""
    lines = [manuscript.title]
    for number, (heading, paragraphs) in enumerate(manuscript.sections, start=1):
        lines += [f"Chapter {number}: {heading}", *paragraphs]
    return "".join(f"{line}\n\n" for line in lines).encode()


WRITERS: dict[str, Callable[[Manuscript], bytes]] = {
    "pdf": to_pdf,
    "docx": to_docx,
    "html": to_html,
    "epub": to_epub,
    "txt": to_txt,
}


def to_file(manuscript: Manuscript) -> bytes:
    """The manuscript in the format that its name ends in."""
    return WRITERS[manuscript.name.rpartition(".")[2]](manuscript)


PAIR_FORMATS = ("qa", "csv", "alpaca", "chat")


def pairs_file(rows: Sequence[dict[str, Any]], format: str) -> str:
    """Rows {"question", "answer", "source", "value"} as people keep such files: JSON lines, CSV, one JSON list."""
    if format == "csv":
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, ["question", "answer", "source", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()
    records = [_record(row, format) for row in rows]
    if format == "alpaca":
        return json.dumps(records, ensure_ascii=False, indent=2) + "\n"
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _record(row: dict[str, Any], format: str) -> dict[str, Any]:
    rest = {"source": row["source"], "value": row["value"]}
    if format == "alpaca":
        return {"instruction": row["question"], "input": "", "output": row["answer"], **rest}
    if format == "chat":
        turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        return {"messages": turns, **rest}
    return row


def _html_section(heading: str, paragraphs: list[str]) -> str:
    return f"<h2>{html.escape(heading)}</h2>" + "".join(f"\n<p>{html.escape(text)}</p>" for text in paragraphs)


def _undated(archive: bytes) -> bytes:
    """The same zip archive with the fixed date on every member."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return _zipped({name: source.read(name) for name in source.namelist()})


def _zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            # an EPUB's first member must be stored as it is
            kind = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, DATE), data, kind)
    return stream.getvalue()
