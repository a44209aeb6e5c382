"""What a plugin's README and CONTRIBUTING say: their commands, their settings, their links."""

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import variants
from test_rendered_plugin import make_venv, run
from test_workflows import BASH, ELSEWHERE, bash, here

PAGES = ("README.md", "CONTRIBUTING.md", "docs/operating.md")
# What a command may need that is not here. A comment says so (`# needs GitHub`), or it shows.
NEEDS = {
    "exo": r"^(DEBUG=2 )?exo |^curl http://localhost:52415/|^exo-\w+ doctor$",
    "a board, or a server": r"^exo-rkllm (generate|bench|models)\b",
    "a server": r"^exo-(rkllm|openai) (generate|bench|models)\b",
    "a download": r"^exo-(numpy|onnx) .*--model smollm2-",
    "a commit": r" COMMIT ",
    "GitHub": r"exo @ git\+https://|^copier update ",
}
SITES = (
    "http://localhost:52415/",  # exo, in a command
    "http://localhost:8080",
    "http://my-board:8080",
    "https://docs.pypi.org/trusted-publishers/",
    "https://github.com/NotPunchnox/rkllama",
    "https://github.com/exo-explore/exo",
    "https://github.com/jfreed-dev/exo-rkllama",
    "https://github.com/jfreed-dev/rkllama",
    "https://github.com/ada/exo-engine-template",
)


@dataclass
class Command:
    """One command of a page, what it needs, and the output that the page shows."""

    text: str
    needs: str = ""
    output: list[str] = field(default_factory=list)


def commands(page: str) -> Iterator[Command]:
    """The commands in the console blocks of a page, a chain of `&&` as one each."""
    for block in re.findall(r"^( *)```console\n(.*?)\n\1```$", page, re.M | re.S):
        body = textwrap.dedent(block[1]).replace("\\\n", " ")
        for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
            line, *output = part.splitlines()
            text, _, comment = re.sub(r"\s{2,}# ", "\0", line, count=1).partition("\0")
            marked = re.search(r"\bneeds (.+)$", comment)
            *first, last = text.strip().split(" && ")
            yield from (Command(one, needed(one)) for one in first)
            yield Command(last, marked[1] if marked else needed(last), output)


def needed(text: str) -> str:
    """What a command plainly needs, or nothing."""
    return next((what for what, pattern in NEEDS.items() if re.search(pattern, text)), "")


