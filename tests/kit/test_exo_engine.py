"""The engine that exo loads: what its node asks of it, over scripted backends."""

import asyncio
import shutil

import numpy as np
import pytest
from driver import checked_step, full_shard, generate, text_of
from exo.inference.shard import Shard
from exo.models import get_repo
from exo_order import first_step, split
from plugin import ENGINE_CLASS
from toy import END, KINDS, STOP, VOCABULARY, ToyAnswers, ToyBackend, WholeToy, write_tokenizer

from exo_kit.kit.engine import requests
from exo_kit.kit.hosts.exo_0_0 import engine as engine_module
from exo_kit.kit.hosts.exo_0_0.engine import EngineError


class Files(ToyBackend):
    files = ("*.safetensors",)


@pytest.mark.parametrize("backend", KINDS)
async def test_every_kind_of_backend_answers(use, model_id, backend):
    engine = use(backend)
    ids = await generate([engine], [full_shard(engine, model_id)], "xyz")
    assert ids == [VOCABULARY.index(" "), STOP, END]


@pytest.mark.parametrize("backend", KINDS)
async def test_every_kind_of_backend_answers_on_two_nodes(use, model_id, backend):
    left, right = use(backend), use(backend)
    ids = await generate([left, right], split(full_shard(left, model_id)), "xyz")
    assert ids == [VOCABULARY.index(" "), STOP, END]


async def test_a_sharded_backend_has_its_own_layers(use, model_id):
    left, right = use(ToyBackend), use(ToyBackend)
    shards = split(full_shard(left, model_id))
    await generate([left, right], shards, "xyz")
    layers = [engine.engine.executor.instance.layers for engine in (left, right)]
    assert layers == [engine_module.layers_of(shard) for shard in shards]


async def test_a_whole_model_runs_on_the_node_with_the_last_layer_alone(use, model_id):
    left, right = use(WholeToy), use(WholeToy)
    shards = split(full_shard(left, model_id))
    ids = np.array([[1, 2, 3]])
    passed, _ = await left.infer_tensor("r", shards[0], ids)
    assert passed is ids
    assert left.engine.executor.instance is None
    await right.infer_tensor("r", shards[1], ids)
    assert right.engine.executor.instance.live == {"r"}


async def test_exos_limits_reach_an_answer(use, model_id):
    engine = use(ToyAnswers)
    engine.limits = lambda: (3, 0.5)
    ids = await generate([engine], [full_shard(engine, model_id)], "abc", 3)
    [request] = engine.engine.executor.instance.requests
    assert (request.max_tokens, request.sampling.temperature) == (3, 0.5)
    assert request.prompt == "abc"
    assert len(ids) == 3


async def test_another_split_keeps_a_whole_model(use, model_id):
    engine = use(ToyAnswers)
    full = full_shard(engine, model_id)
    await engine.ensure_shard(full)
    first = engine.engine.executor.instance
    await engine.ensure_shard(split(full)[1])
    assert engine.engine.executor.instance is first


