"""A real Prometheus that scrapes real nodes, and the queries of a rendered README."""

import json
import re
import shutil
import subprocess
import time
from math import isfinite
from pathlib import Path
from urllib.parse import quote

from client_0_0 import wait
from host_0_0 import free_ports, get, get_text, process
from nodes_0_0 import Node

SECONDS = 20  # of answers before the queries

__all__ = ["isfinite", "lint", "scraped", "why_not"]


def why_not() -> str | None:
    """Why none runs here; None where one can."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{missing[0]} is not on PATH (Debian: prometheus)" if missing else None


def queries(readme: Path) -> list[str]:
    """The README's queries."""
    [block] = re.findall(r"```promql\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)
    return [str(line) for line in block.splitlines() if line and not line.startswith("#")]


def lint(node: Node) -> str:
    """What promtool has to say about this plugin's own metrics."""
    lines = get_text(f"{node.api}/metrics").splitlines()
    own = [line for line in lines if node.variant.package in line]
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input="\n".join(own) + "\n",
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).strip() if done.returncode else ""


def scraped(nodes: list[Node], readme: Path, folder: Path) -> dict[str, list[float]]:
    """What each query gives after some answers, and one that failed."""
    targets = [node.api.removeprefix("http://") for node in nodes]
    jobs = [{"job_name": "exo", "static_configs": [{"targets": targets}]}]
    config = folder / "prometheus.yml"  # JSON is YAML
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    [port] = free_ports(1)
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    api = f"http://127.0.0.1:{port}/api/v1"
    results = {}
    with process(*command, log=folder / "prometheus.log"):
        assert wait(lambda: get(f"{api}/targets")), (folder / "prometheus.log").read_text()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            running = [node.later("What is an NPU?", True) for node in nodes]
            assert all(each.get().status == 200 for each in running)
            nodes[0].play(fails_at=1)
            nodes[0].ask("one that fails")
            nodes[0].play()
        for query in ["sum(up)", *queries(readme)]:
            reply = get(f"{api}/query?query={quote(query)}")
            result = reply["data"]["result"] if reply else []
            results[query] = [float(each["value"][1]) for each in result]
    return results
