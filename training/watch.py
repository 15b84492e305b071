"""Barriers, and detection of a process that ends, on any machine: each process holds a connection
to rank 0, which the kernel closes when the process ends. A launcher sees only the processes of its
own machine; Paddle notices a loss only in an all-reduce.

Rank 0 listens in a network that others use too: only a connection that begins with the secret of
this run and the rank of a process that has not connected yet is one of its processes."""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from errors import UserError

_ARRIVED, _LEAVES, _WELCOME = b"m", b".", b"w"
SECRET, RANK = 32, 4  # bytes, of a greeting
GREETING_TIMEOUT = 10.0  # seconds that a new connection has for its greeting
MAX_WAITING = 64  # new connections; of more, the oldest is closed
CONNECT_TIMEOUT = 60.0  # seconds
# A machine that vanishes without closing its connections is detected after 15 + 4 * 15 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class _Greeting(NamedTuple):
    """What a new connection has sent so far, and until when (time.monotonic) it may take."""

    content: bytearray
    deadline: float


class Watch:
    """The connections of one process: of rank 0 to all others, of these to rank 0. host: rank 0's
    address in the job's network, the only one that it listens on. store: shared, has
    set(key, text) and get(key) -> bytes, which waits for the key. on_loss: called in a thread with
    the rank of a process that ended without `leave`. Raises UserError where rank 0 cannot listen on
    its address, or does not accept this process."""

    def __init__(
        self, rank: int, size: int, host: str, store: Any, on_loss: Callable[[int], None]
    ) -> None:
        self.rank, self.on_loss, self.has_left, self.barriers = rank, on_loss, False, 0
        # rank -> barriers that it has reached
        self.reached = dict.fromkeys(range(1, size) if rank == 0 else (0,), 0)
        self.peers: dict[socket.socket, int] = {}  # connection -> rank
        self.seen: set[int] = set()  # ranks that have connected
        self.waiting: dict[socket.socket, _Greeting] = {}  # connections of unknown origin
        self.changed = threading.Condition()
        self.selector = selectors.DefaultSelector()
        self.has_logged_a_stranger = False
        self.listener: socket.socket | None = None
        if rank == 0:
            self.secret = secrets.token_bytes(SECRET)
            self.listener = _listener(host)
            self.selector.register(self.listener, selectors.EVENT_READ)
            store.set("watch", f"{self.listener.getsockname()[1]} {self.secret.hex()}")
        else:
            port, secret = store.get("watch").decode().split()
            self._add(_greet(host, int(port), bytes.fromhex(secret), rank), 0)
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

    def _add(self, connection: socket.socket, rank: int) -> None:
        self.selector.register(_set_up(connection), selectors.EVENT_READ)
        self.peers[connection] = rank

    def _listen(self) -> None:
        while self.selector.get_map():
            ready = self.selector.select(1.0 if self.waiting else None)
            if self.has_left:
                return
            for key, _ in ready:
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if source is self.listener:
                    self._accept(source)
                elif source in self.waiting:
                    self._hear(source)
                elif source in self.peers:  # otherwise closed a moment ago
                    self._receive(source)
            for connection, greeting in list(self.waiting.items()):
                if greeting.deadline < time.monotonic():
                    self._refuse(connection)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone already
            connection, _ = listener.accept()
            connection.setblocking(False)
            self.selector.register(connection, selectors.EVENT_READ)
            deadline = time.monotonic() + GREETING_TIMEOUT
            self.waiting[connection] = _Greeting(bytearray(), deadline)
            if len(self.waiting) > MAX_WAITING:
                self._refuse(next(iter(self.waiting)))

    def _hear(self, connection: socket.socket) -> None:
        """Read on in a greeting; decide when it is whole."""
        greeting, part = self.waiting[connection].content, b""
        with contextlib.suppress(OSError):
            part = connection.recv(SECRET + RANK - len(greeting))
        greeting += part
        if part and len(greeting) < SECRET + RANK:
            return
        rank = int.from_bytes(greeting[SECRET:], "big")
        known = hmac.compare_digest(bytes(greeting[:SECRET]), self.secret)
        if not known or rank not in self.reached or rank in self.seen:
            self._refuse(connection)
            return
        del self.waiting[connection]
        self.selector.unregister(connection)
        self.seen.add(rank)
        self._add(connection, rank)
        with contextlib.suppress(OSError):  # `_receive` reports it
            connection.sendall(_WELCOME)

    def _refuse(self, connection: socket.socket) -> None:
        """Close a connection that is not one of this run's processes; say so once."""
        if not self.has_logged_a_stranger:
            self.has_logged_a_stranger = True
            address = "an unknown address"
            with contextlib.suppress(OSError):
                address = connection.getpeername()[0]
            with contextlib.suppress(OSError):  # of a full disk: this thread watches on
                logging.warning(
                    "closed a connection from %s that is not of this training (further ones are "
                    "not logged): can others reach this network?",
                    address,
                )
        del self.waiting[connection]
        self._close(connection)

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
            self._close(connection)
        if not message:
            self.on_loss(rank)

    def _close(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        connection.close()


def _listener(host: str) -> socket.socket:
    try:
        return socket.create_server((host, 0), backlog=MAX_WAITING)
    except OSError as error:
        raise UserError(
            f"rank 0 cannot listen on {host}, its address for the other processes "
            f"({error.strerror}); give the launcher --host with an address of this machine"
        ) from error


def _greet(host: str, port: int, secret: bytes, rank: int) -> socket.socket:
    """A connection to rank 0, which has accepted this process."""
    answer = b""
    with contextlib.suppress(OSError):
        connection = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
        connection.sendall(secret + rank.to_bytes(RANK, "big"))
        answer = connection.recv(1)
    if answer != _WELCOME:
        raise UserError(
            f"rank 0, at {host}:{port}, does not accept this process as rank {rank}; start all "
            "processes with one launcher command, or the same --master"
        )
    return connection


def _set_up(connection: socket.socket) -> socket.socket:
    """Send every byte at once; probe a silent peer."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
