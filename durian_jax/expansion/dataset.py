"""`durian expand`: generated regions for mask expansion, added to a dataset once, before training.

Durian trains with M_port = M_attr UNION M_gen (mask expansion), M_gen being the attribute's mask in a picture
generated at the same keypoints. Here M_gen comes from a checkpoint of our own, which puts another person's attribute
on the face, or, as in the paper, from a text-to-image model with a ControlNet (`expand_diffusers`).
"""

import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint
from durian_jax.data import DataConfig, RecordedClips
from durian_jax.data.clip_record import DecodeError, rewrite_record
from durian_jax.data.recorded_clips import replace_records
from durian_jax.diffusion.sampling import Sampling
from durian_jax.errors import InputError
from durian_jax.faces.clip import Clip, attribute_bit
from durian_jax.faces.pose import head_pose, spread_poses
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.files import writable_folder
from durian_jax.inference.durian import reference_batch
from durian_jax.inference.generate import generate

# Share of the view from which an attribute counts as shown, as in training.
_SHOWN = DataConfig().minimum_area


@dataclass(frozen=True)
class Wanted:
    """One region to generate: where an attribute of this kind, but of another shape, would lie.

    Attributes:
        photo: the clip's frame, without margin: the keypoints to generate at, and a portrait.
        kind: of the attribute; the person wears one of it.
        rng: random numbers for this region alone, so that it does not depend on what else is wanted.
    """

    photo: Clip
    kind: str
    rng: np.random.Generator


