"""Finished models handed on: ONNX, one safetensors file, or a folder shaped for a model hub"""

from headstart.export.formats import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
