"""An OpenAI-compatible server: llama.cpp, vLLM, SGLang, TensorRT-LLM, or any other."""

from .kit.openai.server import OpenAIBackend
from .models import MODELS


class Backend(OpenAIBackend):
    """Runs whole models: how a server spreads a model is the server's.

    All of it comes with kit/openai/server.py, which an update of the template brings up to date.
    What a server of your own may want otherwise, override here:

    settings()                      where the server is, its key, and how patient to be
    choose(model, names, settings)  which of the server's models is meant
    messages(request)               what a server that takes chats alone is sent
    answer(request)                 the pieces of an answer, on their way to the host
    check()                         what doctor says of the server
    """

    contract = 1
    models = MODELS
