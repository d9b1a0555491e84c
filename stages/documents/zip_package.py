"""The zip archives inside DOCX, PPTX, ODT and EPUB, read in memory only, with limits against bombs and bad paths.

Nothing is ever unpacked to disk, so a path such as `../../etc/passwd` could only name another member; a file that
holds one was made to attack somebody and is rejected whole.
"""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stages.documents.blocks import RejectedError

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 128 << 20  # of text; images are never read
MAX_RATIO = 200  # deflate reaches 1,032; the XML of real documents stays below 60
MIN_SUSPECT_BYTES = 16 << 20


class Package:
    """An open archive. Raises RejectedError: broken, unsafe, needs_password, too_large."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
            self._members = {member.filename: member for member in self._zip.infolist()}
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
            raise RejectedError("broken", f"not a whole zip archive ({error})") from error
        if len(self._members) > MAX_MEMBERS:
            raise RejectedError("unsafe", f"{len(self._members):,} files in one document")
        for name in self._members:
            if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
                raise RejectedError("unsafe", f"the path {name[:80]!r} leaves the archive")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """One member's bytes; zipfile never yields more of them than its checked, declared size."""
        member = self._members.get(name)
        if member is None:
            raise RejectedError("broken", f"{name} is missing inside")
        if member.flag_bits & 1:
            raise RejectedError("needs_password", f"{name} inside is encrypted")
        if member.file_size > MIN_SUSPECT_BYTES and member.file_size > MAX_RATIO * member.compress_size:
            raise RejectedError(
                "unsafe", f"{name} inside grows {member.file_size // max(member.compress_size, 1)}-fold"
            )
        if member.file_size > MAX_MEMBER_BYTES:
            raise RejectedError("too_large", f"{name} inside holds {member.file_size:,} bytes")
        try:
            return self._zip.read(member)
        except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError) as error:
            raise RejectedError("broken", f"{name} inside: {error}") from error
        except Exception as error:  # zlib.error, lzma.LZMAError and whatever codec comes next share no parent
            raise RejectedError("broken", f"{name} inside: {type(error).__name__}: {error}") from error

    def xml(self, name: str) -> Element:
        return parse_xml(self.read(name), name)

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Relation id -> (kind, member name) of an Office part, without external ones; ECMA-376 part 2, chapter 9."""
        folder, name = posixpath.split(part)
        rels = f"{folder}/_rels/{name}.rels".lstrip("/")
        if rels not in self:
            return {}
        found = {}
        for relation in self.xml(rels):
            if relation.get("TargetMode") != "External":
                kind = (relation.get("Type") or "").rpartition("/")[2]
                found[relation.get("Id") or ""] = kind, member_name(folder, relation.get("Target") or "")
        return found


def member_name(folder: str, href: str) -> str:
    """A link inside the package as a member's name. Raises RejectedError("unsafe") where it leads out of it."""
    href = unquote(href.partition("#")[0])
    name = href.lstrip("/") if href.startswith("/") else posixpath.normpath(posixpath.join(folder, href))
    if ".." in name.split("/"):
        raise RejectedError("unsafe", f"the link {href[:80]!r} leaves the archive")
    return name


def parse_xml(data: bytes, name: str) -> Element:
    """The root. Entities are not expanded and nothing is fetched (billion laughs, XXE); libxml2's own limits hold."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_pis=True)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise RejectedError("broken", f"{name} inside: {error}") from error


def local(element: Element) -> str:
    """A tag without its namespace; "" for comments and entities. Namespaces differ between strict and usual Office."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """An attribute by its name without namespace, or ""."""
    for key, value in element.attrib.items():
        if str(key).rpartition("}")[2] == name:
            return str(value)
    return ""