def text_of(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


@pytest.fixture(params=variants())
def plugin(request: pytest.FixtureRequest, plugin_of: Callable[[str], Path]) -> Path:
    return plugin_of(request.param)


def shows(output: list[str]) -> str:
    """A pattern for the output of a page: numbers and what stands for `…` may be others."""
    pattern = re.escape("\n".join(output)).replace("…", ".*")
    return re.sub(r"(\\ )+", r"\\s+", re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", pattern))


@pytest.mark.skipif(BASH is None, reason="bash is not here")
def test_every_command_works_or_says_what_it_needs(
    plugin: Path, checker: Path, tmp_path: Path
) -> None:
    folder, venv = shutil.copytree(plugin, tmp_path / plugin.name), tmp_path / "venv"
    make_venv(venv)
    prepare(folder)
    done: dict[str, str] = {}
    pages = PAGES if folder.name == "exo-numpy" else PAGES[:1]  # the others are the same
    for command in (c for page in pages for c in commands(text_of(folder, page))):
        assert command.needs in {"", *NEEDS}, f"{command.text}: nobody can tell what this is"
        if command.needs or command.text in ELSEWHERE:
            continue
        if command.text not in done:
            done[command.text] = bash(venv, here(command.text, checker), folder)
        output = done[command.text]
        assert re.search(shows(command.output), output), f"{command.text}\n{output}"
    assert len(done) >= 3


def prepare(folder: Path) -> None:
    """Make of a rendered plugin what its pages take for granted."""
    if "path/to/checkpoint" in text_of(folder, "README.md"):
        (folder / "path/to").mkdir(parents=True)
        write = "from exo_numpy.kit.llama.random_checkpoint import Path, write_checkpoint as write"
        run(sys.executable, "-c", f"{write}; write(Path('path/to/checkpoint'))", cwd=folder)
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", *author, "commit", "--quiet", "--message", "A plugin", cwd=folder)


def test_a_command_that_needs_something_is_known_by_its_comment_or_by_itself() -> None:
    page = """
```console
$ one && exo --x     # comes last
  out
$ two \\
    --long     # needs GitHub
```
1. Text
   ```console
   $ three  'a # b'
   ```
"""
    assert [(c.text, c.needs, c.output) for c in commands(page)] == [
        ("one", "", []),
        ("exo --x", "exo", ["  out"]),
        ("two      --long", "GitHub", []),
        ("three  'a # b'", "", []),
    ]


def test_every_variant_has_the_same_contributing(plugin_of: Callable[[str], Path]) -> None:
    [first, *rest] = [list(commands(text_of(plugin_of(v), PAGES[1]))) for v in variants()]
    assert len(first) >= 8
    assert all(other == first for other in rest)


def test_each_need_is_one_of_some_page(plugin_of: Callable[[str], Path]) -> None:
    pages = [text_of(plugin_of(variant), page) for variant in variants() for page in PAGES]
    plain = {needed(c.text) for page in pages for c in commands(page)}
    assert plain == {"", *NEEDS}


def test_the_readme_is_short(plugin: Path) -> None:
    assert len(text_of(plugin, "README.md").encode()) <= 10_240


def test_two_commands_lead_the_readme(plugin: Path) -> None:
    first = text_of(plugin, "README.md").split("```console\n", 1)[1].split("```", 1)[0]
    assert len(re.findall(r"^\$ ", first, re.M)) == 2
    assert len([line for line in first.splitlines() if not line.startswith("$ ")]) >= 1


def test_every_setting_that_the_code_reads_is_in_the_readme(plugin: Path) -> None:
    sources = [path.read_text(encoding="utf-8") for path in plugin.glob("exo_*/**/*.py")]
    environment_calls = r"""\benviron(?:\.get\(|\[)"([A-Z_]+)"|\b(HF_HUB_OFFLINE)\b"""
    read = {one or two for text in sources for one, two in re.findall(environment_calls, text)}
    [engine] = re.findall(r'^ENGINE_NAME = "(\w+)"', "\n".join(sources), re.M)
    own = r"""settings\.\w+\(\s*"([A-Z_]+)"|\bPREFIX\}([A-Z_]{4,})"""
    names = {one or two for text in sources for one, two in re.findall(own, text)}
    read |= {f"EXO_{engine.upper()}_{name}" for name in names}
    for text in sources:  # a server's have the prefix that their file gives
        prefix = re.search(r"""Environment\(environ(?:, "(\w+)")?\)""", text)
        calls = re.findall(r"""\benv\.(?!wrong)(\w+)\("([A-Z_]+)\"""", text) if prefix else []
        own = {name for _, name in calls} | {f"{name}_FILE" for how, name in calls if how == "key"}
        read |= {(prefix[1] or f"EXO_{engine.upper()}_") + name for name in own if prefix}
    page = text_of(plugin, "README.md")
    documented = set(re.findall(r"^\| `([A-Z]+_[A-Z_]+|DEBUG)` \|", page, re.M))
    assert {"EXO_HOME", "EXO_PLUGIN_HOST_FIXES", "HF_HUB_OFFLINE"} <= read
    of_layers = {f"EXO_{engine.upper()}_{name}" for name in ("STEP_SECONDS", "CACHE_BYTES")}
    assert of_layers <= read
    if (plugin / f"exo_{plugin.name[4:]}/kit/server").exists():
        read -= of_layers  # they do nothing where a server has the model
    assert read <= documented
    every = "".join(sources)
    assert [name for name in documented if name not in read and name not in every] == []


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_links_lead_to_something(plugin: Path) -> None:
    for page in PAGES:
        text = text_of(plugin, page)
        for target in re.findall(r"\]\(([^)]+)\)|<(https?://[^>]+)>", text):
            link = target[0] or target[1]
            if link.startswith(("http:", "https:")):
                assert link in SITES, f"{page}: {link}"
                continue
            name, _, part = link.partition("#")
            assert (plugin / (name or page)).exists(), f"{page}: {link}"
            headings = re.findall(r"^#+ (.*)$", text_of(plugin, name or page), re.M)
            assert not part or part in map(anchor, headings), f"{page}: {link}"


def test_every_other_address_is_known_too(plugin: Path) -> None:
    for page in PAGES:
        for address in re.findall(r"https?://[^\s)>\"'`]+", text_of(plugin, page)):
            assert address.startswith(SITES), f"{page}: {address}"


def test_every_known_address_is_used(plugin_of: Callable[[str], Path]) -> None:
    every = "".join(text_of(plugin_of(v), page) for v in variants() for page in PAGES)
    assert [site for site in SITES if site not in every] == []


def test_files_that_the_pages_name_exist(plugin: Path) -> None:
    made = {"exo_numpy/operations.py"}  # step 3 makes it
    for page in PAGES:
        named = re.findall(r"`((?:exo_\w+|tests|\.github)/[\w./-]+)`", text_of(plugin, page))
        assert [name for name in named if not (plugin / name).exists() and name not in made] == []
