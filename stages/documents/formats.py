"""Which reader reads a file: its first bytes decide where they can, its suffix else."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from stages.documents.blocks import Document, RejectedError
from stages.documents.read_docx import read_docx
from stages.documents.read_epub import read_epub
from stages.documents.read_html import read_html, read_markdown
from stages.documents.read_odt import read_odt
from stages.documents.read_pdf import read_pdf
from stages.documents.read_pptx import read_pptx
from stages.documents.read_text import read_csv, read_plain, read_subtitles

Reader = Callable[[Path, int], Document]  # (path, max_chars)

READERS: dict[str, Reader] = {
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".docm": read_docx,
    ".pptx": read_pptx,
    ".odt": read_odt,
    ".epub": read_epub,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".txt": read_plain,
    ".text": read_plain,
    "": read_plain,
}
PACKAGED = (".docx", ".docm", ".pptx", ".odt", ".epub")
PDF_MARK_WITHIN = 1024  # ISO 32000: readers look for %PDF- in the first 1,024 bytes
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # [MS-CFB]: old Office files, and new ones with a password
ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")


def read_document(path: Path, max_chars: int) -> Document:
    """The document's blocks. Raises RejectedError with one of blocks.REASONS; OSError where it cannot be opened."""
    if path.stat().st_size == 0:
        raise RejectedError("empty", "0 bytes")
    document = _reader(path)(path, max_chars)
    if not document.blocks:
        raise RejectedError("empty", "only markup, pictures or white space")
    return document


def _reader(path: Path) -> Reader:
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        start = file.read(PDF_MARK_WITHIN)
    if start.startswith(OLE):
        raise _old_office(path)
    if start.startswith(b"%PDF-") or (suffix == ".pdf" and b"%PDF-" in start):
        return read_pdf
    if start.startswith(b"PK\x03\x04"):
        return READERS[_packaged_suffix(path)]
    if suffix == ".pdf" or suffix in PACKAGED:
        raise RejectedError("broken", f"inside it is no {suffix[1:].upper()}")
    if suffix not in READERS:
        raise RejectedError("unsupported", f"{suffix}; read are {', '.join(sorted(filter(None, READERS)))}")
    return READERS[suffix]


def _old_office(path: Path) -> RejectedError:
    with open(path, "rb") as file:
        if ENCRYPTED_PACKAGE in file.read(1 << 20):
            return RejectedError("needs_password")
    return RejectedError("unsupported", "an Office file from before 2007; save it as DOCX or PPTX")


def _packaged_suffix(path: Path) -> str:
    """What a zip archive is, by what stands in it. Raises RejectedError."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            kind = archive.read("mimetype")[:100].decode("ascii", "replace").strip() if "mimetype" in names else ""
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise RejectedError("broken", f"not a whole zip archive ({error})") from error
    if kind == "application/epub+zip" or "META-INF/container.xml" in names:
        return ".epub"
    if kind == "application/vnd.oasis.opendocument.text":
        return ".odt"
    for folder, suffix in (("word/", ".docx"), ("ppt/", ".pptx")):
        if "[Content_Types].xml" in names and any(name.startswith(folder) for name in names):
            return suffix
    raise RejectedError("unsupported", "a zip archive that is no DOCX, PPTX, ODT or EPUB; unpack it")
