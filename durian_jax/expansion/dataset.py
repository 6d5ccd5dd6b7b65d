"""`durian expand`: generated regions for mask expansion, added to a dataset once, before training.

Mask expansion (arXiv 2509.04434) trains with M_port = M_attr UNION M_gen: M_gen is the attribute's mask in a picture
that was generated at the same keypoints. Here M_gen comes from a checkpoint of this project, which puts another
person's attribute on the face (`transfer`), or, as in the paper, from a text-to-image model with a ControlNet
(`diffusers`).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from durian_jax.checkpoints.weights import load_checkpoint, read_description
from durian_jax.data.clip_record import DecodeError, rewrite_record
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.errors import InputError
from durian_jax.expansion.request import Generator, Wanted
from durian_jax.expansion.shards import clip_rng, progress_of, work_through
from durian_jax.expansion.transfer import TransferGenerator
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.pose import spread_poses
from durian_jax.faces.topology import ATTRIBUTE_KINDS, SHOWN_AREA
from durian_jax.files import check_folder
from durian_jax.inference.family import check_transfers


def expand(dataset: str | os.PathLike, generator: str | Generator = "own", *, checkpoint: str | Path = "tiny",
           controlnet: str | None = None, masker: str = "default", frames: int = 2,
           kinds: Iterable[str] = ATTRIBUTE_KINDS, seed: int = 0, steps: int | None = None, batch: int = 8,
           overwrite: bool = False) -> dict:
    """Add generated regions to the clips of a dataset, at a few frames per clip, for the kinds that the clip shows.

    Works shard by shard: repeat a killed call to continue after its last finished shard. Clips that have regions keep
    them. A region depends on the dataset, the settings and the clip's name; the batch size changes it by rounding only.

    Args:
        dataset: folder of records; only shards that get regions are written again.
        generator: "own", "diffusers:FOLDER_OR_HUB_ID" or a `Generator`.
        checkpoint: for "own": name of a shipped checkpoint, or a folder.
        controlnet: for "diffusers:...": a folder or a hub id.
        masker: for "diffusers:...", see `prepare.maskers.make_masker`.
        frames: largest number of frames per clip; spread over its head poses.
        kinds: to generate.
        seed: of every choice and of the noise.
        steps: of the sampler; None: the generator's default.
        batch: number of pictures generated at once.
        overwrite: replace existing regions, of all kinds.

    Returns:
        The entry `expanded` of dataset.json: the settings, finished `shards`, number of `clips` with regions, number of
        `regions` of each kind, and numbers of skipped clips: `bare` (they show none of the kinds), `without_region`
        (no donor, or the attribute did not appear) and `damaged`.

    Raises:
        InputError: no dataset, wrong numbers, an unknown generator, a model that cannot be loaded, or a dataset
            that was expanded with other settings.
    """
    kinds = [kind for kind in dict.fromkeys(kinds) if attribute_bit(kind)]
    if not kinds or min(frames, batch, 1 if steps is None else steps) < 1 or not 0 <= seed < 2**32:
        raise InputError("expand: expected some kind, frames, steps and batch of at least 1 and a seed below 2^32; "
                         f"found kinds {kinds}, frames {frames}, steps {steps}, batch {batch}, seed {seed}")
    clips = RecordedClips(dataset)
    check_folder(clips.directory)
    settings = {"generator": generator if isinstance(generator, str) else type(generator).__name__,
                "checkpoint": str(checkpoint), "controlnet": controlnet, "masker": masker, "frames": frames,
                "kinds": kinds, "seed": seed, "steps": steps}
    progress = progress_of(clips, "expanded", settings, {
        "clips": 0, "regions": dict.fromkeys(ATTRIBUTE_KINDS, 0),
        "left_out": dict.fromkeys(("bare", "without_region", "damaged"), 0)}, overwrite)
    if progress["shards"] == len(clips.shards()):
        return progress
    make: Generator = generator if not isinstance(generator, str) else _make_generator(
        generator, clips, checkpoint, controlnet, masker, seed, steps, batch)

    def work(rows: range, bar: tqdm) -> tuple[dict[int, bytes], Counter]:
        fields, counts = _expand_shard(clips, rows, make, progress, batch, bar)
        return {row: rewrite_record(clips.open(row), generated=found) for row, found in fields.items()}, counts
    return work_through(clips, "expanded", progress, work, "expanding")


def _expand_shard(clips: RecordedClips, rows: range, generator: Generator, settings: dict, batch: int, bar: tqdm
                  ) -> tuple[dict[int, dict[int, np.ndarray]], Counter]:
    """New bit fields of a shard's clips, row -> frame -> (H, W) uint8, and the counts of clips and regions."""
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
                    if (outline.areas[:, ATTRIBUTE_KINDS.index(kind)] >= SHOWN_AREA).any()]
            try:
                clip = clips.open(row)
                if clip.generated_frames and not settings["overwrite"]:
                    count(clip.generated())
                    continue
                if clip.generated_frames:
                    stale.add(row)
                first = int(clip_rng(settings["seed"], outline.name).integers(len(outline)))
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
                    rng = clip_rng(settings["seed"], outline.name, str(frame), kind)
                    yield row, frame, Wanted(photos[place:place + 1], kind, rng)

    queue = wanted()
    while some := list(islice(queue, batch)):
        regions = generator([each for *_, each in some])
        for (row, frame, each), region in zip(some, regions, strict=True):
            if region is not None and region.mean() >= SHOWN_AREA:
                field = fields[row].setdefault(frame, np.zeros((height, width), np.uint8))
                field[stored_region(region, height, width, margin)] |= attribute_bit(each.kind)
    counts["without_region"] = sum(not found for found in fields.values())
    for found in filter(None, fields.values()):
        count(found)
    # Old regions are removed, even if no new ones were found.
    fields = {row: fields.get(row, {}) for row in rows if fields.get(row) or row in stale}
    return fields, counts


