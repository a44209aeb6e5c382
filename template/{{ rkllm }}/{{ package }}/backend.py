"""A Rockchip NPU behind an rkllama or OpenAI-compatible server."""

from .kit.rkllm.backend import RkllmBackend


class Backend(RkllmBackend):
    """Runs whole models: an .rkllm file can't be cut into layers.

    All of it comes with kit/rkllm/server.py, which an update of the template brings up to date.
    What a server of your own may want otherwise, override here:

    settings()                      where the server is, and how patient to be
    choose(model, names, settings)  which of the server's models is meant
    messages(request)               what the server is sent of a conversation
    answer(request)                 the pieces of an answer, on their way to the host
    check()                         what doctor says of the server
    """

    contract = 1
