"""Which of a repository's files are wanted, and whether a folder holds a finished export."""

from dataclasses import dataclass
from pathlib import Path

from ..repository.facts import Facts, RepositoryError
from ..settings import PREFIX
from .plan import export_setting

CHECKPOINT = ("*.json", "*.safetensors")
EXPORTS = ("*.onnx", "onnx/*.onnx")  # where a finished one is looked for
GENAI = "genai_config.json"  # of onnxruntime-genai's folders
ASK = f"set {PREFIX}EXPORT to the one that is meant"


@dataclass(frozen=True)
class Export:
    """A finished model's file, and what stands beside it: the most positions, the size of heads."""

    path: Path
    context: int | None
    head: int | None


def needed_files() -> tuple[str, ...]:
    """Patterns of what a load reads: a repository has an export at eight precisions, or more."""
    setting = export_setting()
    if not setting:
        return CHECKPOINT
    if setting.endswith(".onnx"):  # and what lies beside it: model.onnx_data, model.onnx.data, …
        return ("*.json", setting, f"{setting}_data*", f"{setting}.data*")
    return ("*.json", f"{setting}/*")


def export_in(folder: Path) -> Export | None:
    """The export that is to run; None where the folder holds a checkpoint.

    Raises FileNotFoundError, RepositoryError.
    """
    setting = export_setting()
    if setting:
        place = folder / setting
        if not place.exists():
            raise FileNotFoundError(f"{place} is not there; {PREFIX}EXPORT asks for it")
        return _export(place) if place.is_dir() else _checked(place, folder)
    if any(folder.glob("*.safetensors")) or (folder / "model.safetensors.index.json").is_file():
        return None
    if (folder / GENAI).is_file():
        return _export(folder)
    paths = [path for pattern in EXPORTS for path in sorted(folder.glob(pattern))]
    if len(paths) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in paths)
        raise RepositoryError(f"{folder} has several exports, {names}: {ASK}")
    return _checked(paths[0], folder) if paths else None


def _export(folder: Path) -> Export:
    """The model of an onnxruntime-genai folder, or the only one of another."""
    decoder = Facts(folder).decoder
    if decoder.get("pipeline"):
        raise RepositoryError(
            f"{folder / GENAI} describes a pipeline of models, which are compiled for one NPU and "
            "one length; only onnxruntime-genai runs those"
        )
    if name := decoder.get("filename"):
        if not isinstance(name, str) or Path(name).name != name:
            raise RepositoryError(f"{folder / GENAI} names {name!r}, which is no file beside it")
        return _checked(folder / name, folder)
    paths = sorted(folder.glob("*.onnx"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise RepositoryError(f"{folder} should have one .onnx file and has {names}: {ASK}")
    return _checked(paths[0], folder)


def _checked(path: Path, folder: Path) -> Export:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; download the model's files")
    facts = Facts(folder)
    return Export(path, facts.context, facts.head_size)
