"""The store on a Chroma server: one is really started."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port

from stages.core.errors import ConfigError, DataError
from stages.core.schema import ChromaServer, Retrieval
from stages.retrieval import chroma_server
from stages.retrieval.chroma_server import ChromaServerStore
from stages.retrieval.index import Index
from stages.retrieval.search import Searcher
from tests.retrieval.test_search import brief, random_index

START_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    folder, port = tmp_path_factory.mktemp("chroma"), free_port()
    command = [Path(sys.executable).with_name("chroma"), "run", "--path", folder / "db", "--host", "127.0.0.1"]
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield ChromaServer(port=port)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(START_S * 4):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text())


def client_of(server: ChromaServer) -> Any:
    return chroma_server._connect(server, {})


def collection_of(server: ChromaServer, index: Index) -> Any:
    return client_of(server).get_collection(f"groundtune-{index.hash[:32]}", embedding_function=None)


@pytest.mark.parametrize("kinds", [None, ["book", "article"], ["qa"]])
@pytest.mark.parametrize("limit", [None, 0.2])
def test_the_hits_are_those_of_the_store_on_this_machine(
    server: ChromaServer, tmp_path: Path, kinds: list[str] | None, limit: float | None
) -> None:
    index, queries = random_index(300, seed=1), random_index(40, seed=2).vectors
    found = [
        Searcher(index, retrieval, tmp_path).search(queries, [""] * len(queries), 5, kinds, limit)
        for retrieval in (Retrieval(store="chroma_server", server=server), Retrieval(store="chroma"))
    ]
    assert [brief(hits) for hits in found[0]] == [brief(hits) for hits in found[1]]
    assert any(found[0])


def test_filled_once_and_older_ones_stay(server: ChromaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = random_index(40, seed=11), random_index(40, seed=12)
    ChromaServerStore(first, server)
    ChromaServerStore(second, server)
    monkeypatch.setattr(chroma_server, "add_entries", lambda *_: pytest.fail("filled again"))
    for index in (first, second):
        ChromaServerStore(index, server)
    assert {f"groundtune-{index.hash[:32]}" for index in (first, second)} <= {
        collection.name for collection in client_of(server).list_collections()
    }


def test_a_filling_that_was_killed_is_completed(server: ChromaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    index = random_index(60, seed=21)
    monkeypatch.setattr(chroma_server, "MAX_FLOATS", 16 * 10)  # ten vectors a request
    whole = chroma_server.add_entries

    def killed(collection: Any, index: Index, groups: list[list[int]], size: int) -> None:
        whole(collection, index, groups[: 2 * size], size)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(chroma_server, "add_entries", killed)
        ChromaServerStore(index, server)
    assert collection_of(server, index).count() == 20
    store = ChromaServerStore(index, server)
    assert collection_of(server, index).count() == len(store._groups) > 20
    entries = store.nearest(index.vectors[:1], 1, None)[0]
    np.testing.assert_array_equal(index.vectors[entries[0]], index.vectors[0])


def test_two_may_fill_it_at_once(server: ChromaServer) -> None:
    index = random_index(200, seed=31)
    stores: list[ChromaServerStore] = []
    threads = [threading.Thread(target=lambda: stores.append(ChromaServerStore(index, server))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 3
    assert collection_of(server, index).count() == len(stores[0]._groups)


def test_other_vectors_under_its_name_are_noticed(server: ChromaServer) -> None:
    index = random_index(30, seed=41)
    num = len(ChromaServerStore(index, server)._groups)
    collection = collection_of(server, index)
    collection.update(ids=["0"], embeddings=-index.vectors[:1])
    with pytest.raises(DataError, match="holds other vectors than the index"):
        ChromaServerStore(index, server)
    collection.update(ids=["0"], embeddings=index.vectors[:1])
    collection.add(ids=["more"], embeddings=index.vectors[:1], metadatas=[{"kind": "qa"}])
    with pytest.raises(DataError, match=f"holds {num + 1} vectors, the index has {num}; delete it there"):
        ChromaServerStore(index, server)


def test_another_dimension_under_its_name_is_noticed(server: ChromaServer) -> None:
    index, other = random_index(30, seed=51), random_index(30, seed=52, dimension=8)
    collection = client_of(server).create_collection(f"groundtune-{index.hash[:32]}", embedding_function=None)
    collection.add(ids=["0"], embeddings=other.vectors[:1], metadatas=[{"kind": "qa"}])
    with pytest.raises(DataError, match=r"dimension"):
        ChromaServerStore(index, server)


def test_a_collection_that_goes_while_we_search(server: ChromaServer) -> None:
    index = random_index(20, seed=61)
    store = ChromaServerStore(index, server)
    client_of(server).delete_collection(f"groundtune-{index.hash[:32]}")
    with pytest.raises(DataError, match="is gone; start again to fill it anew"):
        store.nearest(index.vectors[:1], 1, None)


def test_no_server(tmp_path: Path) -> None:
    retrieval = Retrieval(store="chroma_server", server=ChromaServer(port=free_port()))
    with pytest.raises(DataError, match=r"http://127.0.0.1:\d+: no Chroma server.*retrieval=chroma"):
        Searcher(random_index(5, seed=1), retrieval, tmp_path)


def test_a_server_that_never_answers() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = ChromaServer(port=listener.getsockname()[1], timeout_s=0.2)
        with pytest.raises(DataError, match="no Chroma server"):
            ChromaServerStore(random_index(5, seed=1), server)


class _Refusing(http.server.BaseHTTPRequestHandler):
    seen: list[str] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("X-Chroma-Token", ""))
        self.send_response(401)
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


def test_the_key_comes_from_the_environment_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    index = random_index(5, seed=1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as refusing:
        threading.Thread(target=refusing.serve_forever, args=(0.02,), daemon=True).start()
        server = ChromaServer(port=refusing.server_port, auth_header="X-Chroma-Token", auth_env="CHROMA_KEY")
        monkeypatch.delenv("CHROMA_KEY", raising=False)
        with pytest.raises(ConfigError, match="the environment has no CHROMA_KEY"):
            ChromaServerStore(index, server)
        monkeypatch.setenv("CHROMA_KEY", "sk-secret")
        with pytest.raises(DataError, match="401") as error:
            ChromaServerStore(index, server)
        refusing.shutdown()
    assert _Refusing.seen == ["sk-secret"]
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 0}, "port a number"),
        ({"host": "http://here"}, "host is a name"),
        ({"timeout_s": 0}, "timeout_s above 0"),
        ({"auth_env": "sk-secret"}, "give the name of an environment variable"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ChromaServer(**values)
    assert "sk-secret" not in str(error.value)
