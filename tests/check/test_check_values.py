"""What the static check knows of a plugin's values and names; where it can't tell, it is silent."""

import ast
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import guide_plugin as guide
import pytest
from checking import ids
from exo_engine_check.evaluate import UnknownError, text_of, value_of
from exo_engine_check.run import check
from exo_engine_check.source import Package


def package(**sources: str) -> Package:
    """A package `p` of these modules."""
    made = Package()
    made.add("p", "p/__init__.py", "")
    for name, source in sources.items():
        made.add(f"p.{name}", f"p/{name}.py", source)
    return made


def value(source: str, name: str = "X", **others: str) -> Any:
    """A constant of the module `m`, or "unknown"."""
    read = package(m=source, **others)
    try:
        return value_of(read, read.modules["p.m"], name)
    except UnknownError:
        return "unknown"


KNOWN = {
    "a key": ("X = {}\nX['a'] = 1\nX |= {'b': 2}\nX.update({'c': 3})", {"a": 1, "b": 2, "c": 3}),
    "declared first": ("X: dict[str, int]\nX = {'a': 1}", {"a": 1}),
    "bound twice": ("X = {}\nX = {'a': 1}", {"a": 1}),
    "the only branch": ("if __debug__:\n    X = {'a': 1}", {"a": 1}),
    "a comprehension's own name": ("a = 'b'\nY = [a for a in 'xy']\nX = a + a", "bb"),
    "a name of a function": ("a = 'b'\ndef f():\n    a = 'c'\nX = a", "b"),
    "an alias": ("Y = {'a': 1}\nX = Y", {"a": 1}),
    "another's copy": ("Y = {'a': 1}\nX = {**Y}\nX['b'] = 2", {"a": 1, "b": 2}),
    "the module": ("X = __name__", "p.m"),
    "the package": ("X = __package__", "p"),
    "read by a function": ("X = {'a': 1}\ndef f():\n    return X.get('a')", {"a": 1}),
    "given to another dict": ("X = {'a': 1}\ndef f():\n    cards.update(X)", {"a": 1}),
    "a text of texts": ("X = '-'.join(['a', 'b']).replace('-', '+')", "a+b"),
    "a formatted text": ("X = '%s-%d' % ('a', 1)", "a-1"),
    "a sum": ("X = sum([1, 2]) + len('ab')", 5),
    "a format of one": ("X = '%s' % 'a'", "a"),
    "one of several": ("X = 'a' in ['a'] and 1 < 2", True),
}


@pytest.mark.parametrize(("source", "expected"), KNOWN.values(), ids=list(KNOWN))
def test_a_value_that_can_be_told(source: str, expected: Any) -> None:
    assert value(source) == expected


UNKNOWN = {
    "a key of a part": "X = {'a': {}}\nX['a']['b'] = 1",
    "a part's part": "X = {'a': {'b': {}}}\nX['a']['b']['c'] = 1",
    "an update of a part": "X = {'a': {}}\nX['a'].update({'b': 1})",
    "a part that grows": "X = {'a': {}}\nX['a'] |= {'b': 1}",
    "a part by a name": "X = {'a': {}}\ncard = X['a']\ncard['b'] = 1",
    "a part by a method": "X = {'a': {}}\ncard = X.get('a')\ncard.update({'b': 1})",
    "parts in a loop": "X = {'a': {}}\nfor card in X.values():\n    card['b'] = 1",
    "several in a loop": "X = {'a': {}}\nY = {}\nfor one in (X, Y):\n    one['b'] = 1",
    "parts by number": "X = [{}]\nfor i, card in enumerate(X):\n    card['b'] = i",
    "by another name": "X = {}\nY = X\nY['a'] = 1",
    "by a function": "X = {}\ndef f(name):\n    X[name] = 1\nf('a')",
    "by a function's name": "X = {}\ndef f(name):\n    cards = X\n    cards[name] = 1\nf('a')",
    "by a method": "X = {}\nclass A:\n    def f(self):\n        X['a'] = 1\nA().f()",
    "by a class's body": "X = {}\nclass A:\n    X['a'] = 1",
    "by a lambda": "X = {}\nf = lambda: X.update({'a': 1})\nf()",
    "by a decorator": "X = {}\ndef f(g):\n    X[g.__name__] = 1\n@f\ndef a(): ...",
    "by a global": "X = {}\ndef f():\n    global X\n    X = {'a': 1}\nf()",
    "by whom it is given to": "X = {}\nfill(X)",
    "by whom it is given to by name": "X = {}\nfill('a', cards=X)",
    "if and else": "if a:\n    X = {'a': 1}\nelse:\n    X = {}",
    "try and except": "try:\n    X = {'a': 1}\nexcept OSError:\n    X = {}",
    "a fallback": "X = {}\nif a:\n    X = {'a': 1}",
    "match": "match a:\n    case 1:\n        X = 1\n    case _:\n        X = 2",
    "a loop": "X = {}\nfor a in 'ab':\n    X[a] = 1",
    "a context": "X = {}\nwith a:\n    X['a'] = 1",
    "del": "X = {'a': 1}\ndel X['a']",
    "gone": "X = 1\ndel X",
    "pop": "X = {'a': 1}\na = X.pop('a')",
    "an imported fallback": "from .o import X\nX = {**X, 'a': 1}",
    "an import at last": "X = {}\nfrom elsewhere import X",
    "a name that changes later": "a = 'b'\nX = [a]\na = 'c'",
    "a part that changes later": "a = {'b': 1}\nX = {'a': a}\na['c'] = 2",
    "on one line": "a = 'b'; X = [a]; a = 'c'",
    "an alias of a name that changes": "Y = 1\nX = Y\nY = 2",
    "several targets": "X, Y = 1, 2",
    "itself": "X = X",
    "a function's value": "def Y():\n    global X\n    X = Z\nZ = 1",
    "a method": "X = 'a'.join",
    "what is used up": "X = zip('a', 'b')",
    "one of many": "X = [[1]] == [[1]]",
    "a list in a format": "X = '%s' % [1]",
    "a list as text": "X = str([1])",
    "a list in a text": "X = f'{[1]}'",
    "a sum of lists": "X = sum([[1], [2]], [])",
}


