"""exo's binding `exo_rs` over the zenoh of PyPI, so that tests need no Rust compiler.

It has the four names that exo's Python imports, with the same wire: session settings, keys and
liveliness tokens are the binding's. Where a session listens and whom it calls is said by
EXO_RS_LISTEN (default: tcp/127.0.0.1:<port>) and EXO_RS_CONNECT, zenoh endpoints with commas
between; the binding's discovery by IPv6 multicast and zenoh's storage plugin are not here.
"""

import asyncio
import fcntl
import json
import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import zenoh

__all__ = ["FromSwarm", "NetworkingHandle", "Pidfile", "PidfileError"]

QUEUE_LENGTH = 1024  # of the binding's channels; an event that finds them full is dropped


class FromSwarm:
    """An event of the network."""

    Connection: ClassVar[type["_Connection"]]
    Message: ClassVar[type["_Message"]]


@dataclass
class _Connection(FromSwarm):
    """A node has come, or has gone."""

    connected: bool


@dataclass
class _Message(FromSwarm):
    """Bytes that another node has published."""

    topic: str
    data: bytes


FromSwarm.Connection, FromSwarm.Message = _Connection, _Message


class Mailbox:
    """Events from zenoh's threads for one reader at a time, on whichever event loop it runs.

    exo runs two loops one after the other, so nothing here belongs to one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[FromSwarm] = deque()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, event: FromSwarm) -> None:
        """Called on a thread of zenoh's."""
        with self._lock:
            if len(self._events) < QUEUE_LENGTH:
                self._events.append(event)
            if self._reader is not None:
                loop, arrived = self._reader
                try:
                    loop.call_soon_threadsafe(arrived.set)
                except RuntimeError:  # that loop is closed
                    self._reader = None

    async def get(self) -> FromSwarm:
        """Wait for the next event. Raises RuntimeError where another reader waits already."""
        arrived = asyncio.Event()
        with self._lock:
            if self._reader is not None:
                raise RuntimeError("called recv twice concurrently")
            self._reader = asyncio.get_running_loop(), arrived
        try:
            while True:
                with self._lock:
                    if self._events:
                        return self._events.popleft()
                    arrived.clear()
                await arrived.wait()
        finally:
            with self._lock:
                self._reader = None


class NetworkingHandle:
    """A zenoh session. A topic is the key topics/<topic>; each node has a token live/<id>."""

    def __init__(self, session: zenoh.Session) -> None:
        self._session = session
        self._mailbox = Mailbox()
        self._topics: dict[str, tuple[zenoh.Publisher, zenoh.Subscriber[None]]] = {}
        self._liveliness: tuple[Any, Any] | None = None

    @staticmethod
    def new(
        identity: str, namespace: str, listen_port: int, discovery_service_port: int
    ) -> "NetworkingHandle":
        """Open a session. namespace and discovery_service_port are the discovery's, unused here.

        identity: a zenoh id, 1 to 32 hexadecimal digits without a leading 0. Raises ValueError.
        """
        if not 0 < len(identity) <= 32 or identity[0] == "0" or identity.strip("0123456789abcdef"):
            raise ValueError(f"{identity} is not a valid zenoh identity")
        return NetworkingHandle(zenoh.open(_config(identity, listen_port)))

    async def recv(self) -> FromSwarm:
        """Wait for the next event. The first call makes this node visible, as in the binding."""
        if self._liveliness is None:
            liveliness = self._session.liveliness()
            token = liveliness.declare_token(f"live/{self._session.zid()}")
            watch = liveliness.declare_subscriber("live/*", self._on_liveliness, history=True)
            self._liveliness = token, watch
        return await self._mailbox.get()

    def _on_liveliness(self, sample: zenoh.Sample) -> None:
        self._mailbox.put(_Connection(sample.kind == zenoh.SampleKind.PUT))

    async def gossipsub_subscribe(self, topic: str) -> bool:
        """Subscribe; whether the topic was new."""
        if topic in self._topics:
            return False

        def on_sample(sample: zenoh.Sample) -> None:
            if sample.kind == zenoh.SampleKind.PUT:
                self._mailbox.put(_Message(topic, sample.payload.to_bytes()))

        key, block = f"topics/{topic}", zenoh.CongestionControl.BLOCK
        self._topics[topic] = (
            self._session.declare_publisher(key, congestion_control=block),
            self._session.declare_subscriber(key, on_sample, allowed_origin=zenoh.Locality.REMOTE),
        )
        return True

    async def gossipsub_unsubscribe(self, topic: str) -> bool:
        """Unsubscribe; whether the topic was subscribed.

        The last one closes the session: exo is ending, and an open one keeps the process alive.
        """
        parts = self._topics.pop(topic, None)
        for part in parts or ():
            part.undeclare()
        if not self._topics:
            self._session.close()
        return parts is not None

    async def gossipsub_publish(self, topic: str, data: bytes) -> None:
        """Publish; a topic that is not subscribed is no error, as in the binding."""
        if topic in self._topics:
            self._topics[topic][0].put(data)


def _config(identity: str, port: int) -> zenoh.Config:
    """The binding's session settings, on loopback."""
    listen, connect = os.environ.get("EXO_RS_LISTEN"), os.environ.get("EXO_RS_CONNECT")
    config = zenoh.Config()
    for key, value in {
        "id": identity,
        "mode": "router",
        "listen/endpoints": (listen or f"tcp/127.0.0.1:{port}").split(","),
        "connect/endpoints": connect.split(",") if connect else [],
        "scouting/multicast/enabled": False,
        "scouting/multicast/autoconnect": [],
        "scouting/gossip/multihop": True,
        "adminspace/enabled": True,
        "transport/link/rx/buffer_size": 1 << 24,
    }.items():
        config.insert_json5(key, json.dumps(value))
    return config


class PidfileError(Exception):
    """Another process has the file, or it can't be made."""


class Pidfile:
    """A file with this process's id, locked while it is open and removed at its end."""

    def __init__(self, path: str | os.PathLike[str], mode: int) -> None:
        self._path = Path(path)
        self._fd = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            raise PidfileError(f"{self._path} can't be locked: {error.strerror}") from error

    def write(self) -> None:
        """Write this process's id."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def as_raw_fd(self) -> int:
        """The open file's descriptor."""
        return self._fd

    def close(self) -> None:
        """Remove the file, which lets go of the lock."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1
