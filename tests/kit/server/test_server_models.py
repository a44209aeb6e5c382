"""Which of a server's models is meant."""

import pytest

from exo_kit.kit.cards import Model
from exo_kit.kit.server.client import ServerError
from exo_kit.kit.server.models import Several, choose_model

MODEL = Model("qwen2.5-1.5b-instruct", "Qwen 2.5", "Qwen/Qwen2.5-1.5B-Instruct", 28)


def choose(names, model=None):
    return choose_model(MODEL, names, model, "SOME_MODEL")


@pytest.mark.parametrize(
    "name",
    [
        "Qwen2.5-1.5B-Instruct",
        "qwen2.5-1.5b-instruct",
        "Qwen2.5-1.5B-Instruct-w8a8-opt-1",
        "Qwen2.5-1.5B-Q4_K_M",
        "Qwen/Qwen2.5-1.5B-Instruct",
    ],
)
def test_a_models_name_is_found(name):
    assert choose(["Qwen2.5-14B-Instruct", name, "Qwen2.5-3B-Instruct"]) == name


def test_the_same_name_comes_before_the_same_without_case():
    names = ["QWEN2.5-1.5B-Instruct", "Qwen2.5-1.5B-Instruct"]
    assert choose(names) == "Qwen2.5-1.5B-Instruct"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Phi-3"], "has no .*models are: Phi-3.*Set SOME_MODEL"),
        ([], "none"),
        (["Qwen2.5-1.5B-Instruct-a", "Qwen2.5-1.5B-Instruct-b"], "several"),
        (["Qwen2.5-1.5Bit"], "has no"),
        (["Qwen2.5-1.5B-base", "Qwen2.5-1.5B-Instruct-Math-Q8_0"], "has no"),
        (["m\x1b[31m"] * 1000, r"m \[31m, and 970 more"),
    ],
)
def test_none_or_several_is_an_error_that_lists_them(names, words):
    with pytest.raises(ServerError, match=words):
        choose(names)


def test_several_is_told_from_none():
    with pytest.raises(Several):
        choose(["Qwen2.5-1.5B-Instruct-a", "Qwen2.5-1.5B-Instruct-b"])
    with pytest.raises(ServerError) as caught:
        choose(["Phi-3"])
    assert not isinstance(caught.value, Several)


def test_a_setting_says_which():
    assert choose(["a", "b"], "b") == "b"
    with pytest.raises(ServerError, match="SOME_MODEL is 'c', but the server has: a, b"):
        choose(["a", "b"], "c")
