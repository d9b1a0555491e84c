"""Nothing is lost silently: read = kept + rejected, with a reason and a place for every rejection.

ledger = Ledger("clean_qa")
ledger.read()
ledger.reject("raw/qa.jsonl:17", "empty_answer")
ledger.metrics()   # {"num_read": 1, "num_kept": 0, "num_rejected": 1, "rejected": {"empty_answer": 1}, ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.jsonl import write_jsonl

EXAMPLES_IN_MESSAGE = 3


@dataclass
class Ledger:
    """Counts the records of one stage. Reasons are snake_case codes; `detail` is for people."""

    name: str
    num_read: int = 0
    rejections: list[dict[str, str]] = field(default_factory=list)

    def read(self, count: int = 1) -> None:
        self.num_read += count

    def reject(self, origin: str, reason: str, detail: str = "") -> None:
        """`origin` is where the record stands: `file:line`, or a record id."""
        self.rejections.append({"origin": origin, "reason": reason, "detail": detail})

    @property
    def num_rejected(self) -> int:
        return len(self.rejections)

    @property
    def num_kept(self) -> int:
        return self.num_read - self.num_rejected

    def metrics(self) -> dict[str, Any]:
        """The counts, as they stand in a stage's metrics.json."""
        reasons = Counter(r["reason"] for r in self.rejections)
        return {
            "num_read": self.num_read,
            "num_kept": self.num_kept,
            "num_rejected": self.num_rejected,
            "rejected": dict(sorted(reasons.items())),
        }

    def check(
        self,
        kept: int,
        max_rejected_share: float = 1.0,
        by_design: Collection[str] = (),
        setting: str = "max_rejected_share",
    ) -> None:
        """Raises DataError where counts do not add up, nothing was kept, or too large a share was rejected.

        by_design: reasons that say nothing about the quality of the records; they do not count in that share.
        setting: the name of the share in the configuration.
        """
        if kept != self.num_kept:
            raise DataError(f"{self.name}: {self.num_read} read, {self.num_rejected} rejected, but {kept} kept")
        if kept == 0:
            raise DataError(f"{self.name}: no record was kept of {self.num_read} read{self._examples()}")
        num_passed_over = sum(rejection["reason"] in by_design for rejection in self.rejections)
        num_read = self.num_read - num_passed_over
        share = (self.num_rejected - num_passed_over) / num_read
        if share > max_rejected_share:
            raise DataError(
                f"{self.name}: {share:.1%} of {num_read} records were rejected, "
                f"{setting} allows {max_rejected_share:.1%}{self._examples()}"
            )

    def write(self, path: Path) -> None:
        """Writes one JSON line per rejection: origin, reason, detail."""
        write_jsonl(path, self.rejections)

    def _examples(self) -> str:
        shown = [f"{r['origin']}: {r['reason']} {r['detail']}".rstrip() for r in self.rejections[:EXAMPLES_IN_MESSAGE]]
        more = self.num_rejected - len(shown)
        return "".join(f"\n  {line}" for line in shown) + (f"\n  ... and {more} more" if more > 0 else "")
