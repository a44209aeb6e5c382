"""exo 0.0's InferenceEngine over the engine (jfreed-dev/exo-rkllama, commit 0c831d3)."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, ClassVar, cast

import numpy as np
from exo.inference.inference_engine import InferenceEngine
from exo.inference.shard import Shard
from numpy.typing import NDArray

from ....names import PACKAGE
from ... import logs
from ...cards import Cards
from ...contract import Array, Backend, Layers, Request, RequestError, Sampling
from ...engine import prompts
from ...engine.engine import Engine, cause_of
from ...engine.sampler import Sampler
from ...engine.thread import in_thread
from ...text.tokenizer import Tokenizer
from . import inputs, messages
from .files import ShardFiles
from .node_state import NodeState
from .retokenizer import Retokenizer
from .token_stream import TokenStream

_log = logging.getLogger(__name__)
# exo's sample() is not told whose logits it gets: the task that made them is the same.
_request: ContextVar[str] = ContextVar("request", default="")


class EngineError(RuntimeError):
    """Something that exo's user should read; the text says what to do.

    ends: the request is over. Another node's wrong input ends nothing here.
    """

    def __init__(self, sentence: str, ends: bool = True) -> None:
        super().__init__(sentence)
        self.ends = ends


class ExoEngine(InferenceEngine):
    """The engine of one node. A plugin's own class names its backend and its models."""

    backend: ClassVar[Backend]
    models: ClassVar[Cards]

    def __init__(self, shard_downloader: Any) -> None:
        logs.speak()
        _patch_exo(type(self))
        self.shard_downloader = shard_downloader
        self.shard: Shard | None = None
        self.session: dict[str, Any] = {}  # exo's is shared by all engines of the process
        self.state: NodeState | None = None  # once exo has made its node, by a patch
        self.engine = Engine(self.backend)
        self._prompts = prompts.Prompts()
        self._stepping: set[str] = set()
        self._retokenizer: asyncio.Future[Retokenizer] | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The loaded model's; exo compares with its eos_token_id."""
        return self.engine.tokenizer

    async def clear_session(self) -> None:
        self.session.clear()

    async def ensure_shard(self, shard: Shard) -> None:
        """Make a shard ready: idempotent, and one load at a time. Raises EngineError."""
        if self.shard == shard and self.engine.layers is not None:
            return
        before = self.tokenizer
        try:
            source = ShardFiles(shard, type(self), self.shard_downloader)
            await self.engine.load(layers_of(shard), source)
        except Exception as error:
            self.shard = None
            raise EngineError(logs.one_line(error)) from error
        self.shard = shard
        if self.tokenizer is not before or self._retokenizer is None:
            self._make_retokenizer(cast(Tokenizer, self.tokenizer))

    def _make_retokenizer(self, tokenizer: Tokenizer) -> None:
        """Begin to make what gives ids to a device's text; a large vocabulary takes a while."""
        if self.engine.executor.answers:
            made = asyncio.ensure_future(in_thread(lambda: Retokenizer(tokenizer.fast)))
            made.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._retokenizer = made

    async def load_checkpoint(self, shard: Shard, path: str) -> None:
        """exo's training command asks for this; weights come from the shard's own repository."""
        await self.ensure_shard(shard)

    async def encode(self, shard: Shard, prompt: str) -> NDArray[np.int64]:
        """Ids (S,) of a prompt that is already in the model's chat template."""
        prompts.refuse_longer(len(prompt))
        await self.ensure_shard(shard)
        ids = await self._prompts.encode(cast(Tokenizer, self.tokenizer), prompt)
        return np.array(ids, dtype=np.int64)

    async def decode(self, shard: Shard, tokens: Array) -> str:
        """Text of ids (S,)."""
        await self.ensure_shard(shard)
        return cast(Tokenizer, self.tokenizer).decode(np.asarray(tokens).reshape(-1))

    async def sample(self, x: Array, temp: float = 0.0, top_p: float = 1.0) -> NDArray[np.int64]:
        """The next id, (1,): ids pass through, logits (1, 1 or S, V) are sampled.

        Every EOS id of the model becomes `tokenizer.eos_token_id`, the one that exo knows.
        """
        request_id = _request.get()
        try:
            logits = x.dtype.kind == "f"
            sampler = self._sampler(request_id, Sampling(temp, top_p)) if logits else None
            token = self.engine.pick(x, sampler)
        except Exception as error:
            raise self._failed(request_id, error) from error
        end = self.tokenizer.eos_token_id if self.tokenizer is not None else None
        if end is not None and token != end and self.engine.is_full(request_id):
            token = end  # exo knows of no other end than its own limit
            if self.state is not None:
                await self.state.tell_cut(request_id)
        if token == end:
            self.engine.requests.finish(request_id)
        return np.array([token])

    def _sampler(self, request_id: str, sampling: Sampling) -> Sampler:
        """A request's own, which goes with it."""
        request = self.engine.requests.get(request_id)
        if request is None:
            return Sampler(sampling)
        sampler: Sampler = request.host or Sampler(sampling)
        request.host = sampler
        return sampler

    async def infer_prompt(
        self, request_id: str, shard: Shard, prompt: str, inference_state: Any = None
    ) -> tuple[Array, Any]:
        """First step of a request; an AnswerBackend's prompt travels as UTF-8 bytes."""
        arrived = time.monotonic()
        if request_id in self._stepping or request_id in self.engine.requests:
            sentence = "a request with this id is in flight already. Send yours with another id"
            raise EngineError(f"{PACKAGE}: {sentence}", ends=False)
        with self._step_of(request_id):
            if self.engine.executor.answers:  # the node that answers makes ids of it
                prompts.refuse_longer(len(prompt))
                text = prompt.encode("utf-8", "surrogatepass")
                x: Array = np.frombuffer(text, dtype=np.uint8)
            else:
                x = await self.encode(shard, prompt)
            _refuse_empty(x.size)
            return await self._step(request_id, shard, x.reshape(1, -1), arrived), inference_state

    async def infer_tensor(
        self, request_id: str, shard: Shard, input_data: Array, inference_state: Any = None
    ) -> tuple[Array, Any]:
        """One step; the state that exo hands on passes through untouched. Raises EngineError."""
        arrived = time.monotonic()
        is_stepping = request_id in self._stepping
        if unfit := inputs.refusal(self.engine, shard, request_id, input_data, is_stepping):
            raise EngineError(f"{PACKAGE}: {unfit}", ends=False)
        with self._step_of(request_id):
            return await self._step(request_id, shard, input_data, arrived), inference_state

    @contextmanager
    def _step_of(self, request_id: str) -> Iterator[None]:
        """One step at a time for an id; its error ends the request."""
        _request.set(request_id)
        self._stepping.add(request_id)
        try:
            yield
        except Exception as error:
            raise self._failed(request_id, error) from error
        finally:
            self._stepping.discard(request_id)

    async def _step(self, request_id: str, shard: Shard, x: Array, arrived: float) -> Array:
        await self.ensure_shard(shard)
        executor = self.engine.executor
        if executor.whole_model and not shard.is_last_layer():
            return x
        if executor.answers:
            return np.array([[await self._next_id(request_id, x)]], dtype=np.int64)
        return await self.engine.step(request_id, x, arrived)

    async def _next_id(self, request_id: str, x: Array) -> int:
        """The next id of an AnswerBackend's answer; x is the prompt's bytes, later ids."""
        request = self.engine.requests.get(request_id)
        stream: TokenStream | None = request.host if request is not None else None
        if stream is None:
            stream = await self._start(request_id, x)
        token = await stream.next_id()
        if (request := self.engine.requests.get(request_id)) is not None:
            request.host = stream  # it goes with the request
        if token == cast(Tokenizer, self.tokenizer).eos_token_id:
            if stream.cut and self.state is not None:
                await self.state.tell_cut(request_id)
            self.engine.requests.finish(request_id)
        return token

    async def _start(self, request_id: str, x: Array) -> TokenStream:
        tokenizer = cast(Tokenizer, self.tokenizer)
        if x.dtype == np.uint8:
            prompt = x.tobytes().decode("utf-8", "surrogatepass")
        else:
            prompt = await self._prompts.decode(tokenizer, x.reshape(-1).tolist())
        ids = await self._prompts.encode(tokenizer, prompt)
        _refuse_empty(len(ids))
        limit, temperature = self.limits()
        sent = self.state.answers.get(request_id) if self.state else None
        conversation = sent.messages if sent else None
        if sent and sent.from_command:
            conversation = await in_thread(lambda: messages.of_command(prompt, tokenizer))
        request = Request(
            request_id, prompt, tuple(ids), limit, Sampling(temperature), messages=conversation
        )
        if sent:
            sent.messages = None  # the request has them from now on
        assert self._retokenizer is not None  # ensure_shard() has made it
        return TokenStream(self.engine, request, self._retokenizer)

    def limits(self) -> tuple[int, float]:
        """exo's --max-generate-tokens and --default-temp; its defaults where no node is known."""
        if self.state is None:
            return 10_000, 0.0
        node = self.state.node
        return int(node.max_generate_tokens), float(node.default_sample_temperature)

    def _failed(self, request_id: str, error: Exception) -> EngineError:
        """End a request; the error for exo's node."""
        sentence = logs.one_line(error)
        known = request_id in self.engine.requests
        self.engine.requests.fail(request_id, sentence, cause_of(error.__cause__ or error))
        if known or not isinstance(error, RequestError):
            _log.error("a request failed: %s", sentence)
        return EngineError(f"{PACKAGE}: {sentence}")

    async def close(self, seconds: float = 2.0) -> None:
        """Give the device back; the next shard loads it again."""
        self.shard = None
        self._prompts.stop()
        await self.engine.close(seconds)


def layers_of(shard: Shard) -> Layers:
    """exo's Shard as the core knows it."""
    return Layers(shard.model_id, shard.start_layer, shard.end_layer, shard.n_layers)


def _patch_exo(engine_class: type[ExoEngine]) -> None:
    """Patch exo's faults; without the folder patches/, exo stays as its authors left it."""
    if find_spec(f"{__package__}.patches") is not None:
        from .patches import apply_patches

        apply_patches(engine_class)


def _refuse_empty(size: int) -> None:
    if not size:
        raise RequestError("the prompt is empty")
