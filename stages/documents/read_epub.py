"""EPUB 2 and 3 (OCF and OPF): the parts in the order of the spine, each an XHTML page."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.documents.blocks import BlockWriter, Document, RejectedError
from stages.documents.charset import decode
from stages.documents.read_html import add_html
from stages.documents.zip_package import Package, attribute, local, member_name

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

FONT_OBFUSCATION = (b"http://www.idpf.org/2008/embedding", b"http://ns.adobe.com/pdf/enc#RC")
PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")


def read_epub(path: Path, max_chars: int) -> Document:
    """A part that fails costs itself only. Raises RejectedError: broken, needs_password, unsafe."""
    package = Package(path)
    _check_encryption(package)
    name = _rootfile(package)
    root = package.xml(name)
    parts = list(_spine(root, posixpath.dirname(name)))
    writer = BlockWriter(max_chars)
    failed = []
    for number, part in enumerate(parts, start=1):
        try:
            add_html(decode(package.read(part))[0], writer)
        except RejectedError as error:
            if error.reason not in ("broken", "unsupported"):
                raise
            failed.append(number)
    if parts and len(failed) == len(parts):
        raise RejectedError("broken", f"none of its {len(parts)} parts can be read")
    return Document("epub", _first(root, "title"), writer.blocks, len(parts), failed)


def _check_encryption(package: Package) -> None:
    """Encrypted fonts are usual and do no harm; anything else encrypted is DRM."""
    name = "META-INF/encryption.xml"
    if name not in package:
        return
    for element in package.xml(name).iter():
        algorithm = attribute(element, "Algorithm").encode() if local(element) == "EncryptionMethod" else b""
        if algorithm and algorithm not in FONT_OBFUSCATION:
            raise RejectedError("needs_password", "its parts are encrypted (DRM)")


def _rootfile(package: Package) -> str:
    for element in package.xml("META-INF/container.xml").iter():
        if local(element) == "rootfile":
            return member_name("", attribute(element, "full-path"))
    raise RejectedError("broken", "META-INF/container.xml names no content")


def _spine(root: Element, folder: str) -> Iterator[str]:
    """The parts in reading order, without the table of contents."""
    items = {attribute(e, "id"): e for e in root.iter() if local(e) == "item"}
    for reference in root.iter():
        item = items.get(attribute(reference, "idref")) if local(reference) == "itemref" else None
        if item is None or "nav" in attribute(item, "properties").split():
            continue
        if attribute(item, "media-type") in PAGES:
            yield member_name(folder, attribute(item, "href"))


def _first(root: Element, tag: str) -> str:
    return next((" ".join((e.text or "").split()) for e in root.iter() if local(e) == tag), "")
