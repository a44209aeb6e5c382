"""Clients of exo 0.0's API that read as it comes, and that go away."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """What a client got; finish is None where nobody said why the answer ended.

    status: 0 where the connection broke, -1 where the time was over. seconds: until the end.
    """

    status: int
    text: str
    finish: str | None
    seconds: float
    events: int = 0

    def is_sentence(self, words: str = "") -> bool:
        """Whether it is this plugin's sentence, and nothing that looks like a whole answer."""
        fails = self.finish != "stop" if self.events else self.status in (500, 503)
        return fails and "exo_" in self.text and words in self.text


class Client:
    """One chat completion, read as it comes."""

    def __init__(
        self,
        api: str,
        model: str,
        question: str | list[dict[str, Any]],
        stream: bool = False,
        seconds: float = 60.0,
    ) -> None:
        """question: a text, or the messages of a chat."""
        self._begun = time.monotonic()
        self._stream = stream
        messages = (
            [{"role": "user", "content": question}] if isinstance(question, str) else question
        )
        body = {"model": model, "stream": stream, "messages": messages}
        at = urlsplit(api)
        self._connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=seconds)
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        self.texts: list[str] = []
        self._finish: str | None = None
        self._reply: http.client.HTTPResponse | None = None

    def read(self, events: int = 1 << 30) -> int:
        """Read this many events of a stream, or all; how many came."""
        self._reply = self._reply or self._connection.getresponse()
        if not self._stream or self._reply.status != 200:
            return 0
        came = 0
        while came < events and (line := self._reply.readline()):
            if not line.startswith(b"data: "):
                continue
            came += 1
            choice = json.loads(line[6:])["choices"][0]
            self.texts.append(choice["delta"].get("content") or "")
            self._finish = choice["finish_reason"] or self._finish
        return came

    def rest(self) -> Reply:
        """Read to the end."""
        events = self.read()
        assert self._reply is not None
        status, finish = self._reply.status, self._finish
        if self._stream and status == 200:
            text = "".join(self.texts)
        else:
            text = self._reply.read().decode()
            if status == 200:
                choice = json.loads(text)["choices"][0]
                text, finish = choice["message"]["content"], choice["finish_reason"]
        self._connection.close()
        return Reply(status, text, finish, time.monotonic() - self._begun, events)

    def leave(self) -> None:
        """Go away, with a reset as a closed laptop's or with a plain end."""
        with suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._reply is not None:
            self._reply.close()
        self._connection.close()


def ask(api: str, model: str, question: Any, stream: bool = False, seconds: float = 60.0) -> Reply:
    """One answer, whatever becomes of it."""
    begun = time.monotonic()
    try:
        return Client(api, model, question, stream, seconds).rest()
    except TimeoutError:
        return Reply(-1, "no answer in time", None, time.monotonic() - begun)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(0, repr(error), None, time.monotonic() - begun)


class Later(threading.Thread):
    """An answer in the background."""

    def __init__(self, *args: Any) -> None:
        super().__init__(daemon=True)
        self._arguments = args
        self._reply: Reply | None = None
        self.start()

    def run(self) -> None:
        self._reply = ask(*self._arguments)

    def get(self, seconds: float = 60.0) -> Reply:
        """The answer."""
        self.join(seconds)
        return self._reply or Reply(-1, "no answer in time", None, seconds)


def wait(condition: Callable[[], T | None], seconds: float = 60.0) -> T | None:
    """What a call gives once it gives something that is true; None where the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    return None