class Generator(Protocol):
    """Makes regions; `TransferGenerator` and `expand_diffusers.DiffusersGenerator` are such."""

    def __call__(self, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """For each, in order: (h, w) bool of any size, the region in the photo; None where there is none."""


def expand(dataset: str | os.PathLike, generator: str | Generator = "own", *, checkpoint: str | Path = "tiny",
           controlnet: str | None = None, masker: str = "heuristic", frames: int = 2,
           kinds: Iterable[str] = ATTRIBUTE_KINDS, seed: int = 0, steps: int | None = None, batch: int = 8,
           overwrite: bool = False) -> dict:
    """Adds generated regions to the clips of a dataset, at a few frames of each, for the kinds that it shows.

    Goes shard by shard: the same call again continues a killed one after its last finished shard. Clips that have
    regions keep them. A region depends on the dataset, the settings and the clip's name; how many are generated at
    once changes it by rounding at most.

    Args:
        dataset: folder of records; only shards that get regions are written again.
        generator: "own", "diffusers:FOLDER_OR_HUB_ID" or a `Generator`.
        checkpoint: for "own": name of a shipped one, or a folder.
        controlnet: for "diffusers:...": a folder or a hub id.
        masker: for "diffusers:...", see `prepare.maskers.make_masker`.
        frames: of a clip, at most; spread over its head poses.
        kinds: to generate.
        seed: of every choice and of the noise.
        steps: of the sampler; None takes the generator's own number.
        batch: pictures generated at once.
        overwrite: replace the regions that clips have, of all kinds.

    Returns:
        What dataset.json holds as `expanded`: the settings, finished `shards`, `clips` with regions, number of
        `regions` of each kind, and how many clips were left out: `bare` (they show no such kind),
        `without_region` (no donor, or the attribute did not appear) and `damaged`.

    Raises:
        InputError: no dataset, wrong numbers, an unknown generator, a model that cannot be loaded, or a dataset
            that was expanded with other settings.
    """
    kinds = [kind for kind in dict.fromkeys(kinds) if attribute_bit(kind)]
    if not kinds or min(frames, batch, 1 if steps is None else steps) < 1 or not 0 <= seed < 2**32:
        raise InputError("expand: expected some kind, frames, steps and batch of at least 1 and a seed below 2^32; "
                         f"found kinds {kinds}, frames {frames}, steps {steps}, batch {batch}, seed {seed}")
    clips = RecordedClips(dataset)
    writable_folder(clips.directory)
    settings = {"generator": generator if isinstance(generator, str) else type(generator).__name__,
                "checkpoint": str(checkpoint), "controlnet": controlnet, "masker": masker, "frames": frames,
                "kinds": kinds, "seed": seed, "steps": steps}
    progress = _progress(clips, settings, overwrite)
    shards = list(enumerate(clips.shards()))[progress["shards"]:]
    if not shards:
        return progress
    with ExitStack() as resources:
        if isinstance(generator, str):
            generator = _make_generator(generator, clips, checkpoint, controlnet, masker, seed, steps, batch, resources)
        bar = resources.enter_context(tqdm(desc="expanding", unit="clip", total=sum(len(rows) for _, rows in shards)))
        for number, rows in shards:
            fields, counts = _expand_shard(clips, rows, generator, progress, batch, bar)
            records = {row: rewrite_record(clips.open(row), generated=found) for row, found in fields.items()}
            done = _add(progress, counts)
            try:
                replace_records(clips.directory, records, {"expanded": done})
            except DecodeError as error:
                # A clip that was left out is damaged so badly that its neighbours cannot be copied either.
                warnings.warn(f"{error}; shard {number} stays as it is", stacklevel=2)
                done = _add(progress, Counter(damaged=len(rows)))
                replace_records(clips.directory, {}, {"expanded": done})
            progress = done
    return progress


def _progress(clips: RecordedClips, settings: dict, overwrite: bool) -> dict:
    """The entry of dataset.json to go on from."""
    found = clips.about.get("expanded")
    if found is None or overwrite:
        return {**settings, "overwrite": overwrite, "shards": 0, "clips": 0,
                "regions": dict.fromkeys(ATTRIBUTE_KINDS, 0),
                "left_out": dict.fromkeys(("bare", "without_region", "damaged"), 0)}
    other = [f"{key} {found.get(key)}, not {value}" for key, value in settings.items() if found.get(key) != value]
    if other:
        raise InputError(f"{clips.directory} was expanded with other settings ({'; '.join(other)}); give the same to "
                         "go on, or replace its regions with --overwrite")
    return found


def _add(progress: dict, counts: Counter) -> dict:
    """The entry after one more shard."""
    return {**progress, "shards": progress["shards"] + 1, "clips": progress["clips"] + counts["clips"],
            "regions": {kind: number + counts[kind] for kind, number in progress["regions"].items()},
            "left_out": {why: number + counts[why] for why, number in progress["left_out"].items()}}


def _expand_shard(clips: RecordedClips, rows: range, generator: Generator, settings: dict, batch: int, bar: tqdm
                  ) -> tuple[dict[int, dict[int, np.ndarray]], Counter]:
    """New bit fields of a shard's clips, row -> frame -> (H, W) uint8, and what there is to count."""
    height, width, margin = (clips.about[key] for key in ("height", "width", "margin"))
    counts, fields, stale = Counter(), {}, set()

    def count(generated: dict[int, np.ndarray]) -> None:
        counts["clips"] += 1
        counts.update(kind for field in generated.values() for kind in ATTRIBUTE_KINDS
                      if (field & attribute_bit(kind)).any())

    def wanted() -> Iterator[tuple[int, int, Wanted]]:
        for row in rows:
            bar.update()
            outline = clips.outline(row)
            worn = [kind for kind in settings["kinds"]
                    if (outline.areas[:, ATTRIBUTE_KINDS.index(kind)] >= _SHOWN).any()]
            try:
                clip = clips.open(row)
                if clip.generated_frames and not settings["overwrite"]:
                    count(clip.generated())
                    continue
                if clip.generated_frames:
                    stale.add(row)
                first = int(_rng(settings["seed"], outline.name).integers(len(outline)))
                chosen = sorted(spread_poses(outline.poses, settings["frames"], first))
                photos = clip.clip(chosen).view()
            except DecodeError:
                counts["damaged"] += 1
                continue
            if not worn:
                counts["bare"] += 1
                continue
            fields[row] = {}
            for place, frame in enumerate(chosen):
                for kind in worn:
                    rng = _rng(settings["seed"], outline.name, str(frame), kind)
                    yield row, frame, Wanted(photos[place:place + 1], kind, rng)

    queue = wanted()
    while some := list(islice(queue, batch)):
        regions = generator([each for *_, each in some])
        for (row, frame, each), region in zip(some, regions, strict=True):
            if region is not None and region.mean() >= _SHOWN:
                field = fields[row].setdefault(frame, np.zeros((height, width), np.uint8))
                field[stored_region(region, height, width, margin)] |= attribute_bit(each.kind)
    counts["without_region"] = sum(not found for found in fields.values())
    for found in filter(None, fields.values()):
        count(found)
    # Regions to be replaced go, even where no new ones were found.
    fields = {row: fields.get(row, {}) for row in rows if fields.get(row) or row in stale}
    return fields, counts


def _rng(seed: int, *words: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in words)])


