"""Published repositories as their authors laid them out: keys, spellings, tokens; tiny sizes.

Each row names where its files were read: a public copy at a revision, never the hub's own download
(a few copies had been shortened or saved again, which their rows say). `unconfirmed` has what no
public copy was found of, and what stands in the row is then what is known of the family:
"generation" is generation_config.json (the ids that end an answer are config.json's), "tokenizer"
is tokenizer_config.json and the special tokens' names, "context" is max_position_embeddings. Of no
row the vocabulary was taken: token ids are those of tiny tokenizers (folder.py) with the
repository's special tokens, whose ids are small. Files without a table entry (LICENSE, README)
aren't there. Weights are random, made by kit/llama's own writer; sizes of layers and heads, the
number of files and their dtype are tiny stand-ins for the published ones.
"""

from . import tokens as t
from .llama import LLAMA
from .mistral import MISTRAL
from .qwen import QWEN
from .refused import REFUSED
from .repository import MADE_UP, Repository, llama

__all__ = ["REFUSED", "REPOSITORIES", "TEXT", "Repository"]

TEXT = "Hi there"

_FINE_TUNES: dict[str, Repository] = {
    "a fine-tune with tokens of its own in tokenizer_config.json alone": Repository(
        MADE_UP,
        llama(4096),
        4096,
        tokens=("<s>", "</s>"),
        tokenizer={"bos_token": "<s>", "eos_token": "<|im_end|>", "chat_template": t.CHATML}
        | {"added_tokens_decoder": t.added("<s>", "</s>", "<|im_start|>", "<|im_end|>", at=256)},
    ),
    "a fine-tune of transformers 4.30, with added_tokens.json": Repository(
        MADE_UP,
        llama(2048, rms_norm_eps=1e-6),
        2048,
        tokens=("<s>", "</s>"),
        ends="</s>",
        tokenizer={"bos_token": "<s>", "eos_token": "</s>", "chat_template": t.CHATML},
        more={
            "added_tokens": {"<|im_start|>": 258, "<|im_end|>": 259},
            "special_tokens_map": {"eos_token": "<|im_end|>", "bos_token": "<s>"},
        },
    ),
}

REPOSITORIES: dict[str, Repository] = LLAMA | QWEN | MISTRAL | _FINE_TUNES
