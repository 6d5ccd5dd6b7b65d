"""Turn one video into clip records and an entry of the report."""

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.data.clip_record import ENCODINGS, Provenance, read_record, rewrite_record, write_record
from durian_jax.data.corrections import Corrections
from durian_jax.data.dataset_writer import write_shard
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.pose import head_pose
from durian_jax.faces.quality import eye_openness, mouth_openness, occlusion, sharpness
from durian_jax.faces.regions import landing_region
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import temporary
from durian_jax.prepare.annotate import no_face
from durian_jax.prepare.attributes import Evidence
from durian_jax.prepare.crop import face_height, smooth_track
from durian_jax.prepare.frames import open_frames
from durian_jax.prepare.inputs import VideoInput
from durian_jax.prepare.maskers import make_masker
from durian_jax.prepare.stretches import Crop, Stretch, cut_clips, stretch_of
from durian_jax.prepare.track import FACES, choose_faces, describe_ranges, find_faces
from durian_jax.prepare.user_masks import UserMasks

# Names the person of each clip of one video: (clips' names, clips' first frames (H, W, 3) uint8, proposed
# identities) -> identities. It may compare the frames with any reference, such as a gallery or embeddings.
Identify = Callable[[list[str], list[np.ndarray], list[str]], list[str]]


@dataclass(frozen=True)
class Settings:
    """How videos become clips. Finished videos are prepared again if these settings change.

    Attributes:
        size: side of the view in pixels.
        margin: pixels kept on each side around the view.
        fps: faster videos are subsampled to about this frame rate; slower videos keep theirs.
        segment_frames: longer stretches are split into clips of at most this many frames.
        min_frames: shorter stretches are skipped.
        max_frames: read at most this many frames of a video; None: read all.
        encoding: encoding of the frames, one of `data.clip_record.ENCODINGS`.
        faces: which of several simultaneous faces become clips, one of `track.FACES`.
        masker: see `maskers.make_masker`.
        masks: folder of user-made masks (`user_masks.UserMasks`); None: use the masker for all kinds.
        corrections: datasets whose masks `durian masks replace` has corrected; these replace the masker's.
    """

    size: int = 512
    margin: int = 64
    fps: float = 25.0
    segment_frames: int = 48
    min_frames: int = 8
    max_frames: int | None = None
    encoding: str = "jpeg"
    faces: str = "all"
    masker: str = "default"
    masks: str | None = None
    corrections: tuple[str, ...] = ()

    def __post_init__(self):
        if min(self.size, self.segment_frames, self.min_frames) < 1 or self.margin < 0 or not self.fps > 0:
            raise InputError("expected size, fps, segment_frames and min_frames above 0 and margin at least 0, got "
                             f"{self.size}, {self.fps}, {self.segment_frames}, {self.min_frames} and {self.margin}")
        if self.segment_frames < self.min_frames or (self.max_frames is not None and self.max_frames < 1):
            raise InputError(f"expected segment_frames of at least min_frames {self.min_frames}, and max_frames of at "
                             f"least 1, got segment_frames {self.segment_frames} and max_frames {self.max_frames}")
        if self.encoding not in ENCODINGS:
            raise InputError(f"unknown frame encoding {self.encoding!r}; expected one of {', '.join(ENCODINGS)}")
        # Workers may run in another directory.
        object.__setattr__(self, "corrections", tuple(map(os.path.abspath, self.corrections)))
        if self.masks is not None:
            object.__setattr__(self, "masks", os.path.abspath(self.masks))
        if self.faces not in FACES:
            raise InputError(f"faces: expected one of {', '.join(FACES)}, got {self.faces!r}")


class Tools:
    """Models of a worker, which loads them once for all its videos."""

    def __init__(self, settings: Settings):
        cv2.setNumThreads(1)  # parallelism comes from the worker processes
        self.masker = make_masker(settings.masker)
        self.masks = UserMasks(settings.masks) if settings.masks else None
        self.corrections = Corrections(settings.corrections)

    @cached_property
    def annotator(self) -> Annotator:
        """The annotator, loaded when it is first used."""
        return Annotator(threads=1)


