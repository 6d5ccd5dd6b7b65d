"""TensorFlow Lite models of MediaPipe's signatures give masks; other files are refused."""

import numpy as np
import pytest

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import face_frame, hair_region
from durian_jax.prepare.maskers import make_masker
from tests.helpers.faces import face
from tests.helpers.tflite import pixel_classifier

pytest.importorskip("ai_edge_litert")
HAIR, OTHER = (120, 60, 30), (40, 160, 200)


@pytest.fixture
def head():
    """Frames whose hair is brown, with keypoints, person and the true hair."""
    keypoints = np.stack([face(np.random.default_rng(0))] * 2)
    hair = np.stack([hair_region(face_frame(points, 64, 64)) for points in keypoints])
    frames = np.where(hair[..., None], np.uint8(HAIR), np.uint8(OTHER))
    return frames, keypoints, np.full(hair.shape, 255, np.uint8), hair


def redness(classes: int, channels: int = 3, factor: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Weights whose class 1 wins where red exceeds blue by more than a tenth of the range of 0..1."""
    weights, bias = np.zeros((classes, channels)), np.zeros(classes)
    weights[1, 0], weights[1, 2], bias[1] = factor, -factor, -2.0
    bias[2:] = -30
    return weights, bias


def overlap(masks, hair):
    found = (masks & attribute_bit("hair")) > 0
    return (found & hair).sum() / (found | hair).sum()


@pytest.mark.parametrize(("classes", "channels", "scaling", "labels"), [
    (6, 3, None, ()),  # selfie_multiclass_256x256
    (2, 4, None, ()),  # hair_segmenter
    (2, 4, ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)), ()),
    (6, 3, ((0.0,), (255.0,)), ()),
    (3, 3, None, ("wall", "Hair", "skin")),
])
def test_models_of_published_signatures_give_masks(tmp_path, head, classes, channels, scaling, labels):
    (tmp_path / "model.tflite").write_bytes(pixel_classifier(*redness(classes, channels), 32, scaling, labels))
    masks, evidence = make_masker(f"tflite:{tmp_path / 'model.tflite'}")(*head[:3], None)
    assert overlap(masks, head[3]) > 0.9 and evidence.hair >= 1


def test_the_metadata_scale_the_picture(tmp_path, head):
    """The same weights for pixels within -1..1: without the metadata, nothing would be red enough."""
    weights, bias = redness(6)
    bias[1] = -4
    content = pixel_classifier(weights / 2, bias, 32, ((127.5,) * 3, (127.5,) * 3))
    (tmp_path / "model.tflite").write_bytes(content)
    masks, _ = make_masker(f"tflite:{tmp_path / 'model.tflite'}")(*head[:3], None)
    assert overlap(masks, head[3]) > 0.9
    (tmp_path / "other.tflite").write_bytes(pixel_classifier(weights / 2, bias, 32))
    masks, _ = make_masker(f"tflite:{tmp_path / 'other.tflite'}")(*head[:3], None)
    assert overlap(masks, head[3]) < 0.1


def test_other_files_are_refused(tmp_path):
    good, named = pixel_classifier(*redness(6), 16), pixel_classifier(*redness(3), 16, None, ("a", "hair", "c"))
    for name, content, words in (("text", b"hello", "a segmentation model with one input and one output, running it"),
                                 ("cut", good[:len(good) // 2], "expected a segmentation model with one input"),
                                 ("names", named.replace(b"labels.txt", b"labels.tx\0", 1), "names of its classes are"),
                                 ("empty", b"", "found an empty file"),
                                 ("classes", pixel_classifier(*redness(5), 16), "the names of its 5 classes"),
                                 ("labels", pixel_classifier(*redness(3), 16, None, ("a", "b", "c")),
                                  "a class for hair, found the classes a, b, c"),
                                 ("channels", pixel_classifier(np.ones((6, 5)), np.ones(6), 16), "float pictures"),
                                 ("four", pixel_classifier(*redness(2, 4), 16, ((0.0,) * 4, (1.0,) * 4)), "deviation"),
                                 ("scale", pixel_classifier(*redness(6), 16, ((0.0,), (0.0,))), "positive deviation")):
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with pytest.raises(InputError, match=words):
            make_masker(f"tflite:{tmp_path / name}.tflite")
    with pytest.raises(InputError, match="no such file; expected a segmentation model"):
        make_masker(f"tflite:{tmp_path}/nothing.tflite")
    with pytest.raises(InputError, match="unknown masker 'tflite:'; expected default, heuristic"):
        make_masker("tflite:")
