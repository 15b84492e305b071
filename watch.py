"""The processes of a run notice the end of any of them at once, wherever it ran: each holds a
connection to rank 0, which the kernel closes when a process ends. A launcher sees only the
processes of its own machine, and Paddle sees a loss only when it sums.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

_BYE = b"."
# A machine that is gone without a word is noticed after 15 + 4 * 15 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


def watch_each_other(
    rank: int, host: str, store: Any, on_loss: Callable[[int], None]
) -> Callable[[], None]:
    """Begin to watch: rank 0 all others, and these rank 0.

    host: of rank 0. store: has set(key, text) and get(key), which waits for the key; all processes
    share it. on_loss: called in a thread with the rank that ended without having left. Returns
    what to call before a good end.
    """
    listener, peers = None, {}
    if rank == 0:
        listener = socket.create_server(("", 0))
        store.set("watch/port", str(listener.getsockname()[1]))
    else:
        port = int(store.get("watch/port"))
        connection = _kept_alive(socket.create_connection((host, port), timeout=60))
        connection.sendall(rank.to_bytes(4, "big"))
        peers[connection] = 0
    watch = _Watch(listener, peers, on_loss)
    threading.Thread(target=watch.run, daemon=True).start()
    return watch.leave


class _Watch:
    """peers: connection -> rank."""

    def __init__(
        self,
        listener: socket.socket | None,
        peers: dict[socket.socket, int],
        on_loss: Callable[[int], None],
    ) -> None:
        self.listener, self.peers, self.on_loss, self.has_left = listener, peers, on_loss, False

    def run(self) -> None:
        """Waits for news for as long as there is somebody to hear from."""
        while self.listener is not None or self.peers:
            sources = [*self.peers, *([self.listener] if self.listener is not None else [])]
            for source in select.select(sources, [], [])[0]:
                if self.has_left:
                    return
                if source is self.listener:
                    self._welcome(source.accept()[0])
                else:
                    self._hear(source)

    def leave(self) -> None:
        """Say that this process ends well, and stop watching."""
        self.has_left = True
        for connection in list(self.peers):
            with contextlib.suppress(OSError):  # it may have left before
                connection.sendall(_BYE)

    def _welcome(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(10)
            name = connection.recv(4)
            if len(name) == 4:  # else a stranger
                self.peers[_kept_alive(connection)] = int.from_bytes(name, "big")

    def _hear(self, connection: socket.socket) -> None:
        said = b""
        with contextlib.suppress(OSError):  # a connection that breaks says nothing either
            said = connection.recv(1)
        rank = self.peers.pop(connection)
        if said != _BYE:
            self.on_loss(rank)


def _kept_alive(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
