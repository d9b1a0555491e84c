"""What ingest costs: a long PDF on one core, many small files on two, and the same files again.

    python tests/benchmarks/ingest.py

Documents are made by a seeded generator in a temporary folder; chunks are counted by the embedded base's tokenizer
(`dvc repro base_model` makes it) with the settings of conf/ingest. Every figure is a process from start to end, the
memory that of all its processes together. The plain library is pypdfium2's text extraction alone, on the same core in
the same run. Writes reports/bench/ingest.md.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

import yaml
from pipeline import ROOT, Run, commit, hardware, run

BASE = ROOT / "models/base/tiny"
NUM_PAGES, NUM_FILES, NUM_FEW = 500, 10_000, 1_000
SYLLABLES = ("ba", "ko", "lo", "na", "mi", "ran", "tir", "sel", "dun", "ve", "or", "ish", "tal", "gre")


def sentence(rng: random.Random) -> str:
    """Invented words, as long as English ones."""
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(rng.randint(6, 22))]
    return f"{' '.join(words).capitalize()}."


def paragraph(rng: random.Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(3, 7)))


def write_pdf(path: Path, num_pages: int) -> None:
    """Full pages of prose in chapters of ten pages, with an outline, running titles and a table in each chapter."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    rng = random.Random(13)
    canvas = Canvas(str(path), pagesize=A4)
    for page in range(1, num_pages + 1):
        lines = [f"Chapter {page // 10 + 1}"] if page % 10 == 1 else []
        if lines:
            canvas.bookmarkPage(f"p{page}")
            canvas.addOutlineEntry(lines[0], f"p{page}", level=0)
            lines += [f"{name} {rng.randint(0, 9999)} {rng.random():.3f} {rng.random():.3f}" for name in SYLLABLES]
        while len(lines) < 48:
            lines += simpleSplit(paragraph(rng), "Helvetica", 10, 450)
        canvas.setFont("Helvetica", 10)
        for number, line in enumerate([f"On mills and rivers, page {page}", *lines[:48]]):
            canvas.drawString(72, 790 - 14.5 * number, line)
        canvas.showPage()
    canvas.save()


def write_files(folder: Path, num_files: int) -> None:
    """Text, Markdown and HTML of one to three thousand characters, a hundred to a folder."""
    rng = random.Random(13)
    for number in range(num_files):
        title, parts = f"Note {number}", [paragraph(rng) for _ in range(rng.randint(2, 5))]
        texts = {
            "txt": "\n\n".join(parts),
            "md": f"# {title}\n\n" + "\n\n".join(parts),
            "html": f"<title>{title}</title><h1>{title}</h1>" + "".join(f"<p>{part}</p>" for part in parts),
        }
        suffix = ("txt", "md", "html")[number % 3]
        path = folder / f"{number // 100:03d}/{number:05d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[suffix], encoding="utf-8")


def ingest_once(folder: Path, num_workers: int) -> None:
    """What the measured process does: the stage on folder/raw."""
    from stages import ingest
    from stages.core.config import parse_section
    from stages.core.workspace import Workspace

    section = yaml.safe_load((ROOT / "conf/ingest/default.yaml").read_text(encoding="utf-8"))
    model = {"name": "tiny", "kind": "build", "max_context_tokens": 1024}
    section |= {"domain": "d", "raw_dir": ".", "curation_dir": "curation", "model": model, "num_workers": num_workers}
    section["sources"] = [{"path": "raw", "kind": "article"}]
    ingest.run(parse_section(ingest.Config, section, "ingest"), Workspace(folder, folder))


def measured(folder: Path, num_workers: int, one_core: bool = False) -> Run:
    """The stage in a process of its own; on one core, its workers too."""
    (folder / "models/base").mkdir(parents=True, exist_ok=True)
    if not (folder / "models/base/tiny").exists():
        (folder / "models/base/tiny").symlink_to(BASE)
    command = [sys.executable, __file__, "--ingest", str(folder), "--num-workers", str(num_workers)]
    return run(["taskset", "-c", "0", *command] if one_core else command, ROOT)


def plain_library(path: Path) -> Run:
    code = "import sys, pypdfium2; [p.get_textpage().get_text_range() for p in pypdfium2.PdfDocument(sys.argv[1])]"
    return run(["taskset", "-c", "0", sys.executable, "-c", code, str(path)], ROOT)


def measure(work: Path) -> list[tuple[str, str, str]]:
    """Rows of the report: what, measured, aim."""
    (work / "pdf/raw").mkdir(parents=True)
    write_pdf(work / "pdf/raw/long.pdf", NUM_PAGES)
    for name, count in (("few", NUM_FEW), ("many", NUM_FILES)):
        write_files(work / name / "raw", count)
    plain, pdf = plain_library(work / "pdf/raw/long.pdf"), measured(work / "pdf", 1, one_core=True)
    few, many = measured(work / "few", 2), measured(work / "many", 2)
    knowledge = work / "many/data/d/knowledge.sqlite"
    before = knowledge.read_bytes()
    again = measured(work / "many", 2)
    return [
        (f"a PDF of {NUM_PAGES} pages on one core", f"{pdf.wall_s:.1f} s", "< 10 s"),
        ("its text by pypdfium2 alone, same core", f"{plain.wall_s:.1f} s; ingest is {pdf.wall_s / plain.wall_s:.1f} times that", ""),
        (f"{NUM_FILES:,} small files, two workers", f"{many.wall_s:.0f} s", "< 180 s"),
        (
            f"peak memory with {NUM_FEW:,} and with {NUM_FILES:,} files",
            f"{few.peak_bytes / 2**20:.0f} MiB, {many.peak_bytes / 2**20:.0f} MiB",
            "flat",
        ),
        (f"the {NUM_FILES:,} unchanged files again", f"{again.wall_s:.1f} s", "< 5 s"),
        ("the knowledge base after that", "same bytes" if knowledge.read_bytes() == before else "OTHER BYTES", "same"),
    ]  # fmt: skip


def report(rows: list[tuple[str, str, str]], load: float) -> str:
    """The rows as Markdown. load: of the machine before the first measurement."""
    return "\n".join(
        [
            "# What ingest costs",
            "",
            f"`python tests/benchmarks/ingest.py` at commit {commit()}, {hardware()}.",
            f"Load of the machine before: {load:.1f}.",
            "",
            "| | measured | aim |",
            "|---|---|---|",
            *(f"| {what} | {value} | {aim} |" for what, value, aim in rows),
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)  # the measured process
    parser.add_argument("--num-workers", type=int, default=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ingest:
        ingest_once(options.ingest, options.num_workers)
        return
    if not BASE.exists():
        raise SystemExit("models/base/tiny is missing: run `dvc repro base_model`")
    with tempfile.TemporaryDirectory(prefix="groundtune-bench-") as work:
        load = os.getloadavg()[0]
        text = report(measure(Path(work)), load)
    (ROOT / "reports/bench/ingest.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
