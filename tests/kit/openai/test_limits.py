"""A server's limit of tokens, in any wording, is kept after one refusal."""

import pytest
from hosting import within
from played import chunk, data, error, whole

from exo_kit.kit.contract import RequestError
from exo_kit.kit.openai.refusal import limit_in

ONLY_OUTPUT = "max_tokens is too large: 10000. This model supports at most 4,096 completion tokens"
SUM = "13000 tokens are requested (3000 in the messages, 10000 in the completion), of 12000 at most"


@pytest.mark.parametrize(
    ("words", "prompt", "limit"),
    [
        ("max_tokens must be at most 2048 for qwen3-30b-2507", 20, 2048),
        (ONLY_OUTPUT, 5000, 4096),
        ("Requested tokens (10030) exceed context window of 2048", 40, 2048),
        (SUM, 3000, 12_000),
        ("max_tokens: Input should be less than or equal to 512", 20, 512),
        ("the answer's length exceeds what this deployment allows", 20, 1024),
        ("request (5000 tokens) exceeds the available context size (4096 tokens)", 4990, None),
        ("`top_p` must be > 0.0 and < 1.0", 20, None),
        ("Extra inputs are not permitted: seed", 20, None),
        ("model qwen2.5-72b not found", 20, None),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 20, 8192),
        ("field MaxTokens invalid, should be in [1, 4096]", 20, 4096),
        ("max_tokens (current value: 10000) must be between 0 and 4000 ", 20, 4000),
        ("Invalid 'tools': array too long. Expected maximum length 128, but got 130", 20, None),
        ("messages.0.content: string too long, at most 4096 characters in length", 20, None),
    ],
)
def test_a_limit_is_understood_in_any_wording(words, prompt, limit):
    room = limit_in(words, prompt, 10_000)
    assert (room[0] if room else None) == limit


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (
            "10000 exceeds the 177 tokens that a prompt of 23 leaves of the context of 200",
            (200, 23),
        ),
        ("context of 200 tokens, prompt 150, left 50: max_tokens of 10000 is over it", (200, 150)),
        ("<400> InvalidParameter: Range of max_tokens should be [1, 8192]", (8192, 20)),
        ("Error code: 400 - max_tokens must be less than or equal to 8192 tokens", (8192, 20)),
    ],
)
def test_the_prompt_is_told_from_what_it_leaves_and_from_a_status(words, limit):
    assert limit_in(words, 150 if "150" in words else 20, 10_000) == limit


@pytest.mark.parametrize("played", ["litellm"], indirect=True)
async def test_a_limit_that_did_not_help_is_not_kept(played, asking, plays):
    plays(refuses=lambda _: (400, error("a context length of 40 tokens is exceeded")))
    with pytest.raises(RequestError, match="length of 40"):
        await within(30, whole(asking, "a", most=10_000))
    plays(events=data(chunk({"content": "Hello"}), chunk({}, "stop"), "[DONE]"))
    await within(30, whole(asking, "b", most=10_000))
    assert played.bodies[-1]["max_tokens"] == 10_000
