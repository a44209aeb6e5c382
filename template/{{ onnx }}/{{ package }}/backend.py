"""The device: ONNX Runtime. What is yours goes here; kit/onnx/ comes anew with an update."""

from .kit.onnx.backend import OnnxBackend


class Backend(OnnxBackend):
    """Runs any slice of a model's layers on a provider of ONNX Runtime.

    Places to override, all of kit/onnx/backend.py:

    provider  the provider where EXO_<ENGINE>_PROVIDER names none; empty: the best one here
    plugin    the module of a vendor's own package that brings the provider
    plan      precision, provider options and threads: what the settings don't say
    graph     the ONNX model of a checkpoint's layers, as kit/onnx/graph.py builds it
    check     the line of `doctor`
    """

    contract = 1
