"""Six benchmarks of one or two OpenAI-compatible servers, by default our own: speed, context, writing, coherence,
retrieval, the whole pipeline.

Measured over HTTP, as a client sees it. Our own server is started on a free port and stopped afterwards.

    reads   data/<domain>/{rag,index,knowledge.sqlite}; with our own server what `groundtune serve` reads
    writes  reports/<domain>/benchmark.{json,md,png}

    dvc repro benchmark/dvc.yaml       a pipeline of its own; with --force --single-item it measures again
    python -m stages.benchmark benchmark.only=[throughput]

Other servers: `groundtune bench --base-url http://127.0.0.1:8000/v1`.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from stages.benchmarking.measuring import measure
from stages.benchmarking.publishing import publish
from stages.benchmarking.settings import Config
from stages.core.errors import DataError
from stages.core.stage import stage_main
from stages.core.workspace import Workspace


def run(config: Config, workspace: Workspace) -> dict[str, Any]:
    """Measures, writes the report, and returns what stands in benchmark.json.

    Raises DataError after a run that was stopped, whose report is partial.
    """
    found = measure(config, workspace)
    command = shlex.join(["python", "-m", "stages.benchmark", *sys.argv[1:]])
    folder = workspace.write(f"reports/{config.chat.domain}/benchmark.json").parent
    values = publish(folder, found, config.chat.domain, command)
    if found.stopped:
        raise DataError(f"{found.stopped}; {folder / 'benchmark.md'} holds what was measured, the same command goes on")
    return values


main = stage_main(Config, run)

if __name__ == "__main__":
    main()
