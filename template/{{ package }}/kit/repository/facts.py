"""What a model's folder says, all of its files together: the only place that reads them.

Several files can say the same thing, and not agree. Which of them counts is the rule of
transformers 5.24 (4.46 has the same one), named beside each.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

LARGEST = 10_000_000  # bytes of a file that is parsed here; published ones have some thousand
LARGEST_ID = (1 << 31) - 1
# The defaults of transformers' configurations; all four have as many.
_LAYERS = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), 32)
# transformers' SPECIAL_TOKENS_ATTRIBUTES, whose order gives tokens that are added their ids.
_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_EXTRA = ("model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens")
_ADDED = ("single_word", "lstrip", "rstrip", "normalized", "special")  # flags of an added token
# Formats that nothing here reads, and what makes the one that is read.
_OTHER_TOKENIZERS = {
    "tekken.json": "Mistral's own format",
    "tokenizer.model": "sentencepiece's or tiktoken's format",
    "vocab.json": "a vocabulary without its rules",
}
_OTHER_WEIGHTS = ("*.gguf", "pytorch_model*.bin", "consolidated*.pth", "consolidated*.safetensors")


class RepositoryError(ValueError):
    """A model's files can't be used; the text says which, and what to do."""


class Facts:
    """A folder as the Hugging Face hub has it; each file is read when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none."""
        return read_json(self.folder / "config.json")

    @cached_property
    def genai(self) -> dict[str, Any]:
        """The model of genai_config.json, which onnxruntime-genai's folders have."""
        return _object(read_json(self.folder / "genai_config.json").get("model"))

    @cached_property
    def decoder(self) -> dict[str, Any]:
        """The decoder of genai_config.json."""
        return _object(self.genai.get("decoder"))

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return read_json(self.folder / "tokenizer_config.json")

    @property
    def text(self) -> dict[str, Any]:
        """The text model's part of config.json: all of it, but for models that take images too."""
        return _object(self.config.get("text_config")) or self.config

    @property
    def layers(self) -> int:
        """How many layers the model has. Raises RepositoryError."""
        usual = _LAYERS.get(str(self.text.get("model_type")))
        named = self.text.get("num_hidden_layers", usual), self.decoder.get("num_hidden_layers")
        if number := next(filter(None, map(count, named)), None):
            return number
        raise RepositoryError(
            f"{self.folder} has no config.json with num_hidden_layers. A folder is wanted as the "
            "Hugging Face hub has it"
        )

    @property
    def context(self) -> int | None:
        """The most positions of a request; None where no file says it."""
        return count(self.genai.get("context_length")) or scaled_context(self.text)

    @property
    def vocabulary(self) -> int | None:
        """Rows of the embedding, where a file says it; a tokenizer may have more tokens."""
        return count(self.genai.get("vocab_size")) or count(self.text.get("vocab_size"))

    @property
    def head_size(self) -> int | None:
        """Numbers of an attention head, where a file says it."""
        return count(self.decoder.get("head_size")) or count(self.text.get("head_dim"))

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token and their like, by name.

        special_tokens_map.json wins where tokenizer_config.json has no added_tokens_decoder, and
        isn't read where it has one.
        """
        return {name: text for name, value in self._named.items() if (text := _content(value))}

    @cached_property
    def _named(self) -> dict[str, Any]:
        named = dict(self.tokenizer)
        if "added_tokens_decoder" not in named:
            named |= read_json(self.folder / "special_tokens_map.json")
        return {k: v for k, v in named.items() if k.endswith(("_token", "_special_tokens"))}

    @property
    def added_tokens(self) -> list[dict[str, Any]]:
        """Tokens that tokenizer.json may lack, in the order in which they get their ids.

        Each has `content` and the flags of tokenizers.AddedToken.
        """
        decoder = self.tokenizer.get("added_tokens_decoder")
        if decoder is None:
            known, decoder = set(self.special_tokens.values()), {}
            for text, i in read_json(self.folder / "added_tokens.json").items():
                special = text in known
                decoder[str(i)] = {"content": text, "special": special, "normalized": not special}
        numbered = [(int(i), token) for i, token in _object(decoder).items() if _is_id(i)]
        added = [token for _, token in sorted(numbered, key=lambda pair: pair[0])]
        names = [f"{name}_token" for name in _NAMED]
        names += [name for name in self.special_tokens if name not in names]
        added += [self._named[name] for name in names if name in self.special_tokens]
        for name in _EXTRA:
            extra = self._named.get(name)
            added += extra.values() if isinstance(extra, dict) else _list(extra)
        tokens: dict[str, dict[str, Any]] = {}
        for token in added:
            if text := _content(token):
                tokens.setdefault(text, {"content": text} | _flags(token))
        return list(tokens.values())

    @property
    def end_ids(self) -> list[int]:
        """The ids that end an answer, of every file that can name one; the tokenizer's is apart."""
        generation = read_json(self.folder / "generation_config.json")
        values: list[Any] = []
        for place in (generation, self.text, self.config, self.genai):
            value = place.get("eos_token_id")
            values += value if isinstance(value, list) else [value]
        return list(dict.fromkeys(i for i in values if type(i) is int and 0 <= i <= LARGEST_ID))

    @property
    def chat_template(self) -> str | None:
        """The template's text: chat_template.jinja's, else tokenizer_config.json's.

        A list of named templates gives the one called default.
        """
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return read_whole(path, LARGEST).decode("utf-8", "replace")
        template = self.tokenizer.get("chat_template")
        if isinstance(template, list):
            named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
            template = named[0].get("template") if named else None
        return template if isinstance(template, str) else None

    @property
    def bytes(self) -> int:
        """Of the weights that are in the folder."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def no_tokenizer(self) -> str:
        """A sentence for a folder without tokenizer.json: what is there, and what to do."""
        for name, what in _OTHER_TOKENIZERS.items():
            if (self.folder / name).is_file():
                return (
                    f"{self.folder} has {name} ({what}), and no tokenizer.json, which is what is "
                    "read. Take a repository that has one, or make it with transformers: "
                    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
                )
        return f"{self.folder} has no tokenizer.json; download the model's tokenizer"

    def no_weights(self, read: str) -> str:
        """A sentence for a folder without the weights that are read: what is there instead."""
        others = [p.name for kind in _OTHER_WEIGHTS for p in sorted(self.folder.glob(kind))]
        if not others:
            return f"{self.folder} has neither {read}; the model's weights are in one of them"
        return (
            f"{self.folder} has {others[0]} and neither {read}, which alone are read. Take a "
            "repository that has them, or make them with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )


def scaled_context(config: dict[str, Any]) -> int | None:
    """Positions of a config.json's model: linear, dynamic and yarn scaling make a context longer.

    A llama3 one's max_position_embeddings is the long one already.
    """
    most, rope = count(config.get("max_position_embeddings")), rope_parameters(config)
    factor, kind = rope.get("factor"), rope.get("rope_type", rope.get("type"))
    if most is None or kind not in ("linear", "dynamic", "yarn"):
        return most
    named = [rope.get("original_max_position_embeddings")]
    if kind != "linear":  # transformers: beside the parameters it wins for yarn; dynamic has none
        named = [config.get("original_max_position_embeddings"), *named] if kind == "yarn" else []
    short = next(filter(None, map(count, named)), most)
    if not isinstance(factor, int | float) or not 1 <= factor < LARGEST_ID / short:
        return most
    return max(most, int(short * factor))


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json's rotary embedding, in transformers 5's spelling.

    rope_scaling wins over rope_parameters, whole, and rope_theta is taken where neither has one
    (transformers, RotaryEmbeddingConfigMixin.convert_rope_params_to_dict). Raises RepositoryError.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise RepositoryError(f"the rope parameters are {rope!r}; they should be an object")
    usual: dict[str, Any] = {
        key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config
    }
    return usual | rope


def read_json(path: Path, most: int = LARGEST) -> dict[str, Any]:
    """A file's object; empty where there is no such file. Raises RepositoryError."""
    if not path.is_file():
        return {}
    return parsed(path, read_whole(path, most))