def stored_region(region: np.ndarray, height: int, width: int, margin: int) -> np.ndarray:
    """An (h, w) bool region of the view, as (height, width) bool of the stored picture with its margin.

    What touches the view's edge is taken to go on in the margin, as M_port's own masks are (`data.samples.durian`).
    """
    inner = (width - 2 * margin, height - 2 * margin)
    if region.shape[::-1] != inner:
        shrinks = region.shape[1] > inner[0]
        region = cv2.resize(region.astype(np.float32), inner,
                            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) > 0.5
    return np.pad(region, margin, mode="edge")


def _make_generator(name: str, clips: RecordedClips, checkpoint: str | Path, controlnet: str | None, masker: str,
                    seed: int, steps: int | None, batch: int, resources: ExitStack) -> Generator:
    method, _, model = name.partition(":")
    if name == "own":
        if controlnet is not None:
            raise InputError(f"controlnet {controlnet}: expected a generator diffusers:FOLDER beside it, found own")
        return TransferGenerator(clips, load_checkpoint(checkpoint), Sampling(steps or 1, seed=seed), batch)
    if method != "diffusers" or not model:
        raise InputError(f"unknown generator {name!r}; expected own, diffusers:FOLDER or diffusers:OWNER/NAME (a "
                         "Stable Diffusion XL in diffusers' format, there or on the Hugging Face hub)")
    if controlnet is None:
        raise InputError(f"generator {name}: expected a ControlNet that follows drawn keypoints, found none; name its "
                         "folder or hub id with --controlnet")
    from durian_jax.expansion.diffusers import DiffusersGenerator
    from durian_jax.prepare.client import Annotator
    from durian_jax.prepare.maskers import make_masker

    find = make_masker(masker)
    annotator = resources.enter_context(Annotator())
    return DiffusersGenerator(model, controlnet, find, annotator.person, steps or 30)


# --- regions from a checkpoint of our own --------------------------------------------------------------

# Donors whose head poses are compared. More would be closer in pose, and fewer people would serve as donors.
_CANDIDATES = 16
# Share of a pixel from which the attribute covers it. Below half: a region that is a little too large costs nothing,
# one that is too small gives the attribute's outline away.
_COVERED = 0.4
# What lies inside of them belongs to them, be it of another colour: lenses, bands. A face inside hair does not.
_SOLID = ("glasses", "hat")


