"""exo 0.3: a load that fails, and the end of an instance, a process and a node."""

import os
import signal
import time

import pytest
from node_0_3 import node
from toy_plugin import MODEL, SLOW, begin, make, python_path


def test_a_load_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    plugin = make(
        tmp_path / "plugins",
        """
class Backend(Backend):
    def load(self, layers, folder, tokenizer):
        raise RuntimeError("the toy has no battery")
""",
    )
    with node(tmp_path, python_path=python_path(plugin)) as exo:
        exo.place(MODEL)
        failed = exo.events[-1]
        assert failed["what"] == "RunnerFailed"
        assert "could not load exo_kit/toy: the toy has no battery" in failed["more"]
        assert exo.wait_for("ended")["more"] == 1


def test_a_load_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    plugin = make(
        tmp_path / "plugins",
        """
class Backend(Backend):
    def load(self, layers, folder, tokenizer):
        while not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.01)
        super().load(layers, folder, tokenizer)
""",
    )
    settings = {"TOY_NOTES": str(tmp_path / "notes"), "GO_ON": str(tmp_path / "go on")}
    with node(tmp_path, python_path=python_path(plugin), **settings) as exo:
        exo.send(place=MODEL)
        for _ in range(2):
            exo.wait_for("RunnerLoading")
        (tmp_path / "go on").touch()
        exo.wait_for("RunnerReady")
    progress = [event["more"] for event in exo.events if event["what"] == "RunnerLoading"]
    assert len(progress) >= 3
    assert (progress[0], progress[-1]) == ([0, 2], [2, 2])
    assert progress == sorted(progress)


def test_a_deleted_instance_gives_the_device_back(started):
    exo = started()
    exo.send(delete=True)
    assert exo.wait_for("ended")["more"] == 0
    assert exo.notes().count("close") == 1


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_gives_the_device_back_and_ends_the_process_at_once(started, busy):
    exo = started(SLOW)
    if busy:
        begin(exo, "long")
        exo.wait_for("TokenChunk")
    begun = time.monotonic()
    os.kill(exo.pid, signal.SIGTERM)
    assert exo.wait_for("ended")["more"] == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 30  # its answer would take hours
    assert exo.notes().count("close") == 1


def test_the_end_of_a_killed_node_ends_its_runner(started):
    exo = started()
    exo.process.kill()
    exo.gone()
    assert exo.notes().count("close") == 1


def test_metrics_are_served_on_the_next_free_port(started):
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        exo = started(EXO_KIT_METRICS_PORT=str(port))
        line = next(line for line in exo.log.splitlines() if "metrics are at" in line)
        address = line.partition("metrics are at ")[2]
        assert address != f"http://127.0.0.1:{port}/metrics"
        exo.ask("a", max_output_tokens=2)
        with urllib.request.urlopen(address) as reply:
            assert (
                'exo_kit_requests_total{cause="",outcome="finished"} 2.0' in reply.read().decode()
            )
