"""MediaPipe 0.10.21 as a peer of `benchmarks/annotator.py`, which starts this script with a Python that has it.

Messages on standard input and output; all integers are little-endian:

    request:  op (1 byte), height (uint32), width (uint32), then height*width*3 bytes of RGB
    answer:   length (uint32), then as many bytes: float64 seconds, then the result

    op  result
    M   largest face of a photo: 478*3 float32 (x, y, z in pixels of the picture), or empty without a face
    T   the face in the next frame of a video, followed from the previous frame
    P   height*width bytes: confidence 0..255 that a pixel shows a person
    R   empty; forgets the followed face
"""

import os
import struct
import sys
import time

import numpy as np


class Models:
    """The face mesh with attention, and the person segmentation."""

    def __init__(self):
        from mediapipe import solutions

        mesh = {"refine_landmarks": True, "min_detection_confidence": 0.5}
        self._photo = solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=4, **mesh)
        self._tracker = solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1, **mesh)
        self._person = solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)

    def answer(self, op, image):
        """Return the result of a request as bytes."""
        if op == b"R":
            self._tracker.reset()
            return b""
        if op == b"P":
            return np.rint(self._person.process(image).segmentation_mask * 255).astype(np.uint8).tobytes()
        height, width = image.shape[:2]
        found = (self._tracker if op == b"T" else self._photo).process(image).multi_face_landmarks or ()
        faces = [np.array([(p.x * width, p.y * height, p.z * width) for p in face.landmark], "<f4") for face in found]
        return max(faces, key=lambda points: np.ptp(points[:, 1])).tobytes() if faces else b""


def serve(read, write):
    """Answer requests until standard input ends."""
    models = Models()
    while len(header := read.read(9)) == 9:
        op, height, width = struct.unpack("<cII", header)
        image = np.frombuffer(read.read(height * width * 3), np.uint8).reshape(height, width, 3)
        start = time.perf_counter()
        result = models.answer(op, image)
        payload = struct.pack("<d", time.perf_counter() - start) + result
        write.write(struct.pack("<I", len(payload)) + payload)
        write.flush()


if __name__ == "__main__":
    # MediaPipe's libraries print to standard output; it goes to standard error, so that the messages stay whole.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("MPLBACKEND", "Agg")
    serve(sys.stdin.buffer, pipe)
