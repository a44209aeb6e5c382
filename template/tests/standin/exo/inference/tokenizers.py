"""How exo gets a model's tokenizer, and its fault: it is loaded anew for every request."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


class FastTokenizer:
    """What transformers' fast tokenizer has of use to an engine, with the same arguments."""

    def __init__(self, folder: Path) -> None:
        self.name_or_path = str(folder)
        self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.chat_template: str | None = config.get("chat_template")
        self.bos_token, self.eos_token = (_text(config.get(f"{n}_token")) for n in ("bos", "eos"))

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The ids, and which of them count: all."""
        ids = self.encode(text, add_special_tokens)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)}

    @property
    def vocab_size(self) -> int:
        """How many tokens there are without the added ones."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    @property
    def bos_token_id(self) -> int | None:
        """What begins a text."""
        return self.convert_tokens_to_ids(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """What ends an answer."""
        return self.convert_tokens_to_ids(self.eos_token)

    def convert_tokens_to_ids(self, token: str | None) -> int | None:
        """A token's id."""
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Text to ids."""
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> str:
        """An id or ids, in a list or an array, to text."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [ids] if isinstance(ids, int) else list(ids)
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        tools: list[Any] | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        **options: Any,
    ) -> Any:
        """Messages in the model's chat template, as ids or as text."""
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # not in every environment

        template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        options |= {"bos_token": self.bos_token or "", "eos_token": self.eos_token or ""}
        text = template.from_string(self.chat_template or "").render(
            messages=conversation,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            **options,
        )
        return self.encode(text, add_special_tokens=False) if tokenize else text


def _text(token: Any) -> str | None:
    """A token of tokenizer_config.json, which may be an object."""
    return token["content"] if isinstance(token, dict) else token


async def resolve_tokenizer(repo_id: str | PathLike[str]) -> Any:
    """The tokenizer of a folder; exo looks for one among its downloads first."""
    return await _resolve_tokenizer(repo_id)


async def _resolve_tokenizer(repo_id_or_local_path: str | PathLike[str]) -> Any:
    return FastTokenizer(Path(repo_id_or_local_path))