@pytest.mark.parametrize("source", UNKNOWN.values(), ids=list(UNKNOWN))
def test_a_value_that_cant_be_told(source: str) -> None:
    assert value(source, o="X = {}") == "unknown"


OTHERS = {
    "by name": "from .m import X\nX['a'] = 1",
    "by another name": "from .m import X as cards\ncards |= {'a': 1}",
    "by the module": "from . import m\nm.X['a'] = 1",
    "anew": "import p.m\np.m.X = {'a': 1}",
    "in a function": "def f():\n    from .m import X\n    X['a'] = 1\nf()",
    "by a function": "from .m import X\nfill(X)",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
def test_another_module_that_changes_it(other: str) -> None:
    assert value("X = {}", other=other) == "unknown"


def test_another_module_that_has_a_name_like_it() -> None:
    assert value("X = {'a': 1}", other="X = {}\nX['b'] = 2") == {"a": 1}
    assert value("from .o import Y as X", o="X = 1\nY = 2") == 2


LONG = f"S = {'a' * 90_000!r}\n"
LARGE = {
    "bytes": "X = b'%2000000000d' % 1",
    "replaced": f"{LONG}X = S.replace('a', S[:40000])",
    "joined": f"{LONG}X = S[:40000].join(S)",
    "joined copies": f"{LONG}X = ''.join([S for i in range(9000)])",
    "a text": f"{LONG}X = f'{'{S}' * 9000}'",
    "a format": f"{LONG}X = {'%s' * 9000!r} % ({'S,' * 9000})",
}
SLOW = {
    "lists": "X = [len(list(range(100000))) for i in range(9000)]",
    "sorted": "X = [len(sorted(range(100000))) for i in range(9000)]",
    "sums": "X = [sum(range(100000)) for i in range(9000)]",
    "copies of a part": "A = {i: i for i in range(9000)}\nX = {%s}" % ("**A," * 9000),
    "parts of parts": "A = [0 for i in range(9000)]\nX = [A for i in A]",
}


@pytest.mark.parametrize("source", LARGE.values(), ids=list(LARGE))
def test_a_value_that_is_too_large(source: str) -> None:
    tracemalloc.start()
    try:
        assert value(source) == "unknown"
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("source", SLOW.values(), ids=list(SLOW))
def test_a_value_that_takes_too_long(source: str) -> None:
    assert value(source) == "unknown"


def test_a_value_is_worked_out_once() -> None:
    keys = "".join(f"X['m{i}'] = {{'layers': {i}}}\n" for i in range(1500))
    read = package(m=f"X = {{}}\n{keys}Y = {{k: X[k]['layers'] for k in X}}")
    assert value_of(read, read.modules["p.m"], "Y")["m1499"] == 1499
    cards = value_of(read, read.modules["p.m"], "X")
    assert cards is value_of(read, read.modules["p.m"], "X")


def test_a_text_begins_with_its_module() -> None:
    read = package(m="P = __name__.rpartition('.')[0]\nX = f'{P}_{unknown}_total'")
    module = read.modules["p.m"]
    [_, assigned] = module.tree.body
    assert isinstance(assigned, ast.Assign)
    assert text_of(read, module, assigned.value) == ("p_", False)


MODELS = guide.MODELS.partition("\nMY_PRETTY_NAMES")[0]
PRETTY = {
    "of families": ('PRETTY_FAMILY = {"llama": "Llama"}\n', []),
    "of families beside names": (
        'PRETTY_FAMILY = {"my": "My"}\n'
        'PRETTY_NAMES = {"my-model-7b": PRETTY_FAMILY["my"], "my-model-13b": "13B"}\n',
        [],
    ),
    "of half of them each": (
        'PRETTY_7B = {"my-model-7b": "7B"}\nPRETTY_13B = {"my-model-13b": "13B"}\n',
        [],
    ),
    "beside others that can't be told": (
        'PRETTY_7B = {"my-model-7b": "7B"}\nPRETTY_13B = names()\n',
        [],
    ),
    "of other ids": ('MY_PRETTY_NAMES = {"other": "Other"}\n', ["EX406"] * 3),
    "of one": ('PRETTY = {"my-model-7b": "7B"}\n', ["EX406"]),
}


@pytest.mark.parametrize(("pretty", "found"), PRETTY.values(), ids=list(PRETTY))
def test_pretty_names(tmp_path: Path, pretty: str, found: list[str]) -> None:
    assert ids(guide.mended(tmp_path, models=f"{MODELS}\n{pretty}")) == found


@pytest.mark.parametrize(("more", "found"), [("", []), ("OTHER.update(cards())", [])])
def test_pretty_names_of_two_dicts(tmp_path: Path, more: str, found: list[str]) -> None:
    models = f"{guide.MODELS}\nOTHER = {{'other': MY_MODELS['my-model-7b']}}\n{more}\n".replace(
        "MY_PRETTY_NAMES = {", 'MY_PRETTY_NAMES = {"other": "Other",'
    )
    config = f'{guide.GOOD_CONFIG}\n[project.entry-points."exo.models"]'.replace(
        '"exo.models"]\n', '"exo.models"]\nother = "exo_myengine.models:OTHER"\n', 1
    ).rpartition("\n[")[0]
    assert ids(guide.mended(tmp_path, models=models, config=config)) == found


def test_a_card_is_found_by_what_spells_most_of_its_id(tmp_path: Path) -> None:
    models = (
        "NAMES = [\n    'my-a',\n    'my-b',\n]\n"
        "MY_MODELS = {f'{n}-npu': {'layers': 0, 'repo': {'MyInferenceEngine': 'o/n'}}"
        " for n in NAMES}\nTESTED = [[['my-a']]]\n"
    )
    faults = check(guide.mended(tmp_path, models=models), [], []).faults
    assert [(f.id, f.finding.place.line) for f in faults] == [("EX402", 2), ("EX402", 3)]


NAMES = {
    "a walrus": "if (X := 1) > 0:\n    pass",
    "a walrus in a comprehension": "Y = [X := a for a in 'ab']",
    "match": "match a:\n    case 1:\n        from .o import X\n    case _:\n        X = 2",
    "a pattern": "match a:\n    case [X, *_]:\n        pass",
    "the rest of a pattern": "match a:\n    case {'a': 1, **X}:\n        pass",
    "the else of a loop": "for a in b:\n    pass\nelse:\n    X = 1",
    "a global": "def f():\n    global X\n    X = 1\nf()",
    "an imported global": "def f():\n    global X\n    import json as X\nf()",
    "several": "a, [X, *b] = c",
    "a context": "with a as (X, b):\n    pass",
    "except*": "try:\n    X = 1\nexcept* OSError:\n    X = 2",
}


@pytest.mark.parametrize("source", NAMES.values(), ids=list(NAMES))
def test_a_name_that_exists(source: str) -> None:
    read = package(m=source, o="X = 1")
    assert not read.lacks(read.modules["p.m"], "X")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement is new in Python 3.12")
def test_the_name_of_a_type() -> None:
    read = package(m="type X = list[int]")
    assert not read.lacks(read.modules["p.m"], "X")


@pytest.mark.parametrize(
    "source", ["Y[X] = 1", "X.a = 1", "X: int", "[X for X in 'ab']", "X |= 1", "print(X)"]
)
def test_a_name_that_is_only_used(source: str) -> None:
    read = package(m=source)
    assert read.lacks(read.modules["p.m"], "X")


def test_an_import_that_may_fail(tmp_path: Path) -> None:
    failing = "with {}(ImportError):\n    from ._fast import kernel\n"
    engine = f"import contextlib\n\n{guide.GOOD_ENGINE}\n\n{failing}"
    assert ids(guide.mended(tmp_path / "a", engine=engine.format("contextlib.suppress"))) == []
    assert ids(guide.mended(tmp_path / "b", engine=engine.format("open"))) == ["EX704"]


NO_TEMP = guide.GOOD_ENGINE.replace("temp=0.0, top_p=1.0", "top_p=1.0")
USES = {
    "a registry": "REGISTRY = {}\nREGISTRY[MyInferenceEngine] = 'mine'",
    "an attribute": "MyInferenceEngine.display_name = 'mine'",
    "a type": "engine: type[MyInferenceEngine]",
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_a_class_that_is_used_at_the_top(tmp_path: Path, use: str) -> None:
    assert ids(guide.mended(tmp_path, engine=f"{NO_TEMP}\n\n{use}\n")) == ["EX305"]


ALIASES = {
    "a name": ("Engine = MyInferenceEngine", ""),
    "a name with a type": ("Engine: type = MyInferenceEngine", ""),
    "two names": ("First = MyInferenceEngine\nEngine = First", ""),
    "an import": ("", "from .engine import MyInferenceEngine as Engine"),
    "both": ("First = MyInferenceEngine", "from .engine import First\nEngine = First"),
}


@pytest.mark.parametrize(("engine", "other"), ALIASES.values(), ids=list(ALIASES))
def test_an_entry_point_that_names_an_alias(tmp_path: Path, engine: str, other: str) -> None:
    name = "other" if other else "engine"
    config = guide.GOOD_CONFIG.replace("engine:MyInferenceEngine", f"{name}:Engine")
    for text, found in ((guide.GOOD_ENGINE, []), (NO_TEMP, ["EX305"])):
        plugin = guide.mended(tmp_path, engine=f"{text}\n\n{engine}\n", config=config)
        guide.write(plugin, {"exo_myengine/other.py": other})
        assert ids(plugin) == found


NO_ALIASES = {
    "a circle": "X = Y\nY = X",
    "what comes later": "X = Y\nclass Y: ...",
    "one of two": "class Y: ...\nif Y:\n    X = Y\nelse:\n    X = None",
    "a part": "class Y: ...\nX, Z = Y",
    "by a function": "class Y: ...\ndef f():\n    global X\n    X = Y",
    "a function of Python": "X = print",
}


@pytest.mark.parametrize("source", NO_ALIASES.values(), ids=list(NO_ALIASES))
def test_what_is_no_alias(source: str) -> None:
    read = package(m=source)
    found = read.find(read.modules["p.m"], "X")
    assert found is not None
    assert found.name == "X"


REQUIRED = {
    "nothing like it": ("numpy", ["EX705"]),
    "a name like it": ("python-hailo", []),
    "a project whose module has another name": ("acmert", []),
    "a project whose module is imported too": ("my-hardware-sdk", ["EX705"]),
}


@pytest.mark.parametrize(("project", "found"), REQUIRED.values(), ids=list(REQUIRED))
def test_what_brings_a_module(tmp_path: Path, project: str, found: list[str]) -> None:
    config = guide.GOOD_CONFIG.replace('["numpy"]', f'["numpy", "nvidia-ml-py", "{project}"]')
    detection = f"import hailo\nimport pynvml\n\n{guide.GOOD_DETECTION}"
    assert ids(guide.mended(tmp_path, config=config, detection=detection)) == found


WORK = {
    "a test": ("if input('?'):\n    pass", True),
    "a case": ("match MY_MODELS:\n    case {}:\n        print('?')", True),
    "the else of a loop": ("for name in MY_MODELS:\n    pass\nelse:\n    print('?')", True),
    "a class": ("class A:\n    if MY_MODELS:\n        print('?')", True),
    "a default": ("def f(name=input('?')): ...", True),
    "a function": ("def f():\n    print('?')\n\n\ng = lambda: print('?')", False),
    "a method": ("class A:\n    def f(self):\n        print('?')", False),
    "a script": ("if __name__ == '__main__':\n    print('?')\nelif 0:\n    pass", False),
}


@pytest.mark.parametrize(("source", "works"), WORK.values(), ids=list(WORK))
def test_what_an_import_runs(tmp_path: Path, source: str, works: bool) -> None:
    found = ids(guide.mended(tmp_path, models=f"{guide.MODELS}\n\n{source}\n"))
    assert found == ["EX703"] * works


def test_a_long_row_of_branches(tmp_path: Path) -> None:
    branches = "".join(f"elif a == {i}:\n    b = {i}\n" for i in range(1500))
    models = f"{guide.MODELS}\n\na = 1\nif a == 0:\n    b = 1\n{branches}"
    assert ids(guide.mended(tmp_path, models=models)) == []
