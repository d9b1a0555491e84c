"""Who may ask: keys, and the checks that keep web pages of others from using a server on this machine.

A page that is open in a browser can send requests to 127.0.0.1, and by DNS rebinding (a name of its own that
resolves to 127.0.0.1) even read the answers. So `Host` has to be a name of this server, and `Origin`, which browsers
add, one that was allowed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from stages.core.errors import ConfigError
from stages.serving.proxy.errors import ApiError
from stages.serving.proxy.settings import Config, key_from

MIN_KEY_CHARS = 20
MIN_KEY_BITS = 80
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
NEW_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


@dataclass(frozen=True)
class Keys:
    """ "" where there is none."""

    api: str
    admin: str

    def is_admin(self, authorization: str) -> bool:
        return bool(self.admin) and _equal(_token(authorization), self.admin)

    def is_client(self, authorization: str) -> bool:
        """Whether requests with this header are answered; the admin key is a client's key too."""
        if not self.api:
            return True
        allowed = _equal(_token(authorization), self.api)
        return self.is_admin(authorization) or allowed


def read_keys(config: Config) -> Keys:
    """The keys of the environment. ConfigError where an address other than loopback has none, or one to be guessed."""
    keys = Keys(key_from(config.api_key_env), key_from(config.admin_key_env))
    if keys.admin and keys.admin == keys.api:
        raise ConfigError(f"{config.admin_key_env}: the same as {config.api_key_env}; make another: {NEW_KEY}")
    if config.is_loopback:
        return keys
    variable = config.api_key_env or "serve.api_key_env"
    if not keys.api:
        raise ConfigError(f"serve.host {config.host}: others can reach it, so {variable} must hold a key: {NEW_KEY}")
    for name, key in ((variable, keys.api), (config.admin_key_env, keys.admin)):
        if key and (len(key) < MIN_KEY_CHARS or entropy_bits(key) < MIN_KEY_BITS):
            raise ConfigError(f"{name}: too easy to guess for an address that others can reach; make one: {NEW_KEY}")
    return keys


def entropy_bits(key: str) -> float:
    """Shannon entropy of the key's own characters, times its length: an upper bound that words and runs stay below."""
    counts = Counter(key).values()
    return -sum(count * math.log2(count / len(key)) for count in counts)


@dataclass(frozen=True)
class Visitors:
    """hosts: names by which this server may be called; None: any, as a key is needed anyway. origins: of web pages."""

    hosts: frozenset[str] | None
    origins: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> Visitors:
        if not config.is_loopback and not config.allowed_hosts:
            return cls(None, frozenset(config.allowed_origins))
        names = {name.lower() for name in (*LOOPBACK_NAMES, config.host, *config.allowed_hosts)}
        return cls(frozenset(names), frozenset(config.allowed_origins))

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises ApiError: 421 for a name that is not ours, 403 for a page that was not allowed."""
        if self.hosts is not None and _host_name(headers.get("host", "")) not in self.hosts:
            raise ApiError(421, "unknown_host", "this server does not go by that name; see serve.allowed_hosts")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins:
            raise ApiError(403, "unknown_origin", "this web page may not call the server; see serve.allowed_origins")


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _equal(given: str, expected: str) -> bool:
    """In constant time, also for keys of different lengths."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, expected))
    return hmac.compare_digest(*digests)
