"""Answers that were given before: in memory, in a folder, or in redis.

A cache that fails is as good as none: the request is answered without.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any, Protocol


class Cache(Protocol):
    """Bytes by a key; may lose any at any time, and may raise when it is out of order."""

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""

    def put(self, key: str, value: bytes) -> None:
        """Keep a value."""


def key_of(identity: dict[str, Any], request: dict[str, Any]) -> str:
    """The name of an answer: SHA-256 of all that decides it.

    Args:
        identity: weights, tokenizer, configuration, version and dtype.
        request: every field, the defaults too.
    """
    text = json.dumps([identity, request], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Memory:
    """The answers used last, `size` bytes at most."""

    def __init__(self, size: int = 64 << 20):
        self.size = size
        self._used = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; the ones not asked for longest go."""
        with self._lock:
            self._used -= len(self._values.pop(key, b""))
            self._values[key] = value
            self._used += len(value)
            while self._used > self.size:
                _, oldest = self._values.popitem(last=False)
                self._used -= len(oldest)


class Folder:
    """A folder on a disk (diskcache), which several servers may share."""

    def __init__(self, path: Path, ttl: int):
        import diskcache

        class Bytes(diskcache.Disk):
            """Bytes as they are: what a file claims to be a pickle is not loaded."""

            def fetch(self, mode: int, filename: str, value: Any, read: bool) -> Any:
                if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
                    raise ValueError(f"{path}: an entry that is not bytes; empty the folder")
                return super().fetch(mode, filename, value, read)

        self.ttl = ttl
        self._store = diskcache.Cache(str(path), disk=Bytes, size_limit=1 << 30)

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        value: bytes | None = self._store.get(key)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a value for the time to live."""
        self._store.set(key, value, expire=self.ttl)


class Redis:
    """A redis server, which several servers may share."""

    def __init__(self, url: str, ttl: int):
        import redis

        self.ttl = ttl
        wait = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
        self._store = redis.Redis.from_url(url, **wait)

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        value: bytes | None = self._store.get(f"textdiff:{key}")  # type: ignore[assignment]
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a value for the time to live."""
        self._store.set(f"textdiff:{key}", value, ex=self.ttl)


def opened(where: str, ttl: int) -> Cache | None:
    """The cache that a command line names: "none", "memory", "redis://..." or a folder."""
    if where == "none":
        return None
    if where == "memory":
        return Memory()
    if where.startswith(("redis://", "rediss://", "unix://")):
        return Redis(where, ttl)
    return Folder(Path(where), ttl)
