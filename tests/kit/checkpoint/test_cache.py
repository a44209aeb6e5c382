"""The room of one request."""

import numpy as np
import pytest
from checkpoints import CONFIGS

from exo_kit.kit.llama.cache import Cache
from exo_kit.kit.llama.config import Config

CONFIG = Config.from_dict(CONFIGS["llama"])  # its context ends at 400


def fill(cache, more):
    """Positions whose numbers say where they stand."""
    cache.make_room(more)
    for n in range(cache.length, cache.length + more):
        cache.keys[..., n], cache.values[:, :, n] = n, -n
    cache.length += more


def test_room_doubles_and_then_grows_by_steps():
    cache, rooms = Cache(CONFIG, 3), []
    while cache.length < 400:
        fill(cache, 1)
        rooms.append(cache.keys.shape[-1])
    assert sorted(set(rooms)) == [64, 128, 256, 400]
    large = Cache(Config.from_dict(CONFIGS["llama"] | {"max_position_embeddings": 10**6}), 1)
    for used, room in ((2000, 2000), (1, 2256), (256, 2512)):
        fill(large, used)
        assert large.keys.shape[-1] == room


def test_what_it_has_stays_when_it_grows():
    cache = Cache(CONFIG, 3)
    for more in (60, 1, 1, 1, 1, 1, 200):
        fill(cache, more)
    assert cache.keys.shape[:3] == (3, 2, 8)
    assert cache.values.shape[::3] == (3, 8)
    where = np.arange(265)
    np.testing.assert_array_equal(cache.keys[..., :265], np.broadcast_to(where, (3, 2, 8, 265)))
    np.testing.assert_array_equal(cache.values[1, 0, :265, 5], -where)


def test_the_context_ends_a_prompt_and_an_answer():
    cache = Cache(CONFIG, 1)
    with pytest.raises(ValueError, match=r"the prompt is too long: .* 401 tokens.* ends at 400"):
        cache.make_room(401)
    fill(cache, 400)
    with pytest.raises(ValueError, match=r"the answer is too long: .* 401 tokens.* ends at 400"):
        cache.make_room(1)
