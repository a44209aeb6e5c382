"""The models."""

MODELS = {
    "tiny-steps": {"layers": 4, "repo": {"StepsInferenceEngine": "organization/tiny"}},
    "large-steps": {"layers": 32, "repo": {"StepsInferenceEngine": "organization/large"}},
}

PRETTY_NAMES = {
    "tiny-steps": "Tiny",
    "large-steps": "Large",
}
