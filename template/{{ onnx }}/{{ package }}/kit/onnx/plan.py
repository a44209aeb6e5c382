"""What the settings ask for: precision, threads, provider and its options, which export."""

import os
from dataclasses import dataclass

from .. import settings
from ..settings import PREFIX, SettingError

PRECISIONS = ("float32", "float16", "int8", "int4")


@dataclass(frozen=True)
class Plan:
    """The settings of one backend. `provider` is empty where the best one here is meant."""

    provider: str
    precision: str
    options: dict[str, str]
    threads: int | None
    device: int


def planned(provider: str = "") -> Plan:
    """The settings of this process; provider: that of no setting. Raises SettingError."""
    precision = os.environ.get(f"{PREFIX}PRECISION", "").lower()
    if precision and precision not in PRECISIONS:
        raise SettingError(
            f"{PREFIX}PRECISION is {precision!r}; set it to one of {', '.join(PRECISIONS)}"
        )
    return Plan(
        provider=os.environ.get(f"{PREFIX}PROVIDER") or provider,
        precision=precision,
        options=options(os.environ.get(f"{PREFIX}PROVIDER_OPTIONS", "")),
        threads=settings.whole("THREADS"),
        device=_device(),
    )


def options(text: str) -> dict[str, str]:
    """Provider options, as "device_type=GPU,cache_dir=/var/ov". Raises SettingError."""
    values = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise SettingError(
                f"{PREFIX}PROVIDER_OPTIONS has {pair!r}; write name=value, separated by commas"
            )
        values[name.strip()] = value.strip()
    return values


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def export_setting() -> str:
    """The finished export in a repository that is to run: a file, or a folder; else empty."""
    setting = os.environ.get(f"{PREFIX}EXPORT", "").strip().strip("/")
    if setting.startswith(("~", ".")) or "\\" in setting or ".." in setting.split("/"):
        raise SettingError(
            f"{PREFIX}EXPORT is {setting!r}; set it to a path inside the repository, "
            "such as onnx/model_q4.onnx"
        )
    return setting


def whole_asked() -> bool:
    """Whether one node is to run all layers, of an export that can't be cut."""
    return os.environ.get(f"{PREFIX}WHOLE") == "1"


def _device() -> int:
    """Which of several devices of the provider's."""
    text = os.environ.get(f"{PREFIX}DEVICE") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise SettingError(f"{PREFIX}DEVICE is {text!r}; set it to a device's number, from 0 on")
    return int(text)
