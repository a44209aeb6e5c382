"""No variant speaks of another's: the two that talk to servers share files, and no words."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

PlugInOf = Callable[[str], Path]

ROCKCHIP = re.compile(r"rockchip|rkll|rk35\d\d|\bnpu", re.IGNORECASE)
# exo's own: its address, and its engine of that name, which the stand-in and a test of exo have.
EXOS = re.compile(r"jfreed-dev/exo-rkllama")
EXOS_FILES = re.compile(r"tests/(standin/.*|test_traps\.py)")

OTHERS = re.compile(
    r"openai|vllm|llama\.cpp|sglang|tensorrt|lm studio|ollama|api_key", re.IGNORECASE
)
# The dialect's name, and what it is.
DIALECT = re.compile(r"`openai`|\bOpenAI-compatible server\b|\blegacy, rkllama or openai\b")


def texts(plugin: Path) -> Iterator[tuple[str, str]]:
    """A plugin's own files, each as its path and, with that, its text."""
    for path in sorted(plugin.rglob("*")):
        name = path.relative_to(plugin).as_posix()
        if path.is_file() and not re.match(r"\.git/|\.copier-answers|.*__pycache__", name):
            yield name, f"{name}\n{path.read_text(encoding='utf-8')}"


def said(source: str) -> Iterator[str]:
    """The strings of a module that a user may see: all but a name by itself, and docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        string = node.value if isinstance(node, ast.Constant) else None
        if isinstance(string, str) and id(node) not in docstrings and string != "openai":
            yield string


def test_no_file_of_an_openai_plugin_speaks_of_rockchip(plugin_of: PlugInOf) -> None:
    found = [
        f"{name}: {line}"
        for name, text in texts(plugin_of("openai"))
        if not EXOS_FILES.fullmatch(name)
        for line in text.splitlines()
        if ROCKCHIP.search(EXOS.sub("", line))
    ]
    assert not found


def test_what_rkllms_user_reads_speaks_of_openai_by_the_dialects_name_alone(
    plugin_of: PlugInOf,
) -> None:
    plugin = plugin_of("rkllm")
    pages = ("README.md", "CONTRIBUTING.md", "CAPABILITIES.md", "pyproject.toml")
    read = {name: [text] for name, text in texts(plugin) if name in pages}
    read |= {
        n: [*said(t.partition("\n")[2])] for n, t in texts(plugin / "exo_rkllm") if n[-3:] == ".py"
    }
    assert read.keys() >= {*pages, "kit/rkllm/settings.py", "kit/server/client.py"}
    found = [
        f"{name}: {line}"
        for name, strings in read.items()
        for text in strings
        for line in DIALECT.sub("", text).splitlines()
        if OTHERS.search(line)
    ]
    assert not found