async def test_loading_is_idempotent_for_exos_two_callers(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    await first_step([engine], [shard], "abc", checked_step("r"))
    await asyncio.gather(*(engine.ensure_shard(shard) for _ in range(5)))
    assert engine.engine.executor.instance.loads == 1


async def test_exos_downloader_is_asked_where_the_backend_wants_files(use, model_id, downloader):
    engine = use(Files)
    shard = full_shard(engine, model_id)
    await engine.ensure_shard(shard)
    assert downloader.calls == [(shard, ENGINE_CLASS)]
    other = use(ToyBackend)
    await other.ensure_shard(shard)
    assert len(downloader.calls) == 1


async def test_offline_exos_downloads_are_used_as_they_are(
    use, model_id, downloader, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    engine = use(Files)
    shard = full_shard(engine, model_id)
    with pytest.raises(EngineError, match=r"HF_HUB_OFFLINE is set, and .* has no model"):
        await engine.ensure_shard(shard)
    [folder] = (tmp_path / "downloads").iterdir()
    (folder / "config.json").write_text("{}")
    await engine.ensure_shard(shard)
    assert engine.engine.executor.instance.folder == folder
    assert downloader.calls == []


async def test_other_files_are_fetched_by_their_patterns_alone(
    use, model_id, downloader, monkeypatch, tmp_path
):
    class Exported(Files):
        files = ("*.json", "onnx/model_q4.onnx*")

    requests = []

    def snapshot_download(repository, *, allow_patterns, ignore_patterns, local_dir):
        requests.append((repository, allow_patterns))
        (local_dir / "onnx").mkdir(parents=True)
        (local_dir / "onnx" / "model_q4.onnx").touch()

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    engine = use(Exported)
    await engine.ensure_shard(full_shard(engine, model_id))
    repository = get_repo(model_id, ENGINE_CLASS)
    assert requests == [(repository, ["*.json", "onnx/model_q4.onnx*", "*.jinja"])]
    folder = engine.engine.executor.instance.folder
    assert folder == tmp_path / "downloads" / repository.replace("/", "--")
    assert (folder / "onnx" / "model_q4.onnx").exists()
    assert downloader.calls == []

    def no_hub(*_, **__):
        raise OSError("no route\nto the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(EngineError, match=r"no .*model_q4.* \(no route\); put them into "):
        await use(Exported).ensure_shard(full_shard(engine, model_id))


async def test_files_that_exo_left_out_are_the_first_and_the_last_layers(use, model_id, downloader):
    class Tied(Files):
        def load(self, layers, folder, tokenizer):
            if all(fetched.start_layer > 0 for fetched, _ in downloader.calls):
                raise FileNotFoundError("model-00001-of-00002.safetensors")
            super().load(layers, folder, tokenizer)

    engine = use(Tied)
    last = split(full_shard(engine, model_id))[1]
    await engine.ensure_shard(last)
    fetched = [(shard.start_layer, shard.end_layer) for shard, _ in downloader.calls]
    end = last.n_layers - 1
    assert fetched == [(last.start_layer, end), (0, 0), (end, end)]


async def test_the_tokenizer_may_come_with_the_files(use, model_id, downloader, monkeypatch):
    engine = use(Files)
    repo = get_repo(model_id, ENGINE_CLASS)
    shutil.rmtree(write_tokenizer(repo))
    fetch = downloader.ensure_shard

    async def with_tokenizer(shard, name):
        write_tokenizer(repo)
        return await fetch(shard, name)

    monkeypatch.setattr(downloader, "ensure_shard", with_tokenizer)
    ids = await generate([engine], [full_shard(engine, model_id)], "xyz")
    assert ids[-1] == END


async def test_a_model_that_exo_does_not_know_is_named(use, model_id):
    engine = use(ToyBackend)
    with pytest.raises(EngineError, match="exo has no model no-such-model"):
        await engine.ensure_shard(Shard("no-such-model", 0, 3, 4))


@pytest.mark.parametrize("backend", KINDS)
async def test_an_error_reaches_the_first_steps_caller(use, model_id, backend):
    def failing(self, *args):
        raise OSError("the device went away")

    name = "answer" if backend is ToyAnswers else "step"
    engine = use(type("Failing", (backend,), {name: failing}))
    with pytest.raises(EngineError, match=r": the device went away$"):
        await engine.infer_prompt("r", full_shard(engine, model_id), "abc")


async def test_sampling_knows_its_request_however_they_interleave(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    prompts = ["a", "m", "x", "abc", "q"]
    work = [generate([engine], [shard], p * 2, request_id=p) for p in prompts]
    answers = await asyncio.gather(*work)
    for prompt, ids in zip(prompts, answers, strict=True):
        assert ids[0] == VOCABULARY.index(prompt[-1]) + 1
        assert ids[-1] == END
    assert len(engine.engine.requests) == 0


async def test_sampling_takes_the_largest_logit_or_draws_from_the_nucleus(use):
    engine = use(ToyBackend)
    logits = np.log(np.array([[[0.5, 0.4, 0.1]]], dtype=np.float32))
    assert (await engine.sample(logits, temp=0.0)).tolist() == [0]
    drawn = {int((await engine.sample(logits, temp=1.0, top_p=0.8)).item()) for _ in range(200)}
    assert drawn == {0, 1}


async def test_every_eos_id_becomes_the_one_that_exo_knows(use, model_id):
    engine = use(ToyBackend)
    write_tokenizer(get_repo(model_id, ENGINE_CLASS), END, also=(STOP,))
    ids = await generate([engine], [full_shard(engine, model_id)], "xyz")
    assert ids == [VOCABULARY.index(" "), END]
    assert (await engine.sample(np.array([[STOP]]))).tolist() == [END]


async def test_a_closed_engine_loads_again(use, model_id):
    engine = use(ToyBackend)
    shard = full_shard(engine, model_id)
    first = text_of(engine, await generate([engine], [shard], "xyz", request_id="one"))
    await engine.close()
    assert engine.shard is None
    again = text_of(engine, await generate([engine], [shard], "xyz", request_id="two"))
    assert again == first


async def test_an_answer_that_never_came_in_leaves_nothing(use, model_id, monkeypatch):
    engine = use(ToyAnswers)
    shard = full_shard(engine, model_id)
    monkeypatch.setattr(requests, "MOST", 1)
    monkeypatch.setattr(requests, "WAIT_SECONDS", 0.01)
    await engine.infer_prompt("first", shard, "abc")
    with pytest.raises(EngineError, match="in flight already"):
        await engine.infer_prompt("second", shard, "abc")
    assert list(engine.engine.requests) == ["first"]
