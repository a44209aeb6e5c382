"""Make answers/published.npz: what transformers says of the repositories of published/, float32.

Run by hand, after a change of published/, as make.py is, with the folder of a rendered plugin; the
data was made with torch 2.13.0 and transformers 5.24.0.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import transformers
from make import HERE
from published import REPOSITORIES, TEXT
from published.folder import write


def answers(folder: Path) -> dict[str, np.ndarray]:
    """Ids of a text and of a chat, the ids that end an answer, and the last logits of both."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    facts = {"text": tokenizer(TEXT).input_ids, "ends": sorted(ends)}
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": TEXT}]
        chat = tokenizer.apply_chat_template(messages, tokenize=False)
        facts["chat"] = tokenizer(chat, add_special_tokens=False).input_ids
    for name in [name for name in ("text", "chat") if name in facts]:
        ids = torch.tensor([facts[name]])
        facts[f"{name}_logits"] = model(ids).logits[0, -1].numpy()
    return {name: np.asarray(value) for name, value in facts.items()}


def main() -> None:
    """Every repository."""
    torch.set_grad_enabled(False)
    sys.dont_write_bytecode = True
    sys.path.insert(0, sys.argv[1])
    write_checkpoint = import_module("exo_reference.kit.llama.random_checkpoint").write_checkpoint
    data = {}
    for name, repository in REPOSITORIES.items():
        with tempfile.TemporaryDirectory() as folder:
            write(repository, Path(folder), write_checkpoint)
            data |= {f"{name}|{key}": value for key, value in answers(Path(folder)).items()}
    np.savez_compressed(HERE / "answers/published.npz", **data)
    print(f"{len(REPOSITORIES)} repositories, {len(data)} arrays")


if __name__ == "__main__":
    main()
