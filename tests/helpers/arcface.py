"""A small network that takes the place of ArcFace."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from durian_jax.faces.face_crop import FACE_SIZE

WIDTH = 48


def write_network(path: str | Path, side: int = FACE_SIZE) -> str:
    """Write an ONNX file that returns the means of 16 parts of the face, flattened to `WIDTH` numbers."""
    nodes = [helper.make_node("AveragePool", ["face"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
             helper.make_node("Flatten", ["pooled"], ["embedding"])]
    graph = helper.make_graph(
        nodes, "means", [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", WIDTH])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)
