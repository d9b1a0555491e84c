"""What the server has done: counts, quantiles, the last queries; for /stats and, in Prometheus' format, /metrics."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stages.serving.proxy.settings import StatsSettings

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MINUTE_S = 60.0
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass
class Recent:
    """A chat, as the admin sees it. query: "" where settings do not ask for texts."""

    at: float
    model: str
    num_documents: int
    nearest: float | None
    query_chars: int
    query: str
    status: int = 200
    elapsed_s: float = 0.0
    num_completion_tokens: int = 0

    def to_row(self) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in vars(self).items()}


@dataclass
class Stats:
    """Everything is written from the event loop; nothing here waits."""

    settings: StatsSettings
    started_s: float = field(default_factory=time.monotonic)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_stream_errors: int = 0
    num_reload_errors: int = 0
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0

    def __post_init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        window = self.settings.window
        self._latencies: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self.retrieval_s: deque[float] = deque(maxlen=window)
        self.first_token_s: deque[float] = deque(maxlen=window)
        self.recent: deque[Recent] = deque(maxlen=self.settings.num_recent)
        self._tokens: deque[tuple[float, int]] = deque()  # of the last minute
        self.registry = CollectorRegistry()
        labels = ["endpoint", "status"]
        self._counter = Counter("groundtune_requests", "Requests answered.", labels, registry=self.registry)
        self._tokens_counter = Counter("groundtune_tokens", "Tokens of chats.", ["kind"], registry=self.registry)
        self._histogram = Histogram(
            "groundtune_request_seconds",
            "Time until the last byte.",
            ["endpoint"],
            registry=self.registry,
            buckets=BUCKETS_S,
        )

    def answered(self, endpoint: str, status: int, elapsed_s: float) -> None:
        self.requests[endpoint, status] += 1
        self._latencies[endpoint].append(elapsed_s)
        self._counter.labels(endpoint, str(status)).inc()
        self._histogram.labels(endpoint).observe(elapsed_s)

    def wrote(self, num_prompt_tokens: int, num_completion_tokens: int) -> None:
        self.num_prompt_tokens += num_prompt_tokens
        self.num_completion_tokens += num_completion_tokens
        self._forget_older()
        self._tokens.append((time.monotonic(), num_completion_tokens))
        self._tokens_counter.labels("prompt").inc(num_prompt_tokens)
        self._tokens_counter.labels("completion").inc(num_completion_tokens)

    def to_row(self, with_recent: bool) -> dict[str, Any]:
        """What /stats says of these."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for (endpoint, status), count in sorted(self.requests.items()):
            counts[endpoint][str(status)] = count
        return {
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "num_requests": counts,
            "num_stream_errors": self.num_stream_errors,
            "num_reload_errors": self.num_reload_errors,
            "latency_s": {endpoint: quantiles(times) for endpoint, times in sorted(self._latencies.items())},
            "retrieval_s": quantiles(self.retrieval_s),
            "first_token_s": quantiles(self.first_token_s),
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": self.num_completion_tokens,
            "tokens_per_s": round(self._tokens_of_last_minute() / min(MINUTE_S, max(1.0, self._uptime_s())), 2),
            "recent": [one.to_row() for one in reversed(self.recent)] if with_recent else None,
        }

    def prometheus(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def _uptime_s(self) -> float:
        return time.monotonic() - self.started_s

    def _tokens_of_last_minute(self) -> int:
        self._forget_older()
        return sum(count for _, count in self._tokens)

    def _forget_older(self) -> None:
        while self._tokens and self._tokens[0][0] < time.monotonic() - MINUTE_S:
            self._tokens.popleft()


def quantiles(times: Iterable[float]) -> dict[str, float]:
    """p50, p90, p99: the smallest time that so many are not above; {} of nothing."""
    ordered = sorted(times)
    if not ordered:
        return {}
    return {name: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 6) for name, q in QUANTILES.items()}
