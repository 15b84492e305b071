"""Barriers, and detection of a process that ends, on any machine: each process holds a connection
to rank 0, which the kernel closes when the process ends. A launcher sees only the processes of its
own machine; Paddle notices a loss only in an all-reduce."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

_ARRIVED, _LEAVES = b"m", b"."
# A machine that vanishes without closing its connections is detected after 15 + 4 * 15 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Watch:
    """The connections of one process: of rank 0 to all others, of these to rank 0. host: of rank 0.
    store: shared, has set(key, text) and get(key), which waits for the key. on_loss: called in a
    thread with the rank of a process that ended without `leave`."""

    def __init__(
        self, rank: int, size: int, host: str, store: Any, on_loss: Callable[[int], None]
    ) -> None:
        self.rank, self.on_loss, self.has_left, self.barriers = rank, on_loss, False, 0
        # rank -> barriers that it has reached
        self.reached = dict.fromkeys(range(1, size) if rank == 0 else (0,), 0)
        self.peers: dict[socket.socket, int] = {}  # connection -> rank
        self.changed = threading.Condition()
        self.listener = socket.create_server(("", 0)) if rank == 0 else None
        if self.listener is not None:
            store.set("watch/port", str(self.listener.getsockname()[1]))
        else:
            address = host, int(store.get("watch/port"))
            connection = _set_up(socket.create_connection(address, timeout=60))
            connection.sendall(rank.to_bytes(4, "big"))
            self.peers[connection] = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def barrier(self, timeout: float) -> list[int]:
        """Wait until every process has called this as often as this one. Returns the ranks that
        have not after `timeout` seconds."""
        self.barriers += 1
        if self.rank != 0:
            self._send(_ARRIVED)
        with self.changed:
            self.changed.wait_for(lambda: not self._late(), timeout)
        late = self._late()
        if self.rank == 0 and not late:
            self._send(_ARRIVED)
        return late

    def leave(self) -> None:
        """Tell the others that this process ends normally, and stop watching."""
        self.has_left = True
        self._send(_LEAVES)

    def _late(self) -> list[int]:
        return [rank for rank, count in self.reached.items() if count < self.barriers]

    def _send(self, message: bytes) -> None:
        for connection in list(self.peers):
            with contextlib.suppress(OSError):  # the peer has ended; `_listen` reports it
                connection.sendall(message)

    def _listen(self) -> None:
        own = [self.listener] if self.listener is not None else []
        while sources := [*self.peers, *own]:
            for source in select.select(sources, [], [])[0]:
                if self.has_left:
                    return
                if source is self.listener:
                    self._accept(source.accept()[0])
                else:
                    self._receive(source)

    def _accept(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(10)
            name = connection.recv(4)
            if len(name) == 4:  # otherwise not a process of this run
                self.peers[_set_up(connection)] = int.from_bytes(name, "big")

    def _receive(self, connection: socket.socket) -> None:
        message = b""
        with contextlib.suppress(OSError):  # a broken connection counts as closed
            message = connection.recv(64)
        rank = self.peers[connection]
        with self.changed:
            self.reached[rank] += message.count(_ARRIVED)
            self.changed.notify_all()
        if not message or message.endswith(_LEAVES):
            del self.peers[connection]
        if not message:
            self.on_loss(rank)


def _set_up(connection: socket.socket) -> socket.socket:
    """Send every byte at once; probe a silent peer."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
