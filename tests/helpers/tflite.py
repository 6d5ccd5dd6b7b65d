"""Tiny TensorFlow Lite models with the signatures of published segmentation models."""

import io
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np


def pixel_classifier(weights: np.ndarray, bias: np.ndarray, side: int = 16, scaling: tuple | None = None,
                     labels: Sequence[str] = ()) -> bytes:
    """Return a model that maps each pixel linearly to logits: (1, side, side, in) -> (1, side, side, out).

    Args:
        weights: (out, in).
        bias: (out,).
        side: of the picture.
        scaling: mean and standard deviation in the metadata; None: no metadata.
        labels: names of the classes in an appended archive; empty: none.
    """
    from ai_edge_litert import schema_py_generated as schema

    out, channels = weights.shape

    def buffer(values: np.ndarray | None) -> schema.BufferT:
        made = schema.BufferT()
        made.data = None if values is None else np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
        return made

    def tensor(name: str, shape: Sequence[int], number: int) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), schema.TensorType.FLOAT32, number
        return made
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.opcodeIndex = [0, 1, 2], [3], 0
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.Conv2DOptions, options
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors = [tensor("given", (1, side, side, channels), 0), tensor("weights", (out, 1, 1, channels), 1),
                     tensor("bias", (out,), 2), tensor("made", (1, side, side, out), 0)]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(None), buffer(weights), buffer(bias)]
    if scaling is not None:
        about, entry = schema.BufferT(), schema.MetadataT()
        about.data = np.frombuffer(_metadata(*scaling), np.uint8)
        entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
        model.buffers.append(about)
        model.metadata = [entry]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    if labels:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("labels.txt", "\n".join(labels) + "\n")
        content += archive.getvalue()
    return content


def _metadata(mean: Sequence[float], deviation: Sequence[float]) -> bytes:
    """Metadata that scale the first input, as TensorFlow Lite's metadata_schema.fbs describes them."""
    builder = flatbuffers.Builder(256)

    def floats(values: Sequence[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return builder.EndVector()

    def table(slots: int, **fields: int) -> int:
        builder.StartObject(slots)
        for name, offset in fields.items():
            builder.PrependUOffsetTRelativeSlot(int(name[1:]), offset, 0)
        return builder.EndObject()

    def vector(offset: int) -> int:
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    mean, deviation = floats(mean), floats(deviation)
    normalization = table(2, _0=mean, _1=deviation)
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, normalization, 0)
    process = builder.EndObject()
    given = table(7, _4=vector(process))
    graph = table(8, _2=vector(given))
    builder.Finish(table(8, _3=vector(graph)), b"M001")
    return bytes(builder.Output())
