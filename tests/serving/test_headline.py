from __future__ import annotations

from stages.serving.headline import HEADLINES, MODELS, headline_rows


def number(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": 96}


def test_rows_hold_value_interval_and_n_and_say_what_was_not_measured() -> None:
    metrics = {
        "answers": {"tuned_docs": {"exact_match": number(0.9, 0.85, 0.9444)}},
        "prompt": {"parity": number(1, 1, 1)},
    }
    rows = {label: rest for label, *rest in headline_rows(metrics)}
    assert len(rows) == len(MODELS) + len(HEADLINES)
    assert rows["tuned + documents: exact match"] == ["0.900", "0.850 to 0.944", "96"]
    assert rows["prompt parity"] == ["1.000", "1.000 to 1.000", "96"]
    assert rows["base: exact match"] == ["not measured", "", ""]
