"""What each reader makes of a small file: headings, paragraphs, tables, in order."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.documents.blocks import BlockWriter, Document, RejectedError, tidy
from stages.documents.charset import decode
from stages.documents.folder import files_of
from stages.documents.formats import read_document
from stages.documents.pdf_headings import large_lines
from stages.documents.read_text import dehyphenated, paragraphs

MAX_CHARS = 100_000


def read(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_document(path, MAX_CHARS)


def outline(document: Document) -> list[tuple[str, str]]:
    """h, p or t of each block, and its text."""
    return [(block.kind[0], block.text) for block in document.blocks]


def test_plain_text_of_wrapped_prose_verse_and_long_lines() -> None:
    prose = (
        "  The mill of Bako stood where it had always stood, beside the\n"
        "river of that name, and nobody asked for how long it would yet.\n"
        "  It fell in the year when the river was so high that the bridge\n"
        "fell with it."
    )
    assert [len(paragraph) for paragraph in paragraphs(prose)] == [124, 76]
    assert list(paragraphs("Oh mill,\noh wheel!\n\nThe end.\n")) == ["Oh mill,\noh wheel!", "The end."]
    long = "word " * 30
    assert list(paragraphs(f"{long}\nsecond line\n")) == [long.strip(), "second line"]
    assert list(paragraphs(" \n\n")) == []


def test_chapters_of_plain_text(tmp_path: Path) -> None:
    text = "Title\n\nPART ONE\n\nCHAPTER I\n\nA shifting reef.\n\nII\n\nPart of it was true.\n\nChapter and verse, he said."
    document = read(tmp_path / "a.txt", text)
    assert [(block.kind[0], block.text, block.path) for block in document.blocks] == [
        ("p", "Title", ()),
        ("h", "PART ONE", ("PART ONE",)),
        ("h", "CHAPTER I", ("PART ONE", "CHAPTER I")),
        ("p", "A shifting reef.", ("PART ONE", "CHAPTER I")),
        ("h", "II", ("PART ONE", "II")),
        ("p", "Part of it was true.", ("PART ONE", "II")),
        ("p", "Chapter and verse, he said.", ("PART ONE", "II")),
    ]


def test_markdown(tmp_path: Path) -> None:
    text = "---\ntitle: x\n---\n# Bako\n\nA *mill*\nof [Tarn](http://x).\n\n- one\n- two\n\n## Facts\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    document = read(tmp_path / "a.md", text)
    assert outline(document) == [
        ("h", "Bako"),
        ("p", "A mill of Tarn."),
        ("p", "- one"),
        ("p", "- two"),
        ("h", "Facts"),
        ("t", "a | b\n1 | 2"),
    ]
    assert document.title == "Bako"
    assert document.blocks[-1].path == ("Bako", "Facts")


def test_html_without_menus_scripts_and_hidden_text(tmp_path: Path) -> None:
    html = """<html><head><title>Bako</title><script>var x = "no";</script></head><body>
    <nav><a href="/">Home</a></nav><h1>The mill</h1><p>Red<br>and <b>blue</b>.</p><div style="display: none">no</div>
    <table><tr><th>Year</th><th>Sacks</th></tr><tr><td>1</td><td>2<table><tr><td>in</td></tr></table></td></tr></table>
    <table><tr><td>Only one cell</td></tr></table><pre>a  b
  c</pre>tail<footer>no</footer></body></html>"""
    document = read(tmp_path / "a.html", html)
    assert document.title == "Bako"
    assert outline(document) == [
        ("h", "The mill"),
        ("p", "Red\nand blue."),
        ("t", "Year | Sacks\n1 | 2 in"),
        ("p", "Only one cell"),
        ("p", "a b\nc"),
        ("p", "tail"),
    ]


def test_csv_and_subtitles(tmp_path: Path) -> None:
    assert outline(read(tmp_path / "a.csv", 'name;"said"\nBako;"a;b"\n\n')) == [("t", "name | said\nBako | a;b")]
    assert outline(read(tmp_path / "a.tsv", "name\tsaid\nBako\ta, b\n")) == [("t", "name | said\nBako | a, b")]
    cues = "1\r\n00:00:01,000 --> 00:00:02,000\r\nThe mill\r\nis red.\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n1984\r\n"
    assert outline(read(tmp_path / "a.srt", cues)) == [("p", "The mill is red."), ("p", "1984")]
    vtt = "WEBVTT\n\nintro\n00:01.000 --> 00:02.000 align:start\nThe mill.\n"
    assert outline(read(tmp_path / "a.vtt", vtt)) == [("p", "The mill.")]


def test_docx_with_numbered_lists_tables_notes_and_changes(tmp_path: Path) -> None:
    import docx

    document = docx.Document()
    document.core_properties.title = "About Bako"
    document.add_heading("Bako", 1)
    document.add_paragraph("A mill.")
    document.add_heading("Facts", 2)
    table = document.add_table(rows=2, cols=2)
    for place, text in enumerate(["Year", "Sacks", "1", "2"]):
        table.cell(place // 2, place % 2).text = text
    document.add_paragraph("End.")
    document.save(str(tmp_path / "a.docx"))
    read_back = read_document(tmp_path / "a.docx", MAX_CHARS)
    assert read_back.title == "About Bako"
    assert outline(read_back) == [
        ("h", "Bako"),
        ("p", "A mill."),
        ("h", "Facts"),
        ("t", "Year | Sacks\n1 | 2"),
        ("p", "End."),
    ]
    assert read_back.blocks[-1].path == ("Bako", "Facts")


SLIDE = """<p:sld xmlns:p="p" xmlns:a="a" xmlns:r="r"><p:sp><p:nvPr><p:ph type="body"/></p:nvPr><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:sp>
<p:sp><p:nvPr><p:ph type="title"/></p:nvPr><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:sp></p:sld>"""


def test_pptx_in_the_order_shown_and_a_broken_slide(tmp_path: Path) -> None:
    relation = '<Relationship Id="{}" Type="http://x/{}" Target="{}"/>'
    with zipfile.ZipFile(tmp_path / "a.pptx", "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        root = relation.format("r1", "officeDocument", "ppt/presentation.xml")
        file.writestr("_rels/.rels", f"<Relationships>{root}</Relationships>")
        order = "".join(f'<p:sldId id="{256 + n}" r:id="s{n}"/>' for n in (2, 3, 1))
        file.writestr("ppt/presentation.xml", f'<p:presentation xmlns:p="p" xmlns:r="r">{order}</p:presentation>')
        slides = "".join(relation.format(f"s{n}", "slide", f"slides/s{n}.xml") for n in (1, 2, 3))
        file.writestr("ppt/_rels/presentation.xml.rels", f"<Relationships>{slides}</Relationships>")
        file.writestr("ppt/slides/s1.xml", SLIDE.format("Last words.", "End"))
        file.writestr("ppt/slides/s2.xml", SLIDE.format("First words.", "Begin"))
        file.writestr("ppt/slides/s3.xml", "<broken")
    document = read_document(tmp_path / "a.pptx", MAX_CHARS)
    assert [(block.kind[0], block.text, block.page) for block in document.blocks] == [
        ("h", "Begin", 1),
        ("p", "First words.", 1),
        ("h", "End", 3),
        ("p", "Last words.", 3),
    ]
    assert (document.num_pages, document.failed_pages) == (3, [2])


def test_odt(tmp_path: Path) -> None:
    content = """<o:document-content xmlns:o="o" xmlns:t="t" xmlns:b="b"><o:body><o:text><t:h t:outline-level="1">Bako</t:h>
    <t:p>A<t:s t:c="2"/>mill<t:note><t:note-citation>1</t:note-citation></t:note>.</t:p><t:list><t:list-item><t:p>one</t:p></t:list-item></t:list>
    <b:table><b:table-row><b:table-cell><t:p>a</t:p></b:table-cell><b:table-cell><t:p>b</t:p></b:table-cell></b:table-row>
    <b:table-row><b:table-cell><t:p>1</t:p></b:table-cell><b:table-cell><t:p>2</t:p></b:table-cell></b:table-row></b:table>
    </o:text></o:body></o:document-content>"""
    with zipfile.ZipFile(tmp_path / "a.odt", "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        file.writestr("content.xml", content)
    assert outline(read_document(tmp_path / "a.odt", MAX_CHARS)) == [
        ("h", "Bako"),
        ("p", "A mill1 ."),
        ("p", "- one"),
        ("t", "a | b\n1 | 2"),
    ]


def test_pdf_with_outline_and_running_titles(tmp_path: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "a.pdf"))
    canvas.setTitle("About Bako")
    for page in range(1, 6):
        canvas.drawString(72, 800, f"The Book of Mills {page}")
        if page in (1, 3):
            canvas.bookmarkPage(f"p{page}")
            canvas.addOutlineEntry(f"Chapter {page}", f"p{page}", level=0)
            canvas.drawString(72, 760, f"Chapter {page}")
        canvas.drawString(72, 720, f"This is {'abcde'[page - 1] * 9}, which has to say something about the con-")
        canvas.drawString(72, 700, f"struction of the {'vwxyz'[page - 1] * 9}.")
        canvas.drawString(72, 680, f"1{page} 20 30 4{page}")
        canvas.showPage()
    canvas.save()
    document = read_document(tmp_path / "a.pdf", MAX_CHARS)
    assert document.title == "About Bako"
    assert [(block.path, block.page, block.text) for block in document.blocks][:6] == [
        (("Chapter 1",), 1, "Chapter 1"),
        (("Chapter 1",), 1, "This is aaaaaaaaa, which has to say something about the construction of the vvvvvvvvv."),
        (("Chapter 1",), 1, "11 20 30 41"),
        (("Chapter 1",), 2, "This is bbbbbbbbb, which has to say something about the construction of the wwwwwwwww."),
        (("Chapter 1",), 2, "12 20 30 42"),
        (("Chapter 3",), 3, "Chapter 3"),
    ]


def test_pdf_headings_by_the_size_of_the_type(tmp_path: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "a.pdf"))
    lines = [(24, "The Mill"), (16, "History"), (10, "It was built by Lona."), (10, "It still stands."), (16, "Today")]
    for place, (size, text) in enumerate(
        [*lines, (10, "It grinds for all."), (10, "Nobody knows it."), *[(10, "So it is, and was.")] * 5]
    ):
        canvas.setFont("Helvetica", size)
        canvas.drawString(72, 780 - 40 * place, text)
    canvas.save()
    document = read_document(tmp_path / "a.pdf", MAX_CHARS)
    assert [(block.kind[0], block.text) for block in document.blocks][:3] == [
        ("h", "The Mill"),
        ("h", "History"),
        ("p", "It was built by Lona. It still stands."),
    ]
    assert [block.path for block in document.blocks if block.kind == "heading"] == [
        ("The Mill",),
        ("The Mill", "History"),
        ("The Mill", "Today"),
    ]


def test_where_many_lines_are_large_size_says_nothing() -> None:
    pages, heights = {1: ["Aaa", "bbb ccc ddd", "Eee", "fff"]}, {1: [20.0, 10.0, 20.0, 10.0]}
    assert large_lines(pages, heights, ()) == {}
    pages, heights = {1: ["Aaa", *["text"] * 9]}, {1: [20.0, *[10.0] * 9]}
    assert large_lines(pages, heights, ()) == {1: [(1, "Aaa")]}
    assert large_lines(pages, heights, ("Aaa",)) == {}
    assert large_lines({}, {}, ()) == {}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.html", b"<html><script>1</script></html>", "empty"),
        ("a.pdf", b"no PDF", "broken"),
        ("a.docx", b"no zip", "broken"),
        ("a.docx", b"PK\x03\x04 cut off", "broken"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "unsupported"),
        ("a.exe", b"MZ\x90", "unsupported"),
        ("a.txt", bytes(range(256)) * 20, "unsupported"),
        ("a.txt", b"word " * MAX_CHARS, "too_large"),
    ],
)
def test_what_is_not_read_says_why(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RejectedError) as caught:
        read(tmp_path / name, content)
    assert caught.value.reason == reason


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(tmp_path / "really.txt"))
    canvas.drawString(72, 700, "A PDF.")
    canvas.save()
    assert read_document(tmp_path / "really.txt", MAX_CHARS).format == "pdf"


RUSSIAN = "Мельница Бако стоит у реки, и никто не помнит, кто её построил. " * 3


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1251", "koi8-r", "cp866"])
def test_charsets(charset: str) -> None:
    assert decode(RUSSIAN.encode(charset))[0] == RUSSIAN
    assert decode("naïve café, déjà vu".encode("cp1252"))[0] == "naïve café, déjà vu"


@given(st.text(), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_unicode_is_read_as_it_is(text: str, charset: str) -> None:
    try:
        assert decode(text.encode(charset))[0] == text.removeprefix("\ufeff" if charset == "utf-8" else "")
    except RejectedError as error:
        assert error.reason == "unsupported"  # control characters only


@given(st.binary(max_size=400))
def test_any_bytes_are_text_or_rejected(data: bytes) -> None:
    try:
        decode(data)
    except RejectedError as error:
        assert error.reason == "unsupported"


def test_hyphens_at_line_ends() -> None:
    assert dehyphenated(["the con-", "struction of", "1980-", "1990"]) == "the construction of 1980- 1990"
    assert dehyphenated(["a 1 2 3", "b 4 5 6"]) == "a 1 2 3\nb 4 5 6"


@given(st.lists(st.tuples(st.sampled_from("hpt"), st.integers(1, 4), st.text(max_size=40)), max_size=12))
def test_offsets_lead_into_the_text(plan: list[tuple[str, int, str]]) -> None:
    writer = BlockWriter(MAX_CHARS)
    for kind, level, text in plan:
        if kind == "h":
            writer.heading(level, text)
        elif kind == "p":
            writer.paragraph(text)
        else:
            writer.table([["a", "b"], [text, "c"]])
    whole = Document("txt", blocks=writer.blocks).text
    for block in writer.blocks:
        assert whole[block.begin : block.end] == block.text == tidy(block.text)
        assert block.kind != "heading" or block.path[-1] == block.text
    whole.encode("utf-8")


def test_files_stand_in_one_order(tmp_path: Path) -> None:
    for name in ("b/1.txt", "a/2.txt", "a/10.txt", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [found.source for found in files_of(tmp_path)] == ["a/10.txt", "a/2.txt", "b/1.txt", "c.txt"]
