"""Many callers, one thread, three random models; every text is compared with the one decoded alone."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.workspace import Workspace
from stages.generation.batched_decoding import BatchedDecoder
from stages.generation.decoding import generate
from stages.serving.answering import Config
from stages.serving.local_engine import EngineBusyError, EngineError, LocalEngine
from stages.serving.models import Models

NUM_NEW = 24


@pytest.fixture
def models(config: Config, workspace: Workspace) -> Models:
    return Models(workspace, config.model, config.prompt, "world")


def asked(number: int) -> list[int]:
    """A prompt of the random model: bytes after four special tokens."""
    return [3, *(4 + byte for byte in f"About {number}?".encode() * (1 + number % 5)), 3]


def alone(models: Models, choice: str, number: int, num_new: int = NUM_NEW) -> str:
    with models.fresh().use(choice) as loaded:
        return generate(loaded.network, loaded.tokenizer, [asked(number)], num_new, 1)[0]


async def text_of(engine: LocalEngine, choice: str, number: int, num_new: int = NUM_NEW, **settings: Any) -> str:
    return "".join([piece.text async for piece in engine.stream(choice, asked(number), num_new, **settings)])


def run(models: Models, use: Callable[[LocalEngine], Awaitable[Any]], **settings: Any) -> Any:
    """`use` with an engine; afterwards nothing of it is left."""

    async def whole() -> Any:
        engine = LocalEngine(models, **settings)
        try:
            return await asyncio.wait_for(use(engine), 60)
        finally:
            await engine.close()
            assert engine.num_open == 0
            assert len(asyncio.all_tasks()) == 1

    found = asyncio.run(whole())
    assert not [thread for thread in threading.enumerate() if thread.name == "local-engine"]
    return found


def replace_adapter(workspace: Workspace, factor: float) -> None:
    """The LoRA of `tuned` with other weights, put into the place of the old one."""
    from safetensors.numpy import load_file, save_file

    folder = workspace.outputs / "models/world/rag_lora"
    other = shutil.copytree(folder, folder.with_name("other"))
    weights = other / "adapter_model.safetensors"
    save_file({name: factor * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    shutil.rmtree(folder)
    other.rename(folder)


def test_concurrent_requests_of_all_models_get_what_they_would_get_alone(models: Models) -> None:
    wanted = [(choice, number) for number in range(8) for choice in ("tuned", "book", "base")]
    expected = [alone(models, *one) for one in wanted]
    assert len(set(expected)) > 20

    async def use(engine: LocalEngine) -> list[str]:
        return await asyncio.gather(*[text_of(engine, *one) for one in wanted])

    assert run(models, use, max_batch_size=4) == expected


def test_requests_share_forward_passes(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = BatchedDecoder.step

    def counted(self: BatchedDecoder) -> Any:
        pieces = step(self)
        sizes.append(len(pieces))
        return pieces

    monkeypatch.setattr(BatchedDecoder, "step", counted)

    async def use(engine: LocalEngine) -> None:
        await engine.load("book")
        await asyncio.gather(*[text_of(engine, "book", number) for number in range(8)])

    run(models, use)
    assert max(sizes) == 8


def test_the_last_piece_says_why_and_how_many(models: Models) -> None:
    async def use(engine: LocalEngine) -> list[Any]:
        return [piece async for piece in engine.stream("book", asked(1), 5)]

    *before, last = run(models, use)
    assert [piece.finish_reason for piece in before] == [None] * len(before)
    assert (last.finish_reason, last.num_completion_tokens) == ("length", 5)


def test_drawn_text_follows_its_seed(models: Models) -> None:
    async def use(engine: LocalEngine) -> list[str]:
        seeds: list[int | None] = [1, 1, 2, None, None]
        return await asyncio.gather(*[text_of(engine, "book", 1, temperature=5.0, seed=seed) for seed in seeds])

    one, again, two, *other = run(models, use)
    assert one == again
    assert len({one, two, *other}) == 4


def test_choices_are_written_side_by_side_each_with_a_seed_of_its_own(models: Models) -> None:
    async def use(engine: LocalEngine) -> tuple[list[str], list[int], list[str]]:
        texts, order = [""] * 3, []
        async for piece in engine.stream("book", asked(1), 20, temperature=5.0, seed=2**63 - 2, num_choices=3):
            texts[piece.index] += piece.text
            order.append(piece.index)
        singly = [
            await text_of(engine, "book", 1, 20, temperature=5.0, seed=seed) for seed in (2**63 - 2, 2**63 - 1, 0)
        ]
        return texts, order, singly

    texts, order, singly = run(models, use)
    assert texts == singly
    assert len(set(texts)) == 3
    assert order.index(2) < max(place for place, index in enumerate(order) if index == 0)  # not one after the other


def test_who_leaves_takes_all_choices_along(models: Models) -> None:
    async def use(engine: LocalEngine) -> str:
        stream = engine.stream("book", asked(1), 400, num_choices=3)
        await anext(stream)
        waiting = asyncio.create_task(text_of(engine, "book", 2))
        await stream.aclose()
        return await waiting

    assert run(models, use, max_batch_size=3) == alone(models, "book", 2)


def test_what_was_read_for_one_model_is_nothing_to_another(models: Models, workspace: Workspace) -> None:
    """The same prompt for all three, and for one whose adapter was replaced."""

    async def use(engine: LocalEngine) -> list[str]:
        found = [await text_of(engine, choice, 4) for choice in ("book", "tuned", "base", "tuned")]
        replace_adapter(workspace, -2.0)
        return [*found, await text_of(engine, "tuned", 4)]

    old = [alone(models, choice, 4) for choice in ("book", "tuned", "base", "tuned")]
    found = run(models, use)
    assert found == [*old, alone(models, "tuned", 4)]
    assert len(set(found)) == 4


def test_a_caller_who_leaves_frees_the_place(models: Models) -> None:
    async def use(engine: LocalEngine) -> str:
        stream = engine.stream("book", asked(1), 400)
        await anext(stream)
        waiting = asyncio.create_task(text_of(engine, "book", 2))  # there is one place only
        await stream.aclose()
        return await waiting

    assert run(models, use, max_batch_size=1) == alone(models, "book", 2)


def test_a_task_that_is_cancelled_frees_the_place(models: Models) -> None:
    async def use(engine: LocalEngine) -> str:
        task = asyncio.create_task(text_of(engine, "book", 1, 400))
        await text_of(engine, "base", 1, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await text_of(engine, "book", 2)

    assert run(models, use, max_batch_size=1) == alone(models, "book", 2)


def test_an_error_of_the_model_reaches_all_its_callers_and_nobody_else(
    models: Models, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, broken = BatchedDecoder.step, [True]

    def failing(self: BatchedDecoder) -> Any:
        pieces = step(self)
        if broken[0] and len(pieces) == 3:
            broken[0] = False
            raise RuntimeError("CUDA error at secret/path")
        return pieces

    monkeypatch.setattr(BatchedDecoder, "step", failing)

    async def use(engine: LocalEngine) -> list[Any]:
        await engine.load("book")
        other = asyncio.create_task(text_of(engine, "base", 1))
        failed = await asyncio.gather(*[text_of(engine, "book", n) for n in range(3)], return_exceptions=True)
        return [*failed, await other, await text_of(engine, "book", 1)]

    *failed, other, later = run(models, use)
    assert [type(error) for error in failed] == [EngineError] * 3
    assert str(failed[0]) == "the model book failed: RuntimeError"  # not what the library says
    assert "secret/path" in caplog.text
    assert (other, later) == (alone(models, "base", 1), alone(models, "book", 1))


@pytest.mark.parametrize(
    ("choice", "prompt", "num_new", "error", "message"),
    [
        ("best", [5], 3, ConfigError, "'best' is not one of tuned, book, base"),
        ("book", [], 3, DataError, "at least one token"),
        ("book", [5] * 500, 13, DataError, "500 tokens and 13 new ones do not fit into the 512 tokens"),
        ("book", [5] * 90, 11, DataError, "do not fit into 100 tokens"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_engine_goes_on(
    models: Models, choice: str, prompt: list[int], num_new: int, error: type[Exception], message: str
) -> None:
    async def use(engine: LocalEngine) -> str:
        with pytest.raises(error, match=message):
            await anext(engine.stream(choice, prompt, num_new))
        return await text_of(engine, "book", 1)

    assert run(models, use, max_total_tokens=100) == alone(models, "book", 1)


def test_missing_files_are_named_and_picked_up_when_they_are_there(models: Models, workspace: Workspace) -> None:
    folder = workspace.outputs / "models/world/rag_lora"

    async def use(engine: LocalEngine) -> str:
        aside = folder.rename(folder.with_name("aside"))
        with pytest.raises(DataError, match=r"models/world/rag_lora.*dvc repro"):
            await engine.load("tuned")
        aside.rename(folder)
        return await text_of(engine, "tuned", 1)

    assert run(models, use) == alone(models, "tuned", 1)


def test_more_requests_than_may_be_open_are_refused(models: Models) -> None:
    async def use(engine: LocalEngine) -> str:
        stream = engine.stream("book", asked(1), 400)
        await anext(stream)
        with pytest.raises(EngineBusyError, match="1 requests are open"):
            await text_of(engine, "book", 2)
        await stream.aclose()
        return await text_of(engine, "book", 2)

    assert run(models, use, max_requests=1) == alone(models, "book", 2)


def test_closing_tells_those_who_wait_and_refuses_others(models: Models) -> None:
    async def use(engine: LocalEngine) -> None:
        waiting = asyncio.gather(*[text_of(engine, "book", n, 400) for n in range(3)], return_exceptions=True)
        await text_of(engine, "base", 1, 1)
        await engine.close()
        assert [str(error) for error in await waiting] == ["the engine was closed"] * 3
        with pytest.raises(EngineError, match="is closed"):
            await text_of(engine, "book", 1)

    run(models, use, max_batch_size=2)


def test_an_engine_that_nobody_asked_closes(models: Models) -> None:
    async def use(_: LocalEngine) -> None:
        pass

    run(models, use)


def test_new_requests_get_the_new_adapter_and_running_ones_finish_on_the_old(
    models: Models, workspace: Workspace
) -> None:
    old = [alone(models, "tuned", 1, 200), alone(models, "book", 1)]

    async def use(engine: LocalEngine) -> list[str]:
        running = engine.stream("tuned", asked(1), 200)
        first = await anext(running)
        replace_adapter(workspace, -2.0)
        new = await text_of(engine, "tuned", 1)
        rest = [piece.text async for piece in running]
        return ["".join([first.text, *rest]), await text_of(engine, "book", 1), new]

    *found, new = run(models, use)
    assert found == old
    assert new == alone(models, "tuned", 1)
    assert new != old[0][: len(new)]


def test_replaced_weights_are_taken_too(models: Models, workspace: Workspace) -> None:
    merged = workspace.outputs / "models/world/book_merged"

    async def use(engine: LocalEngine) -> list[str]:
        running = engine.stream("tuned", asked(1), NUM_NEW)
        pieces = [(await anext(running)).text]
        before = await text_of(engine, "book", 1)
        shutil.copy(workspace.outputs / "models/base/random/model.safetensors", merged)
        after = await text_of(engine, "book", 1)
        pieces += [piece.text async for piece in running]
        return ["".join(pieces), before, after, await text_of(engine, "tuned", 1)]

    old = [alone(models, "tuned", 1), alone(models, "book", 1)]
    *found, book, tuned = run(models, use)
    assert found == old
    assert book == alone(models, "book", 1) == alone(models, "base", 1)
    assert tuned == alone(models, "tuned", 1)
    assert len({*old, book, tuned}) == 4


def test_files_that_cannot_be_loaded_leave_the_old_model_in_place(
    models: Models, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = workspace.outputs / "models/world/rag_lora"
    old = alone(models, "tuned", 1)

    async def use(engine: LocalEngine) -> list[str]:
        found = [await text_of(engine, "tuned", 1)]
        kept = (folder / "adapter.json").read_text()
        (folder / "adapter.json").write_text(json.dumps({"prompt_hash": "of another prompt", "base_sha256": ""}))
        found += [await text_of(engine, "tuned", 1), await text_of(engine, "tuned", 1)]
        (folder / "adapter.json").write_text(kept)
        replace_adapter(workspace, -2.0)
        return [*found, await text_of(engine, "tuned", 1)]

    with caplog.at_level(logging.WARNING):
        *found, new = run(models, use)
    assert found == [old] * 3
    assert new == alone(models, "tuned", 1) != old
    warned = [record.message for record in caplog.records if "cannot be loaded" in record.message]
    assert len(warned) == 1 and "trained with prompt" in warned[0]