def stored_region(region: np.ndarray, height: int, width: int, margin: int) -> np.ndarray:
    """Extend an (h, w) bool region of the view to (height, width) bool of the stored picture with its margin.

    A region that touches the view's edge continues in the margin, as M_port does in training.
    """
    inner = (width - 2 * margin, height - 2 * margin)
    if region.shape[::-1] != inner:
        shrinks = region.shape[1] > inner[0]
        region = cv2.resize(region.astype(np.float32), inner,
                            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR) > 0.5
    return np.pad(region, margin, mode="edge")


def _make_generator(name: str, clips: RecordedClips, checkpoint: str | Path, controlnet: str | None, masker: str,
                    seed: int, steps: int | None, batch: int) -> Generator:
    method, _, model = name.partition(":")
    if name == "own":
        if controlnet is not None:
            raise InputError(f"controlnet {controlnet}: expected a generator diffusers:FOLDER beside it, found own")
        check_transfers(read_description(checkpoint).config, "generator own")
        model = load_checkpoint(checkpoint)
        sampling = replace(model.sampling, seed=seed, **({} if steps is None else {"steps": steps}))
        return TransferGenerator(clips, model, sampling, batch)
    if method != "diffusers" or not model:
        raise InputError(f"unknown generator {name!r}; expected own, diffusers:FOLDER or diffusers:OWNER/NAME (a "
                         "Stable Diffusion XL in diffusers' format, there or on the Hugging Face hub)")
    if controlnet is None:
        raise InputError(f"generator {name}: expected a ControlNet that follows drawn keypoints, found none; name its "
                         "folder or hub id with --controlnet")
    from durian_jax.annotator import Annotator
    from durian_jax.expansion.diffusers import DiffusersGenerator
    from durian_jax.prepare.maskers import make_masker

    return DiffusersGenerator(model, controlnet, make_masker(masker), Annotator().person, steps or 30)
