"""Find the faces of a video: uninterrupted runs of one face each, and the person of each run.

T frames; points are MediaPipe's 478 mesh points in pixels of the source picture.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from durian_jax.annotator import Annotator
from durian_jax.errors import InputError
from durian_jax.prepare.crop import face_centre, face_height, frame_ranges, scene_cuts

# A mesh is unreliable if it has fewer pixels than this between chin and hairline.
MIN_FACE_HEIGHT = 48

# The same face moves by less than this from one frame to the next, in face heights ...
_LARGEST_STEP = 0.5
# ... and changes its height by less than this (logarithm of the ratio).
_LARGEST_GROWTH = 0.35
# A face that comes back at the same place within this many seconds belongs to the same person.
_SECONDS_AWAY = 1.0

FACES = ("all", "largest", "left", "right")
# A person who is seen for less than this many seconds, beside another one, is taken for a false detection.
_PASSING = 0.5


@dataclass(frozen=True)
class Run:
    """One face in consecutive frames of one shot.

    Attributes:
        first: number of the run's first frame.
        points: (N, 478, 3) float32, as detected.
        person: number of the person in the video, from 0.
        seen: (N,) bool, False where the face was not detected and `points` bridge the gap; None: True everywhere.
    """

    first: int
    points: np.ndarray
    person: int = 0
    seen: np.ndarray | None = None

    @property
    def last(self) -> int:
        """Number of the run's last frame, plus 1."""
        return self.first + len(self.points)

    def overlaps(self, other: "Run") -> bool:
        """Return whether a frame shows both runs."""
        return self.first < other.last and other.first < self.last


@dataclass(frozen=True)
class Faces:
    """Faces found in the first pass over a video.

    Attributes:
        runs: runs in order of their first frames.
        cuts: (T,) bool, True for the first frame of a new shot.
        fps: frames per second.
        height, width: size of the pictures in pixels.
    """

    runs: list[Run]
    cuts: np.ndarray
    fps: float
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.cuts)

    def faceless(self) -> list[tuple[int, int]]:
        """Return the stretches (first, last + 1) of frames without a face."""
        seen = np.zeros(len(self), bool)
        for run in self.runs:
            seen[run.first:run.last] = True
        return frame_ranges(~seen)


def find_faces(pictures: Iterable[np.ndarray], fps: float, annotator: Annotator) -> Faces:
    """Find the faces in a first pass over a video.

    Args:
        pictures: (H, W, 3) uint8 RGB frames of one size, at least one.
        fps: frames per second.
        annotator: a loaded annotator; it forgets the faces that it follows.
    """
    annotator.reset()
    thumbnails, ended, active, shape = [], [], [], None
    for number, picture in enumerate(pictures):
        shape = picture.shape
        thumbnails.append(cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA))
        found = [mesh for mesh in annotator.follow(picture) if _plausible(mesh, shape)]
        active, lost = _continue(active, found, number)
        ended += lost
    cuts = scene_cuts(np.stack(thumbnails), fps)
    runs = [part for first, meshes in ended + active for part in _split(Run(first, np.stack(meshes)), cuts)]
    people = _with_persons(sorted(runs, key=lambda run: run.first), cuts, fps)
    return Faces(_lasting(people, round(_PASSING * fps)), cuts, fps, *shape[:2])


def choose_faces(runs: list[Run], which: str) -> list[Run]:
    """Of runs that overlap in time, keep all, or only the largest, leftmost or rightmost face."""
    if which == "all":
        return runs
    score = {"largest": lambda run: np.median(face_height(run.points)),
             "left": lambda run: -np.median(face_centre(run.points)[:, 0]),
             "right": lambda run: np.median(face_centre(run.points)[:, 0])}[which]
    scores = [score(run) for run in runs]
    return [run for run, mine in zip(runs, scores, strict=True)
            if all(mine >= other for rival, other in zip(runs, scores, strict=True) if rival.overlaps(run))]


def choose_person(runs: list[Run], which: str) -> list[Run]:
    """Return the runs of one person.

    Args:
        runs: at least one.
        which: "largest", who is seen largest and longest; "left" or "right"; or a number, counted from the left from 1.

    Raises:
        InputError: there is no person with this number, or `which` is none of these.
    """
    people: dict[int, list[Run]] = {}
    for run in runs:
        people.setdefault(run.person, []).append(run)
    groups = list(people.values())
    places = [np.median(np.concatenate([face_centre(run.points)[:, 0] for run in group])) for group in groups]
    sizes = np.array([sum(float(face_height(run.points).sum()) for run in group) for group in groups])
    return groups[choose_face(np.array(places), sizes, which)]


def choose_face(places: np.ndarray, sizes: np.ndarray, which: str) -> int:
    """Return the index of a face by its place from left to right and its size, both (n,); see `choose_person`."""
    if which == "largest":
        return int(np.argmax(sizes))
    if which in ("left", "right"):
        return int(np.argmin(places) if which == "left" else np.argmax(places))
    check_choice(which)
    if not 1 <= int(which) <= len(places):
        raise InputError(f"face {which}: expected a number from 1 to {len(places)}, the number of faces found")
    return int(np.argsort(places)[int(which) - 1])


def check_choice(which: str, name: str = "face") -> None:
    """Raise InputError for a choice that `choose_person` does not know."""
    if which not in ("largest", "left", "right") and not (which.isdecimal() and int(which)):
        raise InputError(f"{name}: expected largest, left, right or a number, counted from the left from 1, found "
                         f"{which!r}")


