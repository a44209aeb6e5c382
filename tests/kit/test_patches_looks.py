"""A patch looks first: an exo without the fault is left alone, and an unknown one is patched."""

import asyncio
from types import SimpleNamespace

import pytest
from patched import FAULTS

from exo_kit.kit.hosts.exo_0_0.patches import looks
from exo_kit.kit.hosts.exo_0_0.patches.looks import result_of


async def ends_and_waits(node, *_):
    """update_peers: answers in flight end, and who doesn't answer stays out."""
    peers = [peer for peer in await node.discovery.discover_peers() if await peer.health_check()]
    for request_id in node.outstanding_requests:
        node.trigger_on_token_callbacks(request_id, [0], True)
    node.peers = peers


async def ends_alone(node, *_):
    """update_peers: answers in flight end, but a peer that doesn't answer is taken in."""
    node.trigger_on_token_callbacks("request", [0], True)
    node.peers = await node.discovery.discover_peers()


def ring_look(lock):
    """collect_topology, one at a time where there is a lock."""

    async def collect_topology(node, visited):
        async with lock or asyncio.Semaphore(2):
            nodes = {node.id: None}
            for peer in node.peers:
                nodes[peer.id()] = None
                await peer.collect_topology(visited)
            node.topology = SimpleNamespace(nodes=nodes)

    return collect_topology


async def shutdown_that_closes(signal, loop, server):
    """It ends every other task of its loop, as exo's does."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    print("Thank you for using exo.")
    await server.node.inference_engine.close()
    await server.stop()


async def shutdown_of_exo(signal, loop, server):
    await server.stop()


async def refuses_layers(node, shard, *_):
    mine = node.get_current_shard(shard)
    assert mine.start_layer == shard.start_layer, "these are other layers"


async def ends_on_the_way(node, shard, tensor, request_id, index):
    try:
        node.partitioning_strategy.partition(node.topology)
    except ValueError:
        await node.broadcast_result(request_id, [0], True)


async def drops_tokens(*_):
    pass


async def keeps_tokens(api, request_id, tokens, is_finished):
    await api.token_queues[request_id].put((tokens, is_finished))


CASES = [
    ("drop_unread_tokens", keeps_tokens, True),
    ("drop_unread_tokens", drops_tokens, False),
    ("end_orphans", ends_and_waits, False),
    ("end_orphans", ends_alone, True),
    ("one_look_at_a_time", ring_look(asyncio.Lock()), False),
    ("one_look_at_a_time", ring_look(None), True),
    ("close_at_the_end", shutdown_that_closes, False),
    ("close_at_quit", shutdown_that_closes, False),
    ("close_at_quit", shutdown_of_exo, True),
    ("refuse_other_layers", refuses_layers, True),  # what it raises can mean anything
    ("end_cut_answers", ends_on_the_way, False),
]


@pytest.mark.parametrize(("name", "function", "is_faulty"), CASES)
async def test_a_look_tells_exos_fault_from_its_repair(name, function, is_faulty, capsys):
    assert FAULTS[name]._has_fault(function, None) is is_faulty
    assert capsys.readouterr().out == ""


async def test_a_look_that_waits_has_an_end(monkeypatch):
    monkeypatch.setattr(looks, "SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        result_of(asyncio.Event().wait())


def test_every_patch_looks_or_says_in_a_line_why_it_can_not():
    reasons = [each.look for each in FAULTS.values() if not callable(each.look)]
    assert len(reasons) <= 5
    assert all(len(reason) > 20 and "\n" not in reason for reason in reasons)
