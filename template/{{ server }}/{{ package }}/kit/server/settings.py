"""Where the server is and how patient to be, from the environment."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..settings import PREFIX, SettingError
from .address import Address, AddressError

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 240.0  # longer than a long prompt takes a small device


@dataclass(frozen=True)
class Settings:
    """What every server needs. All times in seconds.

    key: what the server lets in; it stands in no text. url_name: the setting that says where the
    server is, for sentences.
    """

    address: Address
    model: str | None = None
    connect_seconds: float = CONNECT_SECONDS
    silence_seconds: float = SILENCE_SECONDS
    url_name: str = f"{PREFIX}URL"
    key: str | None = field(default=None, repr=False)

    def authorization(self) -> str | None:
        """The header that lets us in: the key's, else that of the address's name and password."""
        if self.key:
            return f"Bearer {self.key}"
        if self.address.user is None:
            return None
        return f"Basic {b64encode(':'.join(self.address.user).encode()).decode()}"

    def without_secrets(self, text: str) -> str:
        """Somebody else's words, without the key, the password and queries."""
        if self.key:
            text = text.replace(self.key, "…")
        return self.address.without_secrets(text)


class Environment:
    """Environment variables whose names begin with a prefix. Every method raises SettingError."""

    def __init__(self, environ: Mapping[str, str], prefix: str = PREFIX) -> None:
        self._environ = environ
        self.prefix = prefix

    def text(self, name: str, default: str = "") -> str:
        """A text; an empty one counts as none."""
        return self._environ.get(self.prefix + name) or default

    def seconds(self, name: str, default: float) -> float:
        """Seconds, above 0."""
        text = self.text(name)
        try:
            value = float(text or default)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise self.wrong(name, "set it to a number of seconds above 0")
        return value

    def whole(self, name: str) -> int:
        """A whole number, also as 0x…; 0 where nothing is set."""
        text = self.text(name, "0")
        try:
            value = int(text[:20], 0)
        except ValueError:
            value = -1
        if not 0 <= value < 1 << 31:
            raise self.wrong(name, "set it to a whole number, such as 4096 or 0xf0")
        return value

    def temperature(self, name: str) -> float:
        """A sampling temperature, 0 where nothing is set."""
        text = self.text(name, "0")
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 5:
            raise self.wrong(name, "set it to a number from 0 to 5")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of these; the first where nothing is set."""
        text = self.text(name, choices[0])
        if text not in choices:
            raise self.wrong(name, f"set it to one of {', '.join(choices)}")
        return text

    def address(self, name: str, default: str) -> Address:
        """A server's address."""
        try:
            return Address.parse(self.text(name, default))
        except AddressError as error:
            raise SettingError(f"{self.prefix}{name}: {error}") from None

    def key(self, name: str) -> str | None:
        """A server's key: of this setting, or of the file that <name>_FILE says."""
        key, path = self.text(name).strip(), self.text(f"{name}_FILE")
        if path and not key:
            try:
                key = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                raise SettingError(f"{self.prefix}{name}_FILE can't be read: {why}") from None
        if any(not "!" <= sign <= "~" for sign in key):
            raise SettingError(f"{self.prefix}{name} has a sign that no key has, such as a blank")
        return key or None

    def wrong(self, name: str, advice: str) -> SettingError:
        """A sentence on a setting; never for one that may hold a secret."""
        return SettingError(f"{self.prefix}{name} is {self.text(name)!r}; {advice}")