def parsed(path: Path, text: bytes, part: str = "") -> dict[str, Any]:
    """The object in a file's text; part: which of the file's, for a sentence.

    Raises RepositoryError.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RepositoryError(
            f"{path}{part} is not JSON: {error}; delete it and download it again"
        ) from error
    if not isinstance(content, dict):
        raise RepositoryError(f"{path}{part} holds no object; delete it and download it again")
    return content


def read_whole(path: Path, most: int) -> bytes:
    """A file's bytes. Raises RepositoryError where it has more than `most`."""
    with path.open("rb") as file:
        size = path.stat().st_size
        text = b"" if size > most else file.read(most + 1)
    if max(size, len(text)) > most:
        raise RepositoryError(f"{path} has {size} bytes; no model's has more than {most}")
    return text


def count(value: Any) -> int | None:
    """A whole number above zero that a count can be; None for everything else."""
    return value if type(value) is int and 0 < value <= LARGEST_ID else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_id(value: Any) -> bool:
    text = str(value)
    return text.isascii() and text.isdigit() and len(text) < 11


def _content(value: Any) -> str:
    """A token's text: it is written as a text, or as an object with `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _flags(token: Any) -> dict[str, bool]:
    """Flags as the file has them; a token that is only a text is special."""
    if not isinstance(token, dict):
        return {"special": True, "normalized": False}
    return {name: token[name] for name in _ADDED if isinstance(token.get(name), bool)}
