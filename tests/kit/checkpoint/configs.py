"""Configurations as a config.json has them, and how the tests read one."""

from checkpoints import CONFIGS

from exo_kit.kit.llama.config import Config

LLAMA = CONFIGS["llama"]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
MSCALE = {"mscale": 0.7, "mscale_all_dim": 1.3}


def read(content=LLAMA, **changes):
    made = content | changes
    return Config.from_dict({key: value for key, value in made.items() if value is not ...})
