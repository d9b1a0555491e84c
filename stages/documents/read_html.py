"""HTML and Markdown: headings, paragraphs, list items and tables; menus, scripts and forms are left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.charset import decode
from stages.documents.read_text import read_bytes

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

SKIPPED = frozenset(
    [
        "script",
        "style",
        "template",
        "noscript",
        "nav",
        "head",
        "svg",
        "math",
        "iframe",
        "object",
        "select",
        "button",
        "textarea",
        "footer",
        "aside",
        "audio",
        "video",
        "canvas",
    ]
)
BLOCKS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "td",
        "th",
        "tr",
        "tbody",
        "thead",
        "tfoot",
        "ul",
    ]
)
MENU_ROLES = ("navigation", "menu", "menubar", "search", "dialog", "contentinfo")
HEADINGS = {f"h{level}": level for level in range(1, 7)}
DECLARED = re.compile(rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE)
SPACES = re.compile(r"\s+")
FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)


def read_html(path: Path, max_chars: int) -> Document:
    """A web page; its <main> or only <article> where it has one that holds text, else its body."""
    data = read_bytes(path, max_chars)
    declared = DECLARED.search(data[:4096])
    text, charset = decode(data, declared[1].decode("ascii") if declared else "")
    writer = BlockWriter(max_chars)
    title = add_html(text, writer)
    return Document("html", title=title, blocks=writer.blocks, metadata={"charset": charset})


def read_markdown(path: Path, max_chars: int) -> Document:
    """CommonMark with tables, through HTML. YAML front matter is left out."""
    from markdown_it import MarkdownIt

    text, charset = decode(read_bytes(path, max_chars))
    text = FRONT_MATTER.sub("", text.replace("\r\n", "\n"))
    writer = BlockWriter(max_chars)
    add_html(MarkdownIt("commonmark").enable("table").render(text), writer)
    title = next((block.text for block in writer.blocks if block.kind == "heading"), "")
    return Document("markdown", title=title, blocks=writer.blocks, metadata={"charset": charset})


def add_html(text: str, writer: BlockWriter) -> str:
    """Adds a page's blocks to `writer`; returns its title. libxml2 mends what is broken, as browsers do."""
    from lxml import etree

    if not text.strip():
        return ""
    # As UTF-8 bytes: lxml refuses text with an encoding declaration, and believes what a <meta> says of other bytes
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    if root is None:
        raise RejectedError("broken", "no HTML in it")
    _Walk(writer).walk(_content(root))
    return " ".join("".join(root.xpath("string(//title)")).split())


def _content(root: Element) -> Element:
    for tag in ("main", "article"):
        found = list(root.iter(tag))
        if len(found) == 1 and len("".join(found[0].itertext()).split()) > 50:
            return found[0]
    return root


class _Walk:
    """One pass in document order, without recursion: a page may nest deeper than Python's stack."""

    def __init__(self, writer: BlockWriter) -> None:
        self._writer = writer
        self._inline: list[str] = []
        self._tables: list[list[list[str]]] = []  # the open tables' rows; text inside a table goes to its last cell
        self._preformatted = 0
        self._prefix = ""

    def walk(self, root: Element) -> None:
        from lxml import etree

        skipping: Element | None = None
        for event, element in etree.iterwalk(root, events=("start", "end")):
            tag = element.tag if isinstance(element.tag, str) else ""
            tag = tag.rpartition("}")[2].lower()
            if event == "start" and skipping is None:
                if tag in SKIPPED or not tag or _is_hidden(element):
                    skipping = element
                else:
                    self._start(tag, element)
            elif event == "end":
                if skipping is None:
                    self._end(tag)
                if skipping is None or skipping is element:
                    skipping = None
                    if element is not root:
                        self._text(element.tail)
        self._flush()

    def _start(self, tag: str, element: Element) -> None:
        if tag in BLOCKS or tag in HEADINGS:
            self._flush()
        if tag == "table":
            self._tables.append([])
        elif tag == "tr" and self._tables:
            self._tables[-1].append([])
        elif tag in ("td", "th") and self._tables:
            self._tables[-1] = self._tables[-1] or [[]]
            self._tables[-1][-1].append("")
        elif tag == "li":
            self._prefix = "- "
        elif tag == "pre":
            self._preformatted += 1
        elif tag == "br":
            self._inline.append("\n")
        self._text(element.text)

    def _end(self, tag: str) -> None:
        if tag in HEADINGS and not self._tables:
            self._writer.heading(HEADINGS[tag], "".join(self._inline))
            self._inline.clear()
        elif tag in BLOCKS or tag in HEADINGS:
            self._flush()
        if tag == "pre":
            self._preformatted -= 1
        elif tag == "table" and self._tables:
            self._close_table(self._tables.pop())

    def _close_table(self, rows: list[list[str]]) -> None:
        if self._tables and self._tables[-1] and self._tables[-1][-1]:  # a table in a cell is text of that cell
            self._tables[-1][-1][-1] += " ".join(" ".join(row) for row in rows)
        elif _is_layout(rows):
            for paragraph in "\n".join("\n".join(row) for row in rows).split("\n"):
                self._writer.paragraph(paragraph)
        else:
            self._writer.table(rows)

    def _text(self, text: str | None) -> None:
        if text:
            self._inline.append(text if self._preformatted else SPACES.sub(" ", text))

    def _flush(self) -> None:
        text = "".join(self._inline)
        self._inline.clear()
        if not text.strip():
            return
        text, self._prefix = self._prefix + text.strip(), ""
        if self._tables and self._tables[-1] and self._tables[-1][-1]:
            self._tables[-1][-1][-1] += text + "\n"
        else:
            self._writer.paragraph(text)


def _is_hidden(element: Element) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.get("hidden") is not None or "display:none" in style or element.get("role") in MENU_ROLES


def _is_layout(rows: list[list[str]]) -> bool:
    """A table that only places text on a page: some cell holds several paragraphs of prose."""
    return any(cell.count("\n") > 3 and len(cell) > 1000 for row in rows for cell in row)
