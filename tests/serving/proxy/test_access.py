"""Keys, addresses, names of hosts, web pages."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from stages.core.errors import ConfigError
from stages.serving.proxy.auth import Visitors, entropy_bits, read_keys
from stages.serving.proxy.errors import ApiError

GOOD = "hY3kq0ZVb1x-9PmTfA2LrXw7sJdUeC5N"


@pytest.mark.parametrize(
    "key", ["", "short", "password123password123", "a" * 64, "abcabcabcabcabcabcabcabcabc", "12345678901234567890"]
)
def test_another_address_demands_a_key_that_cannot_be_guessed(make_settings: Any, monkeypatch: Any, key: str) -> None:
    monkeypatch.setenv("GROUNDTUNE_API_KEY", key)
    with pytest.raises(ConfigError, match="GROUNDTUNE_API_KEY") as error:
        read_keys(make_settings(host="0.0.0.0"))
    assert not key or key not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.53"])
def test_loopback_needs_none(make_settings: Any, host: str) -> None:
    assert read_keys(make_settings(host=host)).api == ""


def test_generated_keys_are_good_enough(make_settings: Any, monkeypatch: Any) -> None:
    for make in (secrets.token_urlsafe, secrets.token_hex):
        assert min(entropy_bits(make(32)) for _ in range(200)) > 100
    monkeypatch.setenv("GROUNDTUNE_API_KEY", GOOD)
    keys = read_keys(make_settings(host="0.0.0.0"))
    assert keys.is_client(f"Bearer {GOOD}") and keys.is_client(f"bearer  {GOOD}")
    for header in ("", GOOD, f"Basic {GOOD}", "Bearer", f"Bearer {GOOD}x", "Bearer \udcff"):
        assert not keys.is_client(header)


def test_one_key_is_not_both(make_settings: Any, monkeypatch: Any) -> None:
    for name in ("GROUNDTUNE_API_KEY", "GROUNDTUNE_ADMIN_KEY"):
        monkeypatch.setenv(name, GOOD)
    with pytest.raises(ConfigError, match="GROUNDTUNE_ADMIN_KEY"):
        read_keys(make_settings())


def test_a_key_that_no_header_carries(make_settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GROUNDTUNE_API_KEY", f"{GOOD}\n")
    with pytest.raises(ConfigError, match="GROUNDTUNE_API_KEY") as error:
        read_keys(make_settings())
    assert GOOD not in str(error.value)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8080"}, 0),
        ({"host": "LOCALHOST"}, 0),
        ({"host": "[::1]:8080"}, 0),
        ({"host": "chat.example.org"}, 0),
        ({"host": "evil.example.com:8080"}, 421),
        ({"host": "127.0.0.1.evil.example.com"}, 421),
        ({"host": ""}, 421),
        ({}, 421),
        ({"host": "[::1"}, 421),
        ({"host": "localhost", "origin": "https://page.example.org"}, 0),
        ({"host": "localhost", "origin": "https://evil.example.com"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
    ],
)
def test_names_and_pages(make_settings: Any, headers: dict[str, str], status: int) -> None:
    config = make_settings(allowed_hosts=["chat.example.org"], allowed_origins=["https://page.example.org"])
    try:
        Visitors.of(config).check(headers)
    except ApiError as error:
        assert error.status == status
    else:
        assert status == 0


@pytest.mark.anyio
async def test_keys_guard_everything_but_health(run_proxy: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GROUNDTUNE_API_KEY", GOOD)
    monkeypatch.setenv("GROUNDTUNE_ADMIN_KEY", GOOD[::-1])
    async with run_proxy() as proxy:
        for path in ("/v1/models", "/stats", "/metrics", "/v1/nothing"):
            refused = await proxy.client.get(path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await proxy.ask()).status_code == 401
        for path in ("/health", "/docs", "/openapi.json"):
            assert (await proxy.client.get(path)).status_code == 200
        for key in (GOOD, GOOD[::-1]):
            proxy.client.headers["Authorization"] = f"Bearer {key}"
            assert (await proxy.ask()).status_code == 200
            assert ((await proxy.client.get("/stats")).json()["recent"] is None) == (key == GOOD)
        assert all(GOOD not in head and "authorization" not in head.lower() for head in proxy.upstream.headers)


@pytest.mark.anyio
async def test_a_page_of_others_gets_nothing(run_proxy: Any) -> None:
    async with run_proxy(allowed_origins=["https://page.example.org"]) as proxy:
        rebound = await proxy.client.get("/v1/models", headers={"Host": "evil.example.com"})
        foreign = await proxy.client.get("/v1/models", headers={"Origin": "https://evil.example.com"})
        ours = await proxy.client.get("/v1/models", headers={"Origin": "https://page.example.org"})
    assert (rebound.status_code, foreign.status_code, ours.status_code) == (421, 403, 200)
    assert "access-control-allow-origin" not in foreign.headers
    assert ours.headers["access-control-allow-origin"] == "https://page.example.org"


@pytest.mark.anyio
async def test_the_upstreams_key_comes_from_the_environment(
    run_proxy: Any, monkeypatch: Any, make_service: Any
) -> None:
    with pytest.raises(ConfigError, match="VLLM_API_KEY is not set"):
        make_service(server={"api_key_env": "VLLM_API_KEY"})
    monkeypatch.setenv("VLLM_API_KEY", GOOD)
    async with run_proxy(server={"api_key_env": "VLLM_API_KEY"}) as proxy:
        answer = await proxy.ask()
        assert f"Bearer {GOOD}" in proxy.upstream.headers[0]
    assert GOOD not in answer.text
