"""The operations board of ONNX Runtime: the graph's pieces beside the reference's operations."""

import pytest
from checkpoints import tokens
from onnx_models import CONFIGS

from exo_kit.backend import Backend
from exo_kit.kit.board import device
from exo_kit.kit.board.cases import DEFAULT, parsed
from exo_kit.kit.board.child import verdict
from exo_kit.kit.command.cli import main
from exo_kit.kit.llama.difference import first_difference
from exo_kit.kit.llama.random_checkpoint import write_checkpoint
from exo_kit.kit.onnx import graph, matrices, operations
from exo_kit.kit.onnx.providers import ProviderError
from exo_kit.kit.settings import PREFIX
from exo_kit.plugin import PLUGIN

EVERY = [case for case in DEFAULT if case.operation in device.COMPARED and case.hidden < 128]
SMALL = [case for case in EVERY if case.head_dim % device.HEADS_OF == 0]


def faults(cases=SMALL):
    """The cases that are not right, with what became of them."""
    own = device.own()
    verdicts = {case: verdict(str(case), own, timed=False) for case in cases}
    return {case: each for case, each in verdicts.items() if each.state != "right"}


def test_every_piece_is_right_but_where_onnx_runtime_has_none():
    assert device.HEADS_OF == graph.HEAD_STEP
    others = faults(EVERY)
    assert [case.head_dim for case in others] == [10]
    [one] = others.values()
    assert (one.state, one.why) == ("missing", "GroupQueryAttention takes multiples of 16, not 10")


def test_what_is_compared_is_what_the_provider_has():
    own = device.own()
    assert {*own.table, "model"} == set(device.COMPARED)
    assert (own.whose, own.tolerance) == ("CPU", 1e-4)


def a_wrong_epsilon(monkeypatch):
    def rms_norm(g, x, name, size):
        return g.SimplifiedLayerNormalization(x, g.weight(f"{name}.weight", size), epsilon=1e-6)

    monkeypatch.setattr(graph, "rms_norm", rms_norm)


def a_missing_bias(monkeypatch):
    right = graph.linear
    monkeypatch.setattr(
        graph, "linear", lambda g, x, name, i, o, bias=False: right(g, x, name, i, o)
    )


def a_turn_backwards(monkeypatch):
    right = matrices.rotations

    def rotations(config, kind):
        both = right(config, kind)
        return both | {"sin": -both["sin"]}

    monkeypatch.setattr(matrices, "rotations", rotations)


def off_by_one_in_the_window(monkeypatch):
    right = graph.Graph.__getattr__

    def node(self, operator):
        made = right(self, operator)
        if operator != "GroupQueryAttention":
            return made
        return lambda *inputs, local_window_size, **others: made(
            *inputs, local_window_size=max(-1, local_window_size + 1) or -1, **others
        )

    monkeypatch.setattr(graph.Graph, "__getattr__", node)


def an_activation_of_the_wrong_half(monkeypatch):
    def mlp(g, x, name):
        c, sizes = g.config, g.constant("sizes", *[g.config.intermediate_size] * 2)
        both = graph.linear(g, x, f"{name}.gate_up_proj", c.hidden_size, 2 * c.intermediate_size)
        g.Split(both, sizes, axis=2, names=("gate", "up"))
        mixed = g.Mul("gate", g.Mul("up", g.Sigmoid("up")))
        return graph.linear(g, mixed, f"{name}.down_proj", c.intermediate_size, c.hidden_size)

    monkeypatch.setattr(graph, "mlp", mlp)


# A larger piece of the graph has the smaller ones in it, and is wrong with them.
@pytest.mark.parametrize(
    ("fault", "first", "others"),
    [
        (a_wrong_epsilon, "rms_norm", ["linear", "attend", "mlp"]),
        (a_missing_bias, "linear", ["rms_norm", "attend", "logits"]),
        (a_turn_backwards, "attention", ["rms_norm", "linear", "attend", "mlp", "logits"]),
        (off_by_one_in_the_window, "attend", ["rms_norm", "linear", "mlp", "logits"]),
        (an_activation_of_the_wrong_half, "mlp", ["rms_norm", "linear", "attend", "attention"]),
    ],
)
def test_a_planted_fault_is_found_where_it_is(monkeypatch, fault, first, others):
    fault(monkeypatch)
    cases = [case for case in SMALL if case.operation in (first, *others)]
    wrong = faults(cases)
    assert {case.operation for case in wrong} == {first}
    assert {each.state for each in wrong.values()} == {"wrong"}


def test_a_parity_test_that_fails_names_the_piece(monkeypatch, tmp_path):
    """As tests/test_backend.py asks."""
    write_checkpoint(tmp_path, CONFIGS["mistral"])
    a_turn_backwards(monkeypatch)
    steps, own = (tokens(20), tokens(1, 1)), device.own().operations
    difference = first_difference(Backend, tmp_path, steps, 1e-5, own)
    assert difference.startswith(
        "layer 0 is the first that differs: in step 1, of 20 positions, by "
    )
    assert "; there, attention is the first operation, by " in difference


def test_what_a_provider_takes_no_node_of_is_not_there(monkeypatch):
    def session(*_):
        raise ProviderError("NPU started, and takes no node of this graph: CPU 3")

    monkeypatch.setattr(operations, "session", session)
    [one] = faults([parsed("linear")]).values()
    assert (one.state, one.why[:11]) == ("missing", "NPU started")


def test_a_session_ends_with_the_weight_that_it_is_of():
    own = device.own()
    pieces = own.table["linear"].__self__
    assert verdict("linear rows=3", own, timed=False).state == "right"
    assert pieces._sessions == {}


def test_the_command_says_what_was_compared(tmp_path, capsys):
    report = tmp_path / "OPERATIONS.md"
    assert main(PLUGIN, ["ops", "rms_norm", "attend", "--report", str(report)]) == 0
    rows = [line for line in report.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| rms_norm", "CPU"], ["| attend", "CPU"]]
    assert main(PLUGIN, ["ops", "--case", "attend head_dim=10"]) == 2  # nothing was run
    assert "attend: not there: GroupQueryAttention takes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("PRECISION", "int4", "the reference has no small numbers"),
        ("PROVIDER", "NPU", "NPU is none of the providers here"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(monkeypatch, capsys, name, value, why):
    monkeypatch.setenv(PREFIX + name, value)
    assert main(PLUGIN, ["ops", "--case", "linear"]) == 2
    assert why in capsys.readouterr().err
