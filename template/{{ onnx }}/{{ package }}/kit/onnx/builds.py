"""Which builds of ONNX Runtime this environment has: all share one module, so one is right."""

from functools import cache
from importlib.metadata import distributions

from ...names import PROJECT

MODULE = "onnxruntime/__init__.py,"  # as a line of RECORD begins, the list of a package's files
BUILDS = {  # by the extra of this plugin that brings it
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "cuda",
    "onnxruntime-openvino": "openvino",
    "onnxruntime-qnn": "qnn",
    "onnxruntime-migraphx": "migraphx",
}


class BuildError(RuntimeError):
    """There is no build of ONNX Runtime here, or there are several."""


def installed() -> dict[str, str]:
    """Every distribution that has the module `onnxruntime`, and its version."""
    builds = {}
    for distribution in distributions():
        # Not `files`: parsing every package's takes longer than a small model's load.
        if f"\n{MODULE}" in f"\n{distribution.read_text('RECORD')}":
            builds[distribution.metadata["Name"]] = distribution.version
    return dict(sorted(builds.items()))


@cache  # a process that has found it has imported it soon after
def the_one() -> str:
    """The build's name and version. Raises BuildError where there is not exactly one."""
    builds = installed()
    if not builds:
        raise BuildError(
            f"no build of ONNX Runtime is installed; pip install '{PROJECT}[cpu]', or another "
            "extra: the README has the table of providers"
        )
    if len(builds) > 1:
        names = " ".join(builds)
        one = next((name for name in builds if name != "onnxruntime"), "onnxruntime")
        raise BuildError(
            f"{' and '.join(f'{name} {version}' for name, version in builds.items())} are in one "
            f"environment and overwrite each other's files. pip uninstall -y {names}, then "
            f"pip install '{PROJECT}[{BUILDS.get(one, 'cpu')}]'"
        )
    return " ".join(*builds.items())
