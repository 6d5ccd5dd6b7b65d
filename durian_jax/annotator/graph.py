"""Run TensorFlow Lite models, also those with operators that the runtime lacks.

LiteRT refuses a whole model if it lacks one operator. `Graph` cuts such a model into parts of ordinary operators, which
LiteRT runs, and runs the operators between them in numpy.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from durian_jax.progress import messages_into

# (attributes, inputs) -> output
Operator = Callable[[Mapping[str, Any], list[np.ndarray]], np.ndarray]


class _Step(Protocol):
    def run(self, values: dict[int, np.ndarray]) -> None:
        """Read inputs from `values` and add outputs to it, by the number of the tensor in the model."""


class Graph:
    """A model as a function.

    Args:
        path: the .tflite file; it has one input.
        operators: operators that LiteRT lacks, by name.
        threads: number of threads.

    Attributes:
        attributes: of these operators, by the name of the operator, in their order in the model.
    """

    def __init__(self, path: str | Path, operators: Mapping[str, Operator] | None = None, threads: int = 2):
        from ai_edge_litert.schema_py_generated import ModelT

        content = Path(path).read_bytes()
        model = ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
        self._input = int(graph.inputs[0])
        self._outputs = {graph.tensors[index].name.decode(): int(index) for index in graph.outputs}
        self.attributes: dict[str, list[Mapping[str, Any]]] = {}
        self._steps: list[_Step] = []
        if not operators:
            self._steps.append(_Part(content, list(graph.inputs), list(graph.outputs), threads))
            return
        for custom, group in _groups(model):
            if custom:
                self._steps += [self._custom(op, custom, operators[custom]) for op in group]
            else:
                self._steps.append(_part_of(content, group, threads))

    def __call__(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs by name for an input of the model's shape."""
        values = {self._input: picture}
        for step in self._steps:
            step.run(values)
        return {name: values[index] for name, index in self._outputs.items()}

    def _custom(self, op, name: str, operator: Operator) -> "_Custom":
        from flatbuffers import flexbuffers

        options = bytes(bytearray(op.customOptions)) if op.customOptions is not None else b""
        attributes = flexbuffers.Loads(options) if options else {}
        self.attributes.setdefault(name, []).append(attributes)
        return _Custom(operator, attributes, [int(index) for index in op.inputs], int(op.outputs[0]))


def interpreter_of(content: bytes, threads: int) -> Any:
    """Return LiteRT's interpreter of a model.

    Raises:
        ValueError, RuntimeError: the model is damaged, or has operators that LiteRT lacks.
    """
    from ai_edge_litert.interpreter import Interpreter

    # LiteRT reports what it does while it loads a model, and has no setting against that.
    with open(os.devnull, "wb") as nothing, messages_into(nothing):
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


class _Part:
    """A model of ordinary operators. `inputs` and `outputs` number its tensors in the whole model."""

    def __init__(self, content: bytes, inputs: list[int], outputs: list[int], threads: int):
        self._interpreter = interpreter_of(content, threads)
        given, made = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._given = [(int(number), one["index"]) for number, one in zip(inputs, given, strict=True)]
        self._made = [(int(number), one["index"]) for number, one in zip(outputs, made, strict=True)]

    def run(self, values: dict[int, np.ndarray]) -> None:
        for number, own in self._given:
            self._interpreter.set_tensor(own, values[number])
        self._interpreter.invoke()
        for number, own in self._made:
            values[number] = self._interpreter.get_tensor(own)


class _Custom:
    """An operator that LiteRT lacks."""

    def __init__(self, operator: Operator, attributes: Mapping[str, Any], inputs: list[int], output: int):
        self._operator, self._attributes, self._inputs, self._output = operator, attributes, inputs, output

    def run(self, values: dict[int, np.ndarray]) -> None:
        values[self._output] = self._operator(self._attributes, [values[number] for number in self._inputs])


def _groups(model) -> list[tuple[str | None, list]]:
    """(name, operators): the operators in an order in which they can run, ordinary ones (no name) in few groups.

    Operators without a variable input, which unpack weights, belong to every group that uses their results.
    """
    graph = model.subgraphs[0]
    names = [code.customCode.decode() if code.customCode else None for code in model.operatorCodes]
    level = {int(index): 0 for index in graph.inputs}
    unpacked: dict[int, Any] = {}
    groups: dict[tuple[int, str | None], list] = {}
    for op in graph.operators:
        variable = [level[index] for index in op.inputs if index in level]
        if not variable:
            unpacked |= {int(index): op for index in op.outputs}
            continue
        name = names[op.opcodeIndex]
        # Ordinary operators have even levels, others odd ones, above the levels of all that they use.
        own = max(variable)
        own += own % 2 != (name is not None)
        level |= {int(index): own for index in op.outputs}
        group = groups.setdefault((own, name), [])
        group += [unpacked[index] for index in op.inputs
                  if index in unpacked and not any(unpacked[index] is other for other in group)]
        group.append(op)
    return [(name, group) for (_, name), group in sorted(groups.items(), key=lambda item: item[0][0])]


def _part_of(content: bytes, group: list, threads: int) -> _Part:
    """The part of a model that consists of these operators."""
    import flatbuffers
    from ai_edge_litert.schema_py_generated import ModelT

    model = ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    empty = {number for number, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is None}
    inside = {int(index) for op in group for index in op.outputs}
    used = {int(index) for op in group for index in op.inputs}
    wanted = {int(index) for op in graph.operators if not any(op.outputs[0] == mine.outputs[0] for mine in group)
              for index in op.inputs} | {int(index) for index in graph.outputs}
    variable = {int(index) for op in group for index in op.outputs if any(i in empty for i in op.inputs)}
    graph.operators = group
    graph.inputs = sorted((used & empty) - inside)
    graph.outputs = sorted(variable & wanted)
    model.signatureDefs = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return _Part(bytes(builder.Output()), graph.inputs, graph.outputs, threads)
