"""The processes of a run wait for each other, and notice the end of any of them at once, wherever
it ran: each holds a connection to rank 0, which the kernel closes when a process ends. A launcher
sees only the processes of its own machine, and Paddle sees a loss only when it sums.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

_HERE, _BYE = b"m", b"."
# A machine that is gone without a word is noticed after 15 + 4 * 15 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Watch:
    """One process's side: rank 0 hears from all others, and these from rank 0.

    host: of rank 0. store: has set(key, text) and get(key), which waits for the key; all processes
    share it. on_loss: called in a thread with the rank that ended without having left.
    """

    def __init__(
        self, rank: int, size: int, host: str, store: Any, on_loss: Callable[[int], None]
    ) -> None:
        self.rank, self.on_loss, self.has_left, self.meetings = rank, on_loss, False, 0
        self.heard = dict.fromkeys(range(1, size) if rank == 0 else (0,), 0)  # rank -> meetings
        self.peers: dict[socket.socket, int] = {}  # connection -> rank
        self.news = threading.Condition()
        self.listener: socket.socket | None = None
        if rank == 0:
            self.listener = socket.create_server(("", 0))
            store.set("watch/port", str(self.listener.getsockname()[1]))
        else:
            address = host, int(store.get("watch/port"))
            connection = _set_up(socket.create_connection(address, timeout=60))
            connection.sendall(rank.to_bytes(4, "big"))
            self.peers[connection] = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def meet(self, patience: float) -> list[int]:
        """Wait until every process has come here as often as this one. Returns the ranks that have
        not after `patience` seconds."""
        self.meetings += 1
        if self.rank != 0:
            self._tell(_HERE)
        with self.news:
            self.news.wait_for(lambda: not self._late(), patience)
        late = self._late()
        if self.rank == 0 and not late:
            self._tell(_HERE)
        return late

    def leave(self) -> None:
        """Say that this process ends well, and stop watching."""
        self.has_left = True
        self._tell(_BYE)

    def _late(self) -> list[int]:
        return [rank for rank, count in self.heard.items() if count < self.meetings]

    def _tell(self, what: bytes) -> None:
        for connection in list(self.peers):
            with contextlib.suppress(OSError):  # it has ended, as `_listen` is about to hear
                connection.sendall(what)

    def _listen(self) -> None:
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

    def _welcome(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(10)
            name = connection.recv(4)
            if len(name) == 4:  # else a stranger
                self.peers[_set_up(connection)] = int.from_bytes(name, "big")

    def _hear(self, connection: socket.socket) -> None:
        said = b""
        with contextlib.suppress(OSError):  # a connection that breaks says nothing either
            said = connection.recv(64)
        rank = self.peers[connection]
        with self.news:
            self.heard[rank] += said.count(_HERE)
            self.news.notify_all()
        if not said or said.endswith(_BYE):
            del self.peers[connection]
        if not said:
            self.on_loss(rank)


def _set_up(connection: socket.socket) -> socket.socket:
    """Every byte is sent at once, and silence is looked into."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