def prepare_video(video: VideoInput, settings: Settings, tools: Tools, shard: Path,
                  identify: Identify | None = None) -> dict:
    """Write the clips of a video into a shard of its own.

    Returns:
        The video's entry in the report.

    Raises:
        InputError: the video is unreadable, or shows no face for long enough.
    """
    frames, annotator = open_frames(video, settings.max_frames), tools.annotator
    kinds = tools.masks.kinds(video.name) if tools.masks else ()
    if not kinds:  # The user's masks fit the pictures as they are.
        frames = frames.upright(annotator)
    faces = find_faces(frames, frames.fps, annotator)
    if not faces.runs:
        raise no_face(video.path, faces)
    stride = max(1, round(faces.fps / settings.fps))
    chosen = choose_faces(faces.runs, settings.faces)
    stretches = [stretch_of(run, smooth, faces, first, last, stride)
                 for run in chosen for smooth in [smooth_track(run.points)]
                 for first, last in split_run(run.first, run.last, stride, settings.segment_frames,
                                              settings.min_frames)]
    if not stretches:
        longest = max(run.last - run.first for run in chosen)
        raise InputError(f"{video.path}: the longest uninterrupted view of a face has {longest} frames; "
                         f"expected at least {settings.min_frames * stride}; choose a longer video")
    read = partial(_supplied, tools.masks, video.name, kinds, frames.first) if kinds else None
    crop = Crop(settings.size, settings.margin, tools.masker, video.labels)
    with temporary(tempfile.mkdtemp(prefix="durian-")) as folder:
        cut = [_keep(folder / str(i), video, settings, stride, frames.first, *found)
               for i, found in enumerate(cut_clips(frames, stretches, crop, annotator, read))]
        people = sorted({part.person for part in cut})
        identities = [video.identity if len(people) == 1 else f"{video.identity}/{people.index(part.person)}"
                      for part in cut]
        if identify:
            identities = identify([part.name for part in cut], [_first_frame(part) for part in cut], identities)
            if len(identities) != len(cut):
                raise InputError(f"identify: expected {len(cut)} names, found {len(identities)}; correct the function")
        # Each shot is judged separately, because another person may appear after a cut.
        shots = np.cumsum(faces.cuts)
        wearers = [(part.person, int(shots[part.first - frames.first])) for part in cut]
        worn = {wearer: _agreed([part.evidence for part, other in zip(cut, wearers, strict=True) if other == wearer],
                                video.labels, kinds) for wearer in dict.fromkeys(wearers)}
        write_shard(shard, (_agree(part, identity, worn[wearer][0], kinds, tools.corrections)
                            for part, identity, wearer in zip(cut, identities, wearers, strict=True)))
    heights = np.concatenate([face_height(run.points) for run in chosen])
    whole = video.start is None and video.end is None and settings.max_frames is None
    lost = frames.count - len(faces) if whole and frames.count else 0
    return {
        "file": str(video.path), "name": video.name, "source_frames": len(faces), "source_fps": faces.fps,
        "warnings": [f"the file declares {frames.count} frames but contains {len(faces)}"] if lost > 0 else [],
        "skipped": describe_ranges(faces.faceless()), "cuts": np.flatnonzero(faces.cuts).tolist(),
        "face_height": round(float(np.median(heights)), 1),
        "judged": [{"person": person, "shot": shot, "attributes": kinds_worn, "evidence": evidence}
                   for (person, shot), (kinds_worn, evidence) in worn.items()],
        "clips": [{"name": part.name, "identity": identity, "first": part.first, "last": part.last,
                   "frames": part.frames,
                   **_certainty(part.evidence, kinds if video.labels is None else ATTRIBUTE_KINDS)}
                  for part, identity in zip(cut, identities, strict=True)],
    }


