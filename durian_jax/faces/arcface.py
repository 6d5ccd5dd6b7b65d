"""Identity embeddings of face crops, computed by a network from the user (ArcFace, arXiv 1801.07698)."""

import os

import numpy as np

from durian_jax.errors import InputError, cut
from durian_jax.faces.face_crop import FACE_SIZE
from durian_jax.installation import install_command

# File name of the network in the folder of a checkpoint or export that needs one.
IDENTITY_FILE = "identity.onnx"


class IdentityEncoder:
    """An ArcFace network from an ONNX file (for example InsightFace's w600k_r50.onnx). It runs on the CPU.

    Args:
        path: path of the ONNX file.

    Attributes:
        width: D, the width of an embedding.

    Raises:
        InputError: onnxruntime is not installed, the file is missing or unreadable, or the network does not map
            (N, 3, 112, 112) to (N, D).
    """

    def __init__(self, path: str | os.PathLike):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("identity embeddings need onnxruntime; run " + install_command("identity")) from error
        if not os.path.isfile(path):
            raise InputError(f"identity model {cut(str(path))}: expected an ONNX file, found none; check the path")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's load errors have no common base class
            raise InputError(f"identity model {path}: onnxruntime cannot read it ({cut(str(error))}); "
                             "give another ONNX file") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        wanted = [3, FACE_SIZE, FACE_SIZE]
        if len(inputs) != 1 or inputs[0].shape[1:] != wanted or len(outputs) != 1 or len(outputs[0].shape) != 2:
            shapes = [x.shape for x in (*inputs, *outputs)]
            raise InputError(f"identity model {path}: expected a network from (N, 3, {FACE_SIZE}, {FACE_SIZE}) to "
                             f"(N, D), found {shapes}; give an ArcFace network")
        self._input = inputs[0].name
        self.width = self(np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8)).shape[1]

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Embed face crops (M, 112, 112, 3) uint8 (see `face_crop`) as unit vectors (M, D) float32."""
        pixels = (faces.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5
        # One face per run: many ArcFace files have a fixed batch size of 1.
        vectors = np.concatenate([self._session.run(None, {self._input: face[None]})[0] for face in pixels])
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def open_identity_encoder(path: str | os.PathLike, identity_dim: int | None) -> IdentityEncoder | None:
    """Load the identity network of a model; return None if the model uses none.

    Args:
        path: path of the ONNX file.
        identity_dim: embedding width that the model expects; None if the model takes no identity embedding.

    Raises:
        InputError: the file is missing, or its embeddings have another width.
    """
    if identity_dim is None:
        return None
    if not path or not os.path.isfile(path):
        raise InputError(f"this model attends to an identity embedding of width {identity_dim}: expected the ONNX file "
                         f"of an ArcFace network {f'at {path}' if path else 'in identity_model'}, found none; add it")
    encoder = IdentityEncoder(path)
    if encoder.width != identity_dim:
        raise InputError(f"identity model {path}: its embeddings have width {encoder.width}, the model expects "
                         f"identity_dim={identity_dim}; give another network")
    return encoder


def embed_faces(batch: dict, identity_encoder: IdentityEncoder | None) -> dict:
    """Replace the face crops of a loader batch by their identity embeddings if the model uses them."""
    if identity_encoder is None:
        return batch
    rest = {name: x for name, x in batch.items() if name != "face"}
    return {**rest, "identity": identity_encoder(batch["face"])}
