"""Identity embeddings of faces, by a network that the user brings (ArcFace, arXiv 1801.07698)."""

import os

import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.face_crop import FACE_SIZE

# The network, in the folder of a checkpoint or export that needs one.
IDENTITY_FILE = "identity.onnx"


class IdentityEncoder:
    """An ArcFace network from an ONNX file of the user's (such as InsightFace's w600k_r50.onnx), on the CPU.

    Args:
        path: of the file.

    Attributes:
        width: of an embedding.

    Raises:
        InputError: onnxruntime is not installed, no such file, or not a network from (N, 3, 112, 112) to (N, D).
    """

    def __init__(self, path: str | os.PathLike):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("identity embeddings need onnxruntime: pip install onnxruntime") from error
        if not os.path.isfile(path):
            raise InputError(f"identity model {path}: expected an ONNX file, found none")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common class for what a damaged file causes
            raise InputError(f"identity model {path}: onnxruntime cannot read it: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        wanted = [3, FACE_SIZE, FACE_SIZE]
        if len(inputs) != 1 or inputs[0].shape[1:] != wanted or len(outputs) != 1 or len(outputs[0].shape) != 2:
            shapes = [x.shape for x in (*inputs, *outputs)]
            raise InputError(f"identity model {path}: expected a network from (N, 3, {FACE_SIZE}, {FACE_SIZE}) to "
                             f"(N, D), found {shapes}; name an ArcFace network")
        self._input = inputs[0].name
        self.width = self(np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8)).shape[1]

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Faces (M, 112, 112, 3) uint8, see `face_crop` -> (M, D) float32 of length 1."""
        pixels = (faces.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5
        # One at a time: many such files have a fixed batch of 1.
        vectors = np.concatenate([self._session.run(None, {self._input: face[None]})[0] for face in pixels])
        return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)).astype(np.float32)


def open_identity_encoder(path: str | os.PathLike, identity_dim: int | None) -> IdentityEncoder | None:
    """The network that a model needs, if it needs one.

    Args:
        path: of the ONNX file.
        identity_dim: width that the model expects; None: the model takes no identity embedding.

    Raises:
        InputError: there is none, or one of another width.
    """
    if identity_dim is None:
        return None
    if not path or not os.path.isfile(path):
        raise InputError(f"this model attends to an identity embedding of width {identity_dim}: expected the ONNX file "
                         f"of an ArcFace network {f'as {path}' if path else 'in identity_model'}, found none")
    encoder = IdentityEncoder(path)
    if encoder.width != identity_dim:
        raise InputError(f"identity model {path}: its embeddings have width {encoder.width}, the model expects "
                         f"identity_dim={identity_dim}")
    return encoder


def embed_faces(batch: dict, identity_encoder: IdentityEncoder | None) -> dict:
    """A batch of the loader with the identity embeddings of its faces instead of them, where the model has such."""
    if identity_encoder is None:
        return batch
    rest = {name: x for name, x in batch.items() if name != "face"}
    return {**rest, "identity": identity_encoder(batch["face"])}
