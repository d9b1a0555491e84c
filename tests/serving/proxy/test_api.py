"""The API as its clients see it: documents, prompts, models, limits, bad requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.anyio


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def renderer(workspace: Any, config: Any) -> Any:
    from stages.generation.loading import load_tokenizer
    from stages.prompts.renderer import Renderer

    return Renderer(config.prompt, load_tokenizer(workspace.read("models/base/random")))


async def test_an_answer_comes_with_usage_and_sources(run_proxy: Any, words: str) -> None:
    async with run_proxy() as proxy:
        answer = (await proxy.ask("About 3?")).json()
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
    assert [source["siblings"] for source in answer["sources"]] == [["book-2", "book-3", "book-4"]]
    assert answer["sources"][0]["text"] == "Text 2.\nText 3.\nText 4."
    assert answer["rag"]["domain"] == "world" and answer["rag"]["num_documents"] == 1


async def test_the_server_behind_gets_the_token_ids_of_training(run_proxy: Any, renderer: Any) -> None:
    """By the chat template of its own tokenizer, with and without documents, and with turns before."""
    documents = ["Text 2.\nText 3.\nText 4."]
    async with run_proxy() as proxy:
        await proxy.ask("About 3?")
        await proxy.ask("About 7?")
        await proxy.ask("", messages=[user("One?"), assistant("Two."), user("About 3?")])
        with_documents, without, after_turns = (body["messages"] for body in proxy.upstream.bodies)
    for messages, question, texts in ((with_documents, "About 3?", documents), (without, "About 7?", [])):
        trained = renderer.tokenise(question, texts, "An answer.")
        ids = renderer.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == trained.input_ids[: -trained.num_completion_tokens]
    assert [message["role"] for message in after_turns] == ["system", "user", "assistant", "user"]
    assert "Answer from these." in after_turns[0]["content"]


async def test_the_upstream_gets_what_was_allowed_and_nothing_else(run_proxy: Any) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "stop": ["x"], "seed": 3, "max_tokens": 7, "user": "me", "n": 2}
    async with run_proxy() as proxy:
        answer = await proxy.ask(**options)
        await proxy.ask()
        first, second = proxy.upstream.bodies
    assert answer.json()["choices"][1]["message"]["content"] == "choice 1"
    assert {key: first[key] for key in ("temperature", "top_p", "stop", "seed", "max_tokens", "n")} == {
        key: options[key] for key in ("temperature", "top_p", "stop", "seed", "max_tokens", "n")
    }
    assert "user" not in first and first["model"] == "m"
    assert set(second) == {"model", "messages", "stream", "stream_options", "max_tokens", "temperature"}
    assert (second["temperature"], second["max_tokens"]) == (0.0, 8)  # as in evaluation


async def test_a_server_that_knows_no_n_is_asked_for_each_choice(run_proxy: Any, words: str) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = ["one_choice"]
        answer = (await proxy.ask(n=3, seed=2**63 - 2, temperature=1.0)).json()
        assert [(body.get("n"), body["seed"]) for body in proxy.upstream.bodies] == [
            (3, 2**63 - 2),
            (None, 2**63 - 1),
            (None, 0),
        ]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [words] * 3
    assert answer["usage"] == {"prompt_tokens": 50, "completion_tokens": 15, "total_tokens": 65}


async def test_tokens_are_counted_where_the_server_does_not(run_proxy: Any, renderer: Any, words: str) -> None:
    async with run_proxy() as proxy:
        proxy.upstream.script = ["no_usage", "no_usage"]
        whole = (await proxy.ask()).json()["usage"]
        stream = (await proxy.ask(stream=True, stream_options={"include_usage": True})).text
        messages = proxy.upstream.bodies[0]["messages"]
    num_prompt, num_words = len(renderer.prompt_ids(messages)), len(renderer.tokenizer(words)["input_ids"])
    counts = (num_prompt, num_words, num_prompt + num_words)
    assert tuple(whole.values()) == counts
    assert f'"usage":{json.dumps(whole)}'.replace(" ", "") in stream.replace(" ", "")


async def test_a_stream_brings_sources_first_and_usage_last(run_proxy: Any, words: str) -> None:
    async with run_proxy() as proxy:
        response = await proxy.ask(stream=True, stream_options={"include_usage": True})
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    first, *middle, usage, done = [line if line == "[DONE]" else json.loads(line) for line in lines]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert first["sources"][0]["id"] == "book-3" and first["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in middle) == words
    assert middle[-1]["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 55, "[DONE]")
    assert len({event["id"] for event in (first, *middle, usage)}) == 1


@pytest.mark.parametrize(
    ("rag", "texts"),
    [
        ({}, ["Text 2.\nText 3.\nText 4."]),
        ({"siblings": 0}, ["Text 3."]),
        ({"off": True}, []),
        ({"max_distance": 2.0, "top_k": 1, "siblings": 0}, ["Text 3."]),
        ({"max_distance": 2.0, "top_k": 3, "siblings": 0}, ["Text 3.", "Text 1.", "Text 2."]),
    ],
)
async def test_a_request_says_which_documents(run_proxy: Any, rag: dict[str, Any], texts: list[str]) -> None:
    async with run_proxy() as proxy:
        answer = (await proxy.ask("About 3?", rag=rag)).json()
        system = proxy.upstream.bodies[0]["messages"][0]["content"]
    assert [source["text"] for source in answer["sources"]] == texts
    assert system == "Answer." if not texts else all(text in system for text in texts)


async def test_a_whole_number_may_be_written_as_any_json_number(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        answer = await proxy.client.post(
            "/v1/chat/completions",
            content=b'{"model": "remote", "messages": [{"role": "user", "content": "About 3?"}], "max_tokens": 7.0}',
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, proxy.upstream.bodies[0]["max_tokens"]) == (200, 7)
        assert (await proxy.ask(max_tokens=7.5)).json()["error"]["param"] == "max_tokens"


async def test_sources_are_left_out_on_request(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        assert "sources" not in (await proxy.ask(rag={"sources": False})).json()


async def test_sets_of_documents(run_proxy: Any, config: Any) -> None:
    config.sets = {"books": "book", "others": "qa"}
    async with run_proxy() as proxy:
        found = (await proxy.ask(rag={"set": "others", "max_distance": 2.0})).json()["sources"]
        refused = await proxy.ask(rag={"set": "nothing"})
    assert {source["kind"] for source in found} == {"qa"}
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "rag.set")


@pytest.mark.parametrize("sources", [["qa"], ["qa-1"], ["book"], ["book", "qa-2"]])
async def test_only_from_these_kinds_or_documents(run_proxy: Any, sources: list[str]) -> None:
    options = {"sources": sources, "max_distance": 2.0, "top_k": 9}
    async with run_proxy() as proxy:
        asked = (await proxy.ask(rag=options)).json()["sources"]
        found = (await proxy.client.post("/v1/retrieve", json={"query": "About 3?", **options})).json()["documents"]
    names = {name for document in asked for name in (document["kind"], document["document"])}
    assert asked == found and asked and names & {"qa", "book"} == {source.partition("-")[0] for source in sources}
    assert all({document["kind"], document["document"]} & set(sources) for document in asked)


async def test_sources_that_are_not_there(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        refused = await proxy.ask(rag={"sources": ["book", "moon"]})
        elsewhere = await proxy.client.post("/v1/retrieve", json={"query": "x", "sources": ["moon"], "top_k": 2})
        none = await proxy.ask(rag={"sources": []})
    for response, param in ((refused, "rag.sources"), (elsewhere, "sources")):
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "unknown_source", param)
        assert "there is qa, book" in error["message"] and "moon" not in error["message"]
    assert none.status_code == 400


async def test_documents_make_room_and_the_clients_words_do_not(run_proxy: Any, config: Any) -> None:
    config.model.max_context_tokens = 110  # characters, nearly
    async with run_proxy() as proxy:
        tight = (await proxy.ask("About 3?")).json()["rag"]
        tighter = (await proxy.ask("About 3?", max_tokens=60)).json()["rag"]
        for stream in (False, True):
            refused = await proxy.ask("About 3? " + 150 * "x", stream=stream)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert (tight["num_documents"], tight["num_without_siblings"]) == (1, 1)
    assert (tighter["num_documents"], tighter["num_dropped_documents"]) == (0, 1)


async def test_a_server_that_takes_less_than_the_model(run_proxy: Any) -> None:
    models = {"remote": {"upstream": "server", "model": "m", "context_tokens": 60}}
    async with run_proxy(models=models) as proxy:
        fits = (await proxy.ask("About 3?", rag={"off": True})).status_code
        refused = await proxy.ask("About 3? " + 60 * "x", rag={"off": True}, stream=True)
        (card,) = (await proxy.client.get("/v1/models")).json()["data"]
        assert len(proxy.upstream.bodies) == 1
    assert (fits, refused.status_code, card["context_tokens"]) == (200, 400, 60)
    assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_a_clients_own_system_message(run_proxy: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, user("About 3?")]
    async with run_proxy() as proxy:
        refused = await proxy.ask("", messages=messages)
        alone = await proxy.ask("", messages=messages, rag={"off": True})
        assert proxy.upstream.bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert refused.json()["error"]["code"] == "system_not_supported" and alone.status_code == 200
    async with run_proxy(client_system="ignore") as proxy:
        ignored = (await proxy.ask("", messages=messages)).json()
        assert "Be brief." not in json.dumps(proxy.upstream.bodies)
    assert ignored["rag"]["num_ignored_messages"] == 1


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PARTS = [{"type": "text", "text": "About 3?"}, IMAGE]


async def test_images_reach_an_upstream_that_takes_them(run_proxy: Any) -> None:
    async with run_proxy(server={"images": True}) as proxy:
        await proxy.ask("", messages=[{"role": "user", "content": PARTS}])
        last = proxy.upstream.bodies[0]["messages"][-1]["content"]
        linked = {"type": "image_url", "image_url": {"url": "http://example.org/x.png"}}
        refused = await proxy.ask("", messages=[{"role": "user", "content": [*PARTS, linked]}])
    assert [part["type"] for part in last] == ["image_url", "text"]
    assert refused.json()["error"]["code"] == "invalid_image"  # nobody is made to fetch it


BAD_CHATS = [
    ({"model": "nobody"}, 404, "model_not_found", "model"),
    ({"model": ""}, 400, "string_too_short", "model"),
    ({"messages": []}, 400, "too_short", "messages"),
    ({"messages": [user("  ")]}, 400, "empty_question", "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "literal_error", "messages[0].role"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "literal_error", "messages[0].role"),
    ({"messages": [assistant("x")]}, 400, "wrong_role", "messages[0].role"),
    ({"messages": [user("x"), user("y")]}, 400, "wrong_role", "messages[1].role"),
    ({"messages": [user("x"), assistant("y")]}, 400, "wrong_role", "messages"),
    ({"messages": [user("x"), {"role": "system", "content": "y"}]}, 400, "wrong_role", "messages"),
    ({"messages": [user("x")] * 101}, 400, "too_many_messages", "messages"),
    ({"messages": [{"role": "user", "content": None}]}, 400, "string_type", "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        400,
        "union_tag_invalid",
        "messages[0].content[0]",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "missing", "messages[0].content[0].text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a\x00"}]}]},
        400,
        "control_character",
        "messages[0].content[0].text",
    ),
    ({"rag": {"sources": "book"}}, 400, "bool_type", "rag.sources"),
    ({"rag": {"sources": ["book", ""]}}, 400, "string_too_short", "rag.sources[1]"),
    ({"stop": ["a", 5]}, 400, "string_type", "stop[1]"),
    ({"messages": [{"role": "user", "content": PARTS}]}, 400, "images_not_supported", "messages[0].content"),
    ({"messages": [user("a\x00b")]}, 400, "control_character", "messages[0].content"),
    ({"messages": [user("a\x1b[31mb")]}, 400, "control_character", "messages[0].content"),
    ({"messages": "hello"}, 400, "list_type", "messages"),
    ({"temperature": "hot"}, 400, "float_type", "temperature"),
    ({"temperature": 3}, 400, "less_than_equal", "temperature"),
    ({"n": 5}, 400, "invalid_value", "n"),
    ({"max_tokens": 0}, 400, "greater_than_equal", "max_tokens"),
    ({"max_tokens": 2049}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 511}, 400, "context_length_exceeded", "messages"),
    ({"stream": "yes"}, 400, "bool_type", "stream"),
    ({"tools": []}, 400, "unknown_parameter", "tools"),
    ({"guided_regex": "x"}, 400, "unknown_parameter", "guided_regex"),
    ({"rag": {"top_k": 21}}, 400, "invalid_value", "rag.top_k"),
    ({"rag": {"siblings": 6}}, 400, "invalid_value", "rag.siblings"),
    ({"rag": {"top_n": 2}}, 400, "unknown_parameter", "rag.top_n"),
    ({"stop": ["a"] * 5}, 400, "too_long", "stop"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests_are_refused_by_name(run_proxy: Any, stream: bool) -> None:
    async with run_proxy() as proxy:
        for changes, status, code, param in BAD_CHATS:
            response = await proxy.ask(**{"stream": stream, **changes})
            error = response.json()["error"]
            assert (response.status_code, code or error["code"], param or error["param"]) == (
                status,
                error["code"],
                error["param"],
            ), changes
        assert proxy.upstream.bodies == []


RAW = [
    (b"{", 400, "invalid_json"),
    (b"", 400, None),
    (b"[]", 400, None),
    (b"\xff\xfe", 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'{"a":' * 100_000, 400, "invalid_json"),
    (b'{"model": ' + b"9" * 10_000 + b"}", 400, "invalid_json"),
    (b'{"model": "remote", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', 400, None),
    (b'{"model": "remote", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_unicode"),
    (
        b'{"model": "remote", "messages": [{"role": "user", "content": [{"type": "text", "text": "\\ud800"}]}]}',
        400,
        "invalid_unicode",
    ),
    (b'{"model": "' + b"x" * 1_000_001 + b'"}', 413, "body_too_large"),
]


async def test_what_is_no_request(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        for body, status, code in RAW:
            headers = {"Content-Type": "application/json"}
            response = await proxy.client.post("/v1/chat/completions", content=body, headers=headers)
            error = response.json()["error"]
            assert (response.status_code, code or error["code"]) == (status, error["code"]), body[:40]
            assert len(response.text) < 500

        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rsplit(":", 1)[1]))
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 20)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 413")
        writer.transport.abort()
        text = await proxy.client.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})
        assert (text.status_code, text.json()["error"]["code"]) == (415, "not_json")
        assert (await proxy.client.get("/v1/chat/completions")).json()["error"]["code"] == "wrong_method"
        assert (await proxy.client.get("/v1/completions")).json()["error"]["code"] == "unknown_path"
        assert (await proxy.client.get("/version")).status_code == 404  # the server's own paths are not passed on


async def test_the_schema_states_the_configured_limits(run_proxy: Any) -> None:
    async with run_proxy(limits={"max_choices": 3, "max_inputs": 5}) as proxy:
        schemas = (await proxy.client.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["n"]["anyOf"][0]["maximum"] == 3
    assert schemas["PredictRequest"]["properties"]["pairs"]["maxItems"] == 5


async def test_a_failure_of_ours_tells_nothing(run_proxy: Any, monkeypatch: Any, secret: str, caplog: Any) -> None:
    async def fail(name: str) -> Any:
        raise RuntimeError(secret)

    async with run_proxy() as proxy:
        monkeypatch.setattr(proxy.service.catalogue, "entry", fail)
        response = await proxy.ask()
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert secret not in response.text and "RuntimeError" in caplog.text


async def test_models_and_retrieval(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        models = (await proxy.client.get("/v1/models")).json()["data"]
        one = (await proxy.client.get("/v1/models/tuned")).json()
        none = await proxy.client.get("/v1/models/other")
        found = (await proxy.client.post("/v1/retrieve", json={"query": "About 3?", "siblings": 0})).json()
        elsewhere = await proxy.client.post("/v1/retrieve", json={"query": "x", "domain": "moon"})
        blank = await proxy.client.post("/v1/retrieve", json={"query": " "})
        escape = await proxy.client.post("/v1/retrieve", json={"query": "a\x1b[2J"})
    assert [(model["id"], model["upstream"]) for model in models] == [("remote", "server"), ("tuned", "local")]
    assert one == models[1] and none.status_code == 404
    assert [(d["id"], d["distance"], d["text"]) for d in found["documents"]] == [("book-3", 0.0, "Text 3.")]
    assert elsewhere.json()["error"]["code"] == "domain_not_found" and blank.status_code == 400
    assert [r.json()["error"]["code"] for r in (blank, escape)] == ["empty_text", "control_character"]


async def test_the_model_in_this_process_answers_like_ask(run_proxy: Any, answerer: Any) -> None:
    expected = await asyncio.to_thread(answerer.answer, "About 3?", "tuned")
    async with run_proxy() as proxy:
        answers = await asyncio.gather(*(proxy.ask("About 3?", model="tuned") for _ in range(4)))
    for answer in answers:
        assert answer.json()["choices"][0]["message"]["content"].strip() == expected.text
        assert answer.json()["usage"]["prompt_tokens"] == len(expected.request.prompt_ids)


async def test_stats_and_metrics_count_and_show_no_text(run_proxy: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GROUNDTUNE_ADMIN_KEY", "the-admins-key")
    async with run_proxy() as proxy:
        await proxy.ask("About 3?")
        await proxy.ask(model="nobody")
        await proxy.client.get("/somewhere/secret")
        stats = (await proxy.client.get("/stats")).json()
        metrics = (await proxy.client.get("/metrics")).text
        admin = await proxy.client.get("/stats", headers={"Authorization": "Bearer the-admins-key"})
    assert stats["num_requests"] == {"/v1/chat/completions": {"200": 1, "404": 1}, "other": {"404": 1}}
    assert stats["chunks"] == {"world": 9} and stats["completion_tokens"] == 5
    assert stats["recent"] is None and "About 3" not in json.dumps(stats) + metrics
    (recent,) = admin.json()["recent"]
    assert (recent["num_documents"], recent["nearest"], recent["query"], recent["query_chars"]) == (1, 0.0, "", 8)
    assert 'groundtune_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in metrics


async def test_recent_queries_with_text_where_settings_say_so(run_proxy: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GROUNDTUNE_ADMIN_KEY", "the-admins-key")
    async with run_proxy(stats={"query_text": True}) as proxy:
        await proxy.ask("About 3?")
        admin = await proxy.client.get("/stats", headers={"Authorization": "Bearer the-admins-key"})
        assert admin.json()["recent"][0]["query"] == "About 3?"
        assert (await proxy.client.get("/stats")).json()["recent"] is None


async def test_queries_that_come_together_are_embedded_together(run_proxy: Any) -> None:
    async with run_proxy() as proxy:
        retriever = proxy.service.catalogue.domains["world"].retriever
        batches: list[int] = []
        encode = retriever.finder.encoder.encode_queries

        def counted(texts: list[str]) -> np.ndarray:
            batches.append(len(texts))
            return encode(texts)

        retriever.finder.encoder.encode_queries = counted
        await asyncio.gather(*(proxy.ask(f"About {n % 7}?") for n in range(20)))
        assert sum(batches) == 7  # each query once
        assert len(batches) < 7
        assert (retriever.num_embedded, retriever.num_cached) == (7, 13)


async def test_choices_of_a_model_in_this_process_are_written_side_by_side(run_proxy: Any) -> None:
    asked = {"model": "tuned", "n": 3, "temperature": 2.0, "seed": 4, "max_tokens": 12}
    async with run_proxy() as proxy:
        answer = (await proxy.ask(**asked)).json()
        again = (await proxy.ask(**asked)).json()
        last = (await proxy.ask(**{**asked, "n": 1, "seed": 6})).json()
        streamed = await proxy.ask(**asked, stream=True)
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert len(set(texts)) == 3 and texts[2] == last["choices"][0]["message"]["content"]
    parts = [choice for event in events[1:] for choice in event["choices"]]
    for index in range(3):
        assert "".join(part["delta"].get("content", "") for part in parts if part["index"] == index) == texts[index]
    assert answer["usage"]["completion_tokens"] > last["usage"]["completion_tokens"]
    assert answer["usage"]["prompt_tokens"] == last["usage"]["prompt_tokens"]


async def test_what_never_fits_into_the_batch_is_refused_by_name(run_proxy: Any) -> None:
    local = {"kind": "local", "max_total_tokens": 60}
    server = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}
    async with run_proxy(upstreams={"local": local, "server": server}) as proxy:
        for stream in (False, True):
            refused = await proxy.ask(model="tuned", stream=stream)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert "do not fit into 60 tokens" in refused.json()["error"]["message"]
        small = await proxy.ask("Hi", model="tuned", rag={"off": True}, max_tokens=2)
    assert small.status_code == 200