class TransferGenerator:
    """Regions from our own model: the photo gets the attribute of another person in the dataset, at its own keypoints.

    Args:
        clips: where the donors are.
        checkpoint: the model; photos of other sizes are resampled.
        sampling: how its pictures are drawn.
        batch: transfers at once.
    """

    def __init__(self, clips: RecordedClips, checkpoint: Checkpoint, sampling: Sampling = Sampling(), batch: int = 8):
        self._clips, self._checkpoint, self._sampling, self._batch = clips, checkpoint, sampling, batch
        outlines = [clips.outline(index) for index in range(len(clips))]
        self._identities = np.array([outline.identity for outline in outlines])
        self._wearers = {kind: np.flatnonzero([_whole(outline.areas, kind).any() for outline in outlines])
                         for kind in ATTRIBUTE_KINDS}

    def __call__(self, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """See `Generator`."""
        size = self._checkpoint.config.image_size
        donors = [self.donor(each) for each in wanted]
        cases = [(_resized(each.photo, size), each.kind, donor)
                 for each, donor in zip(wanted, donors, strict=True) if donor is not None]
        regions = iter(transfer_regions(self._checkpoint, cases, self._sampling, self._batch))
        return [None if donor is None else next(regions) for donor in donors]

    def donor(self, wanted: Wanted) -> Clip | None:
        """A frame of someone else who shows the kind: of some people, the frame nearest in yaw and pitch.

        At the checkpoint's size; None where nobody else in the dataset shows it.
        """
        others = self._wearers[wanted.kind]
        others = others[self._identities[others] != wanted.photo.identity]
        pose, nearest = head_pose(wanted.photo.keypoints[0]), []
        for index in wanted.rng.choice(others, min(_CANDIDATES, len(others)), replace=False):
            outline = self._clips.outline(int(index))
            frames = np.flatnonzero(_whole(outline.areas, wanted.kind))
            # Roll does not count: the model turns attributes in the picture's plane by itself.
            away = np.linalg.norm(outline.poses[frames, :2] - pose[:2], axis=-1)
            nearest.append((float(away.min()), int(index), int(frames[away.argmin()])))
        for _, index, frame in sorted(nearest):
            try:
                donor = _resized(self._clips.read(index, [frame]).view(), self._checkpoint.config.image_size)
            except DecodeError:
                continue
            if donor.mask(wanted.kind).any():
                return donor
        return None


def _whole(areas: np.ndarray, kind: str) -> np.ndarray:
    """(T,) bool: frames with (T, kinds) areas that show an attribute, and hair without a hat on it."""
    shown = areas[:, ATTRIBUTE_KINDS.index(kind)] >= _SHOWN
    return shown & (areas[:, ATTRIBUTE_KINDS.index("hat")] == 0) if kind == "hair" else shown


def _resized(photo: Clip, size: int) -> Clip:
    """A photo without margin at the model's size."""
    height, width = photo.frames.shape[1:3]
    if (height, width) == (size, size):
        return photo
    how = cv2.INTER_AREA if height > size else cv2.INTER_LINEAR
    frame = cv2.resize(photo.frames[0], (size, size), interpolation=how)
    # Bits cannot be averaged: nearest neighbour.
    masks = cv2.resize(photo.masks[0], (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return replace(photo, frames=frame[None], masks=masks[None])


def transfer_regions(checkpoint: Checkpoint, cases: Sequence[tuple[Clip, str, Clip]], sampling: Sampling = Sampling(),
                     batch: int = 8) -> list[np.ndarray]:
    """Where the attribute lies once the model has put it on the portrait.

    No segmenter is needed. Every transfer is generated twice, from the attribute lightened and from it darkened. The
    two references differ by the same known amount everywhere, so that the share of it that comes through in a pixel
    is the share of the pixel that the attribute covers. (Triangulation matting, Smith and Blinn 1996, which
    photographs one object before two backdrops; here two objects stand before one.) Colours alone would not do: what
    shows beside the attribute may have its colour, and a generated picture has the reference's only roughly.

    Args:
        checkpoint: the model.
        cases: portrait, kind and donor: photos without margin at the checkpoint's size; the donor shows the kind.
        sampling: how the pictures are drawn.
        batch: transfers at once; each call of the model is filled up to it, so that one compiled function serves all.

    Returns:
        (H, W) bool of each case.
    """
    regions = []
    for start in range(0, len(cases), batch):
        some = list(cases[start:start + batch])
        full = some + some[:1] * (batch - len(some))
        references = reference_batch(checkpoint, [(portrait, [(kind, donor)]) for portrait, kind, donor in full])
        references["keypoints"] = np.stack([portrait.keypoints for portrait, _, _ in full])
        light, dark = (
            generate(checkpoint, {**references, "attributes": (0.5 * references["attributes"] + shift)
                                  * references["attribute_masks"]}, sampling)[:, 0].astype(np.float32)
            for shift in (0.5, -0.5))
        # The references are apart by half of the range, from -0.5 to 0.5.
        matte = (light - dark).mean(-1) / 127.5
        # What was not blanked, such as a hat that stays on the hair, cannot have become the attribute.
        blanked = references["portrait_mask"][..., 0] > 0
        regions += [region & (_filled(matte & region) if kind in _SOLID else matte)
                    for (_, kind, _), matte, region in zip(some, matte > _COVERED, blanked, strict=False)]
    return regions


def _filled(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool without holes."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
