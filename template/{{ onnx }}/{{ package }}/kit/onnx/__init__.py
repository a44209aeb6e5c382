"""ONNX Runtime as a device: checkpoints and finished exports, on any of its providers."""
