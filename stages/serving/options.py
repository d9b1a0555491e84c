"""Options that several commands have, in the same words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

Params = Callable[[str], Mapping[str, Any]]  # a domain's name ("": the configured one) -> params.yaml as it is for it

DomainName = Annotated[str, typer.Option("--domain", help="By its name in conf/domain; else the configured one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
