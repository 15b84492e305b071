"""Processes that watch each other through connections to rank 0, and strangers on that port."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from errors import UserError
from training import watch
from training.watch import Watch

HOST, SIZE = "127.0.0.1", 3


class Store:
    """Paddle's store between processes, between threads."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, text: str) -> None:
        self.values[key] = text.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]


@pytest.fixture
def lost() -> list[tuple[int, int]]:
    """(who noticed, who was lost), as it happens."""
    return []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def ranks(store: Store, lost: list[tuple[int, int]]) -> Iterator[list[Watch]]:
    """Rank 0 and rank 1 of three."""
    both = [_join(rank, store, lost) for rank in (0, 1)]
    yield both
    for one in both:
        one.leave()


def _join(rank: int, store: Store, lost: list[tuple[int, int]]) -> Watch:
    return Watch(rank, SIZE, HOST, store, lambda gone: lost.append((rank, gone)))


def _stranger(store: Store) -> socket.socket:
    port = int(store.get("watch").split()[0])
    return socket.create_connection((HOST, port), timeout=10)


def _secret(store: Store) -> bytes:
    return bytes.fromhex(store.get("watch").split()[1].decode())


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def _pass_barrier(ranks: list[Watch]) -> None:
    late: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda one=one: late.update({one.rank: one.barrier(10)}))
        for one in ranks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert late == {one.rank: [] for one in ranks}


def test_a_barrier_waits_for_everyone(
    ranks: list[Watch], store: Store, lost: list[tuple[int, int]]
) -> None:
    everyone = [*ranks, _join(2, store, lost)]
    for _ in range(3):
        _pass_barrier(everyone)
    everyone[2].leave()
    assert ranks[1].barrier(0.1) == [0]
    assert ranks[0].barrier(0.1) == [2]
    assert lost == []


def test_a_lost_process_is_noticed_and_one_that_leaves_is_not(
    ranks: list[Watch], store: Store, lost: list[tuple[int, int]]
) -> None:
    other = _join(2, store, lost)
    ranks[1].leave()
    next(iter(other.peers)).shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + 10
    while (0, 2) not in lost and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (0, 2) in lost
    assert 1 not in [gone for _, gone in lost]


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.0\r\nHost: somebody-else.example\r\n\r\n",
        bytes(32) + (2).to_bytes(4, "big"),
        b"secret" + (0).to_bytes(4, "big"),  # those of rank 0 itself, of one that is connected,
        b"secret" + (1).to_bytes(4, "big"),
        b"secret" + (3).to_bytes(4, "big"),  # and of one that is none
        b"secret" + (2**32 - 1).to_bytes(4, "big"),
    ],
    ids=["port scan", "wrong secret", "rank 0", "connected", "rank 3", "largest rank"],
)
def test_strangers_are_closed(
    greeting: bytes, ranks: list[Watch], store: Store, lost: list[tuple[int, int]]
) -> None:
    with _stranger(store) as connection:
        connection.sendall(greeting.replace(b"secret", _secret(store)))
        assert _is_closed(connection)
    other = _join(2, store, lost)
    _pass_barrier([*ranks, other])
    other.leave()
    assert lost == []


def test_strangers_that_leave_early_are_no_loss(
    ranks: list[Watch], store: Store, lost: list[tuple[int, int]]
) -> None:
    for greeting in (b"", b"\0\0\0\1", _secret(store), _secret(store) + b"\0\0\0"):
        with _stranger(store) as connection:
            connection.sendall(greeting)
    other = _join(2, store, lost)
    _pass_barrier([*ranks, other])
    other.leave()
    assert lost == []


def test_silent_and_slow_strangers_keep_nobody_waiting(
    ranks: list[Watch],
    store: Store,
    lost: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watch, "GREETING_TIMEOUT", 1.0)
    with caplog.at_level(logging.WARNING):
        strangers = [_stranger(store) for _ in range(watch.MAX_WAITING + 20)]
        slow = strangers[-1]
        started = time.monotonic()
        other = _join(2, store, lost)
        _pass_barrier([*ranks, other])
        assert time.monotonic() - started < 1.0
        assert all(_is_closed(silent) for silent in strangers[:20])  # above the limit
        with pytest.raises(OSError):
            while time.monotonic() - started < 10:
                slow.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - started < 4.0
        assert all(_is_closed(silent) for silent in strangers[:-1])
    for stranger in strangers:
        stranger.close()
    other.leave()
    assert lost == []
    assert len(caplog.messages) == 1 and f"connection from {HOST}" in caplog.text


def test_a_process_that_is_refused_says_so(ranks: list[Watch], store: Store) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+, does not accept .* as rank 1; start"):
        _join(1, store, [])


def test_rank_0_listens_on_one_address(ranks: list[Watch]) -> None:
    assert ranks[0].listener is not None
    assert ranks[0].listener.getsockname()[0] == HOST
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1, its address for the"):
        Watch(0, SIZE, "192.0.2.1", Store(), print)