def bridge(runs: list[Run], cuts: np.ndarray, longest: int) -> list[Run]:
    """Return runs of one person that cover all frames.

    Within a shot, points of gaps up to `longest` frames are interpolated. Elsewhere the nearest face stands still.

    Args:
        runs: of one person, in order; at least one.
        cuts: (T,) bool, as in `Faces`.
        longest: in frames.
    """
    whole = [_padded(runs[0], runs[0].first, 0)]
    for run in runs[1:]:
        last = whole[-1]
        cut = np.flatnonzero(cuts[last.last:run.first + 1])
        if len(cut):
            begin = last.last + int(cut[0])
            whole[-1] = _padded(last, 0, begin - last.last)
            whole.append(_padded(run, run.first - begin, 0))
            continue
        gap = run.first - last.last
        share = np.arange(1, gap + 1)[:, None, None] / (gap + 1) if gap <= longest else np.zeros((gap, 1, 1))
        between = last.points[-1] * (1 - share) + run.points[0] * share
        seen = [np.ones(len(last.points), bool) if last.seen is None else last.seen, np.zeros(gap, bool),
                np.ones(len(run.points), bool)]
        whole[-1] = Run(last.first, np.concatenate([last.points, between, run.points]).astype(np.float32), run.person,
                        np.concatenate(seen))
    whole[-1] = _padded(whole[-1], 0, len(cuts) - whole[-1].last)
    return whole


def _padded(run: Run, before: int, after: int) -> Run:
    """A run with frames before and after it in which its first and its last face stand still."""
    seen = np.ones(len(run.points), bool) if run.seen is None else run.seen
    points = np.concatenate([np.repeat(run.points[:1], before, 0), run.points, np.repeat(run.points[-1:], after, 0)])
    return Run(run.first - before, points, run.person, np.pad(seen, (before, after)))


def _lasting(runs: list[Run], least: int) -> list[Run]:
    """Leave out persons who are seen in fewer than `least` frames, and never without a longer run beside them."""
    frames = Counter[int]()
    alone = set()
    for run in runs:
        frames[run.person] += len(run.points)
        if not any(other.first <= run.first and run.last <= other.last and len(other.points) > len(run.points)
                   for other in runs):
            alone.add(run.person)
    return [run for run in runs if run.person in alone or frames[run.person] >= least]


def describe_ranges(ranges: list[tuple[int, int]]) -> str:
    """Format frame ranges (first, last + 1) as text that includes the last frame: "0-3, 17"."""
    return ", ".join(f"{a}-{b - 1}" if b - a > 1 else str(a) for a, b in ranges)


def _continue(active: list, meshes: list[np.ndarray], number: int) -> tuple[list, list]:
    """Add the faces of frame `number` to the active runs [first, meshes]; return the active and the ended runs."""
    pairs = sorted((step, i, j) for i, (_, before) in enumerate(active) for j, mesh in enumerate(meshes)
                   if (step := _step(before[-1], mesh)) is not None)
    follower, taken = {}, set()
    for _, i, j in pairs:
        if i not in follower and j not in taken:
            follower[i] = j
            taken.add(j)
    for i, j in follower.items():
        active[i][1].append(meshes[j])
    going = [run for i, run in enumerate(active) if i in follower]
    going += [[number, [mesh]] for j, mesh in enumerate(meshes) if j not in taken]
    return going, [run for i, run in enumerate(active) if i not in follower]


def _step(before: np.ndarray, after: np.ndarray) -> float | None:
    """Return the distance of two faces in face heights, or None if they are not the same face one frame later."""
    heights = face_height(before), face_height(after)
    step = float(np.linalg.norm(face_centre(after) - face_centre(before)) / heights[1])
    return step if step < _LARGEST_STEP and abs(np.log(heights[1] / heights[0])) < _LARGEST_GROWTH else None


def _split(run: Run, cuts: np.ndarray) -> list[Run]:
    """Split a run at the shot cuts."""
    edges = [run.first, *(run.first + 1 + np.flatnonzero(cuts[run.first + 1:run.last])), run.last]
    return [Run(int(a), run.points[a - run.first:b - run.first]) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _with_persons(runs: list[Run], cuts: np.ndarray, fps: float) -> list[Run]:
    """Number the persons of the runs.

    A video that never shows two faces at once has one person. Otherwise, a run continues the person of an earlier run
    that ended at the same place in the same shot shortly before; any other run starts a new person.
    """
    if not any(a.overlaps(b) for i, a in enumerate(runs) for b in runs[i + 1:i + 16]):
        return runs
    numbered: list[Run] = []
    for run in runs:
        before = [other for other in numbered if other.last <= run.first <= other.last + _SECONDS_AWAY * fps
                  and not cuts[other.last:run.first + 1].any() and _step(other.points[-1], run.points[0]) is not None]
        person = max(before, key=lambda other: other.last).person if before else 1 + max(
            (other.person for other in numbered), default=-1)
        numbered.append(Run(run.first, run.points, person))
    return numbered


def _plausible(points: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether a mesh is large enough and its centre lies in the picture."""
    x, y = face_centre(points)
    return bool(face_height(points) >= MIN_FACE_HEIGHT and 0 <= x < shape[1] and 0 <= y < shape[0])