def split_run(first: int, last: int, stride: int, segment_frames: int, min_frames: int
              ) -> list[tuple[int, int]]:
    """Split a run of source frames (first, last + 1) into segments of about equal length, in the same form.

    Each segment yields at most `segment_frames` frames when every `stride`-th frame is kept. A run that would yield
    fewer than `min_frames` gives no segments.
    """
    kept = -(-(last - first) // stride)
    if kept < min_frames:
        return []
    edges = np.linspace(0, kept, -(-kept // segment_frames) + 1).round().astype(int)
    return [(first + a * stride, min(first + b * stride, last))
            for a, b in zip(edges[:-1], edges[1:], strict=True)]


def clip_quality(clip: Clip, source_face_height: float) -> dict[str, float]:
    """Return the value of each of `data.clip_record.QUALITIES`.

    Args:
        clip: a clip of one person.
        source_face_height: median height of the face in the video, in pixels.
    """
    def spread(values):
        low, high = np.percentile(values, (5, 95))
        return float(high - low)

    pose = head_pose(clip.keypoints)
    return {"sharpness": float(np.median(sharpness(clip.frames, clip.keypoints))),
            "face_height": float(source_face_height),
            "occlusion": float(np.percentile(occlusion(clip.frames, clip.keypoints, clip.masks), 90)),
            "yaw_range": spread(pose[:, 0]), "pitch_range": spread(pose[:, 1]),
            "blink_range": spread(eye_openness(clip.keypoints).mean(-1)),
            "mouth_range": spread(mouth_openness(clip.keypoints))}


@dataclass(frozen=True)
class _Cut:
    """A clip that is stored on disk until its whole video has been judged."""

    path: Path
    name: str
    person: int
    first: int
    last: int
    frames: int
    evidence: Evidence


def _keep(path: Path, video: VideoInput, settings: Settings, stride: int, offset: int, stretch: Stretch, clip: Clip,
          evidence: Evidence) -> _Cut:
    first, last = int(stretch.frames[0]) + offset, int(stretch.frames[-1]) + offset
    name = f"{video.name}#{first}" + (f"-{stretch.run.person}" if stretch.run.person else "")
    heights = face_height(stretch.points)
    provenance = Provenance(name, str(video.path), first, stride, clip_quality(clip, float(np.median(heights))))
    path.write_bytes(write_record(clip, settings.encoding, provenance))
    return _Cut(path, name, stretch.run.person, first, last, len(clip), evidence)


def _first_frame(part: _Cut) -> np.ndarray:
    return read_record(part.path.read_bytes(), part.name).clip([0]).view().frames[0]


def _certainty(evidence: Evidence, given: Collection[str]) -> dict[str, str | float]:
    """Return the fields of a clip's certainty for the report; the user's own kinds are certain."""
    kind, value = evidence.least_certain(given)
    return {"least_certain": kind, "certainty": value}


def _agreed(evidence: list[Evidence], labels: tuple[str, ...] | None, supplied: tuple[str, ...]
            ) -> tuple[list[str], dict[str, float]]:
    """Return the kinds that a person wears throughout a shot, and the median evidence of each kind."""
    middle = {kind: round(float(np.median([asdict(e)[kind] for e in evidence])), 2) for kind in ATTRIBUTE_KINDS}
    worn = [kind for kind in ATTRIBUTE_KINDS
            if kind in supplied or (middle[kind] >= 1 if labels is None else kind in labels)]
    return worn, middle


def _agree(part: _Cut, identity: str, worn: list[str], supplied: tuple[str, ...],
           corrections: Corrections) -> bytes:
    """Return the final record of a clip."""
    record = read_record(part.path.read_bytes(), part.name)
    masks = np.stack([record.mask(i) for i in range(len(record))])
    agreed = agreed_masks(masks, record.keypoints, worn, supplied)
    numbers = record.provenance.first_frame + record.provenance.stride * np.arange(len(record))
    agreed = corrections.apply(part.name, numbers, record.keypoints, agreed)
    return rewrite_record(record, masks=None if np.array_equal(agreed, masks) else agreed, identity=identity)


def agreed_masks(masks: np.ndarray, keypoints: np.ndarray, worn: list[str],
                 supplied: tuple[str, ...] = ()) -> np.ndarray:
    """Return (T, H, W) masks with exactly the kinds that the person is judged to wear or the user supplied.

    Masks of glasses and beard are face regions and can be added afterwards. Masks of hair and hat cannot.
    """
    keep = sum(attribute_bit(kind) for kind in {*worn, *supplied})
    masks = masks & np.uint8(keep | 0xFF & ~sum(map(attribute_bit, ATTRIBUTE_KINDS)))
    for kind in ("glasses", "beard"):
        bit = np.uint8(attribute_bit(kind))
        if kind in worn and kind not in supplied and not (masks & bit).any():
            found = np.stack([landing_region(kind, points, *masks.shape[1:]) for points in keypoints])
            masks[found] |= bit
            if kind == "glasses":  # glasses are in front of hair
                masks[found] &= np.uint8(255 - attribute_bit("hair"))
    return masks


def _supplied(masks: UserMasks, name: str, kinds: tuple[str, ...], offset: int, frame: int, height: int, width: int
              ) -> dict[str, np.ndarray]:
    return {kind: masks.read(name, kind, frame + offset, height, width) for kind in kinds}
