"""Runs the stage with a configuration from a JSON file, to be killed.    python killed_generation.py <folder> <json>"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stages.core.config import parse_section
from stages.core.workspace import Workspace
from stages.generate_sft import Config, run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    values = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    run(parse_section(Config, values, "generate_sft"), Workspace(inputs=folder, outputs=folder))
