"""`python tests/fuzz/run.py TARGET PLUGIN SECONDS`: a fuzzer over one reader of a rendered plugin.

With atheris it is led by coverage, else by hypothesis. Nothing found ends with 0.
"""

import random
import resource
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path


def main(target: str, plugin: Path, seconds: int) -> int:
    sys.path[:0] = [str(plugin), str(Path(__file__).parent)]
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # a memory attack shows as one
    package = next(p.parent.name for p in plugin.glob("*/backend.py"))
    folder = Path(tempfile.mkdtemp())
    try:
        import atheris
    except ImportError:
        return by_hypothesis(import_module(target).attack_in(folder, package), seconds)
    with atheris.instrument_imports(include=[package]):
        attack = import_module(target).attack_in(folder, package)
    corpus = folder / "corpus"  # begun with long inputs: short ones are mostly zeros here
    corpus.mkdir()
    for n in range(100):
        (corpus / str(n)).write_bytes(random.Random(n).randbytes(400))
    argv = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        "-max_len=400",
        "-len_control=0",
        "-timeout=60",
    ]
    argv += ["-rss_limit_mb=0", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    atheris.Setup(argv, attack)
    atheris.Fuzz()
    return 0


def by_hypothesis(attack, seconds: int) -> int:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=400))
    def run(data: bytes) -> None:
        attack(data)

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3])))
