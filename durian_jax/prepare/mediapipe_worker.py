"""Run MediaPipe for `prepare.client`, in the annotator's environment. The package does not import this script.

Messages on standard input and output; all integers are little-endian:

    request:  op (1 byte), height (uint32), width (uint32), then height*width*3 bytes of RGB
    answer:   length (uint32), then as many bytes

    op  answer
    M   face mesh of a photo: 478*3 float32 (x, y, z in pixels of the picture), or empty without a face
    T   the same for the next frame of a video, tracked from the previous frame
    A   all faces (at most four) of the next frame of a video: n*478*3 float32
    P   height*width bytes: confidence 0..255 that a pixel shows a person
    R   empty; forgets the tracked faces (the request has no pixels: height = width = 0)

Once the models are loaded, the script sends one empty message without a request.
"""

import os
import struct
import sys

import numpy as np


class Models:
    """MediaPipe's face mesh, face detection and person segmentation, from the models in its wheel."""

    def __init__(self):
        from mediapipe import solutions

        mesh = {"refine_landmarks": True, "min_detection_confidence": 0.5}
        self._photo = solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=4, **mesh)
        self._tracker = solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=1, min_tracking_confidence=0.5, **mesh)
        self._several = solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=4, min_tracking_confidence=0.5, **mesh)
        # The mesh detects only near faces; this detector also finds small, far ones.
        self._far = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)
        self._person = solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)

    def mesh(self, image, tracked):
        """Return the (478, 3) float32 mesh of the largest face in pixels, or None."""
        return _largest((self._tracker if tracked else self._photo).process(image), image.shape)

    def meshes(self, image):
        """Return (n, 478, 3) float32 meshes of all faces in pixels, tracked from frame to frame; n may be 0."""
        found = _faces(self._several.process(image), image.shape)
        if not found and (far := self.far_mesh(image)) is not None:
            found = [far]
        return np.stack(found) if found else np.empty((0, 478, 3), np.float32)

    def far_mesh(self, image):
        """Return the mesh of a face that covers little of the picture: detect the face, then mesh its crop."""
        found = self._far.process(image).detections
        if not found:
            return None
        height, width = image.shape[:2]
        boxes = [detection.location_data.relative_bounding_box for detection in found]
        box = max(boxes, key=lambda b: b.width * b.height)
        half = max(box.width * width, box.height * height)
        x, y = (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height
        left, right = max(int(x - half), 0), min(int(x + half), width)
        top, bottom = max(int(y - half), 0), min(int(y + half), height)
        if right - left < 16 or bottom - top < 16:
            return None
        crop = np.ascontiguousarray(image[top:bottom, left:right])
        points = _largest(self._photo.process(crop), crop.shape)
        return None if points is None else points + np.array([left, top, 0], np.float32)

    def person(self, image):
        """Return (H, W) uint8: 255 where a person is certain."""
        return np.rint(self._person.process(image).segmentation_mask * 255).astype(np.uint8)

    def reset(self):
        """Forget the tracked faces: the next picture begins another video."""
        self._tracker.reset()
        self._several.reset()


def _faces(result, shape):
    height, width = shape[:2]
    return [np.array([(p.x * width, p.y * height, p.z * width) for p in face.landmark], np.float32)
            for face in result.multi_face_landmarks or ()]


def _largest(result, shape):
    return max(_faces(result, shape), key=lambda points: np.ptp(points[:, 1]), default=None)


def serve(read, write):
    """Answer requests until standard input ends."""
    models = Models()
    _send(write, b"")
    while True:
        header = read.read(9)
        if len(header) < 9:
            return
        op, height, width = struct.unpack("<cII", header)
        pixels = read.read(height * width * 3)
        image = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
        if op == b"R":
            models.reset()
            _send(write, b"")
        elif op == b"P":
            _send(write, models.person(image).tobytes())
        elif op == b"A":
            _send(write, models.meshes(image).astype("<f4").tobytes())
        else:
            points = models.mesh(image, tracked=op == b"T")
            if points is None:
                points = models.far_mesh(image)
            _send(write, b"" if points is None else points.astype("<f4").tobytes())


def _send(write, payload):
    write.write(struct.pack("<I", len(payload)) + payload)
    write.flush()


if __name__ == "__main__":
    # MediaPipe's libraries may print to standard output. Send it to standard error, so that it cannot corrupt the pipe.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("MPLBACKEND", "Agg")
    serve(sys.stdin.buffer, pipe)
