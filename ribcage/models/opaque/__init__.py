"""Opaque networks: networks that are only a file (ONNX, TFLite), run unchanged by the runtime of that format.

Only their predictions are available: they cannot be trained, and have neither features nor gradients.
"""
