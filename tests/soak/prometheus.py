"""A real Prometheus scrapes a real node, and answers the queries of the rendered README.

Run by hand, in an environment with this repository's test extra, EXO_PYTHON set as for
tests/test_real_exo.py, with `prometheus` and `promtool` on PATH (Debian: prometheus):

    python tests/soak/prometheus.py

Prints case, what was seen and its bound, and ends with 1 when one is over.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from nodes import PACKAGE, Later, Node, Table, World, ask, wait
from real_exo import free_ports, get, get_text, process

SECONDS = 20  # of answers before the queries


def queries(readme: str) -> dict[str, str]:
    """The queries of the README by the question above each."""
    [block] = re.findall(r"```promql\n(.*?)```", readme, re.DOTALL)
    lines = block.splitlines()
    return dict(zip(lines[::2], lines[1::2], strict=True))


def lint(node: Node) -> str:
    """What promtool has to say about this plugin's own metrics."""
    text = get_text(f"{node.api}/metrics")
    own = [line for line in text.splitlines() if PACKAGE in line]
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input="\n".join(own) + "\n",
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).strip() if done.returncode else ""


def main() -> int:
    """One ring of two, and a Prometheus that scrapes it."""
    table = Table()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        world = World(folder)
        asked = queries((folder / "exo-numpy" / "README.md").read_text("utf-8"))
        with world.ring("scraped", 2, tokens=60) as nodes:
            targets = [node.api.removeprefix("http://") for node in nodes]
            jobs = [{"job_name": "exo", "static_configs": [{"targets": targets}]}]
            config = folder / "prometheus.yml"  # JSON is YAML
            every = {"scrape_interval": "1s"}
            config.write_text(json.dumps({"global": every, "scrape_configs": jobs}))
            [port] = free_ports(1)
            command = [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/tsdb",
            ]
            command += [f"--web.listen-address=127.0.0.1:{port}"]
            api = f"http://127.0.0.1:{port}/api/v1"
            with process(*command, log=folder / "prometheus.log"):
                assert wait(lambda: get(f"{api}/targets")), (folder / "prometheus.log").read_text()
                until = time.monotonic() + SECONDS
                while time.monotonic() < until:
                    running = [Later(node.api, "What is an NPU?", True) for node in nodes]
                    table.over += any(each.get().status != 200 for each in running)
                    nodes[0].play(fails_at=1)
                    ask(nodes[0].api, "one that fails")
                    nodes[0].play()
                up = get(f"{api}/query?query=sum(up)")
                scraped = up["data"]["result"][0]["value"][1] if up else "0"
                table.true("both nodes are scraped", scraped == "2", scraped)
                for question, query in asked.items():
                    told = get(f"{api}/query?query={quote(query)}")
                    result = told["data"]["result"] if told else []
                    values = [float(each["value"][1]) for each in result]
                    well = bool(values) and all(map(math.isfinite, values))
                    table.true(question.removeprefix("# ")[:58], well, values)
            for node in nodes:
                table.true(f"promtool on {node.name}", not lint(node), lint(node) or "clean")
    print(f"{table.over} over")
    return int(table.over > 0)


if __name__ == "__main__":
    sys.exit(main())
