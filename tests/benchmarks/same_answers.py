"""Whether another server answers as the model in process does: the demo's test questions through two proxies.

    groundtune serve --port 8125 &                                          # the model in process
    groundtune vllm demo/rag --run &                                        # or llama-server, transformers serve, ...
    groundtune serve --port 8124 --upstream http://127.0.0.1:8000/v1 --upstream-model demo-rag \
        --files models/export/demo/rag &
    python tests/benchmarks/same_answers.py http://127.0.0.1:8125/v1 tuned http://127.0.0.1:8124/v1 demo-rag

Greedy, whole and streamed. Needs data/demo/rag/test.jsonl. Prints counts; results stand in reports/bench/servers.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import openai

from stages.core.jsonl import read_jsonl

QUESTIONS = Path(__file__).resolve().parents[2] / "data/demo/rag/test.jsonl"


def whole(client: openai.OpenAI, model: str, question: str) -> tuple[str, Any, int]:
    """Text, sources, tokens of the prompt."""
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    assert answer.model_extra and answer.usage
    return answer.choices[0].message.content or "", answer.model_extra["sources"], answer.usage.prompt_tokens


def streamed(client: openai.OpenAI, model: str, question: str) -> str:
    messages: Any = [{"role": "user", "content": question}]
    chunks = client.chat.completions.create(model=model, messages=messages, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word in ("url", "model", "other_url", "other_model"):
        parser.add_argument(word)
    options = parser.parse_args()
    here, there = (openai.OpenAI(base_url=u, api_key="none", max_retries=0) for u in (options.url, options.other_url))
    questions = [row["question"] for row in read_jsonl(QUESTIONS)]
    same = Counter[str]()
    for question in questions:
        mine, other = whole(here, options.model, question), whole(there, options.other_model, question)
        same.update(
            name for name, a, b in zip(("text", "sources", "prompt tokens"), mine, other, strict=True) if a == b
        )
        same["streamed text"] += streamed(there, options.other_model, question) == mine[0]
    print(", ".join(f"same {name} {count} of {len(questions)}" for name, count in same.items()))


if __name__ == "__main__":
    main()
