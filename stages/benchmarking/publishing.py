"""Writes a benchmark as data, as a page and as a figure: benchmark.json, benchmark.md, benchmark.png."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.benchmarking.figure import draw
from stages.benchmarking.machine_facts import machine_facts
from stages.benchmarking.measuring import Benchmark
from stages.benchmarking.report import Context, report
from stages.core.atomic import write_json, write_text

NAME = "benchmark"


def publish(folder: Path, found: Benchmark, domain: str, command: str) -> dict[str, Any]:
    """Writes the three files into `folder`; returns what stands in benchmark.json."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{NAME}.tmp-{os.getpid()}.png"
    try:
        if has_figure := draw(temporary, found):
            os.replace(temporary, folder / f"{NAME}.png")
        else:
            (folder / f"{NAME}.png").unlink(missing_ok=True)
    finally:
        temporary.unlink(missing_ok=True)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    context = Context(domain, command.replace("`", "'"), machine_facts(), now, has_figure)
    values = {
        "command": command,
        "machine": context.machine,
        "measured_at": now,
        "stopped": found.stopped,
        "endpoints": {name: asdict(endpoint) for name, endpoint in found.endpoints.items()},
        "benchmarks": {name: section.to_json() for name, section in found.sections.items()},
        "skipped": found.skipped,
    }
    write_json(folder / f"{NAME}.json", values)
    write_text(folder / f"{NAME}.md", report(found, context))
    return values
