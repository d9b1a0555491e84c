"""Bytes into text: byte order marks, strict UTF-8, the declared charset, then the likeliest code page."""

from __future__ import annotations

import codecs
import re

from stages.documents.blocks import RejectedError

# UTF-32 before UTF-16, whose mark is the beginning of its
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# In order of preference between equally likely ones: `naive` with a diaeresis is cp1252 and not Cyrillic
CODE_PAGES = (
    "cp1252", "cp1251", "koi8_r", "cp866", "cp1250", "mac_cyrillic", "cp1253", "cp1254",
    "gb18030", "shift_jis", "euc_jp", "euc_kr", "big5",
)  # fmt: skip
SAMPLE_BYTES = 1 << 18  # detection is slow (0.3 s for this much), and this much text is as sure as all of it
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
MAX_CONTROL_SHARE = 0.01


def decode(data: bytes, declared: str = "") -> tuple[str, str]:
    """(text, charset). Raises RejectedError("unsupported") where the bytes are no text.

    declared: what the document says of itself; believed only where all bytes fit it.
    """
    for mark, charset in MARKS:
        if data.startswith(mark):
            return data.decode(charset, "replace"), charset
    if (wide := _unmarked_utf16(data)) is not None:
        return wide
    for charset in ("utf-8", declared):
        text = _strict(data, charset)
        if text is not None:
            return _checked(text), charset
    return _guessed(data)


def _strict(data: bytes, charset: str) -> str | None:
    try:
        return data.decode(charset) if charset else None
    except (UnicodeError, LookupError):
        return None


def _unmarked_utf16(data: bytes) -> tuple[str, str] | None:
    """Western text in UTF-16 has a zero in every other byte."""
    sample = data[:4000]
    for charset, offset in (("utf-16-le", 1), ("utf-16-be", 0)):
        zeros, others = sample[offset::2].count(0), sample[1 - offset :: 2].count(0)
        if zeros > 0.3 * len(sample) and not others and (text := _strict(data, charset)) is not None:
            return _checked(text), charset
    return None


def _guessed(data: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    sample = data[:SAMPLE_BYTES].rpartition(b"\n")[0] if len(data) > SAMPLE_BYTES else data
    matches = list(from_bytes(sample or data[:SAMPLE_BYTES], cp_isolation=list(CODE_PAGES)))
    if not matches or b"\0" in data:
        raise RejectedError("unsupported", "the bytes are text in no charset that is known")
    best = [m for m in matches if (m.chaos, -m.coherence) == (matches[0].chaos, -matches[0].coherence)]
    charset = min((m.encoding for m in best), key=CODE_PAGES.index)
    return _checked(data.decode(charset, "replace")), charset


def _checked(text: str) -> str:
    sample = text[:100_000]
    if len(CONTROL.findall(sample)) > MAX_CONTROL_SHARE * len(sample):
        raise RejectedError("unsupported", "the bytes are no text")
    return text
