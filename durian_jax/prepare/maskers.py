"""Sources of masks of hair, glasses, beard and hat: heuristics, a face-parsing network, or the user.

T frames, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from durian_jax.errors import InputError, cut, listed
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import face_frame
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.installation import install_command
from durian_jax.prepare.attributes import Evidence, attribute_masks
from durian_jax.prepare.segmentation_masker import SegmentationMasker
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, iterate_video, read_image
from durian_jax.video.decoders import native_messages


class Masker(Protocol):
    """A function that annotates one clip of one person; `attributes.attribute_masks` needs no extra files."""

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """Return the attribute masks and the evidence of a clip.

        Args:
            frames: (T, H, W, 3) uint8 RGB.
            keypoints: (T, K, 3) normalised.
            person: (T, H, W) uint8, confidence that a pixel shows a person (0..255).
            known: kinds that are certainly present; a hat that it does not list is certainly absent. None: judge
                all kinds from the pixels.

        Returns:
            masks (T, H, W) uint8 as in `Clip.masks`, and the evidence.
        """


def make_masker(name: str) -> Masker:
    """Return the masker of a name: "heuristic" or "segformer:FOLDER_OR_HUB_ID".

    Raises:
        InputError: the name is unknown, or `SegFormerMasker` raises it.
    """
    method, _, source = name.partition(":")
    if name == "heuristic":
        return attribute_masks
    if method == "segmentation" and source:
        return SegmentationMasker(source)
    if method == "segformer" and source:
        return SegFormerMasker(source)
    raise InputError(f"unknown masker {name!r}; expected heuristic, segformer:FOLDER (a face-parsing model in "
                     "transformers' format) or segformer:OWNER/NAME (a model on the Hugging Face hub)")


# --- a face-parsing network ---------------------------------------------------------------------------

# Class names of published face-parsing models, letters only.
_LABELS = {"hair": {"hair"},
           "glasses": {"eyeg", "eyeglass", "eyeglasses", "glass", "glasses", "sunglasses", "spectacles"},
           "beard": {"beard", "mustache", "moustache", "facialhair"},
           "hat": {"hat", "headwear", "headgear", "cap"}}

# A class counts as present if its pixels have this mean probability ...
_CONFIDENT = 0.6
# ... and this area in squared face heights: a crew cut, thin rims, a moustache, a headband.
_LEAST_AREA = {"hair": 0.06, "glasses": 0.03, "beard": 0.02, "hat": 0.1}


class SegFormerMasker:
    """Masks from a SegFormer (Xie et al. 2021) trained for face parsing, e.g. on CelebAMask-HQ.

    A kind without a class in the model (usually beard) keeps the mask and the evidence of
    `attributes.attribute_masks`. For the other kinds, the score of a frame is

        mean probability of the class in its pixels / 0.6 * min(1, its area / least area of the kind)

    The evidence is the median over time. It is at least 1 if most frames show a large enough area with enough
    confidence. The score of glasses is multiplied by 0.75 + 0.25 * min(b, 2), where b is
    `attributes.glasses_evidence`. A clear line across the nose bridge (b = 2) raises the score of uncertain pixels.
    No line (b = 0) lowers the score. The thresholds are set by hand.

    A known kind keeps all pixels of its class. If hats are ruled out, the next most likely class takes their pixels.
    The network runs on CUDA if torch finds it, else on the CPU.

    Args:
        folder: config.json, preprocessor_config.json and model.safetensors, as written by `save_pretrained`. If
            OWNER/NAME is not a folder, it is a hub id and is downloaded. Weights in other formats are refused,
            because loading a pickle can run code.
        batch: number of frames per forward pass.

    Raises:
        InputError: torch or transformers is missing, files are missing or damaged, the weights do not fill the
            model, or the model has no class for hair.
    """

    def __init__(self, folder: str | Path, batch: int = 8):
        if batch < 1:
            raise InputError(f"frames per batch: expected at least 1, got {batch}")
        try:
            import torch
            from transformers import AutoImageProcessor, SegformerConfig, SegformerForSemanticSegmentation
        except ImportError as error:
            raise InputError(f"the segformer masker needs torch and transformers ({error}); "
                             "run " + install_command("torch")) from error
        local = os.path.isdir(folder)
        if local:
            _check_model_folder(Path(folder))
        elif not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(folder)):
            raise InputError(f"{cut(str(folder))}: no such folder; expected one with a face-parsing model, or a hub id "
                             "OWNER/NAME such as jonathandinu/face-parsing")
        try:
            self.classes = _classes(SegformerConfig.from_pretrained(folder, local_files_only=local).id2label, folder)
            self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=local,
                                                                 trust_remote_code=False)
            model, loaded = SegformerForSemanticSegmentation.from_pretrained(
                folder, local_files_only=local, use_safetensors=True, output_loading_info=True)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (transformers and safetensors raise many kinds)
            raise InputError(f"{folder}: expected a face-parsing SegFormer in transformers' format, in a folder or "
                             f"on the hub; loading it failed: {error}; name another or copy it again") from error
        # transformers fills missing tensors with random numbers and only logs it. Only training needs step counters.
        missing = sorted(name for name in loaded["missing_keys"] if not name.endswith("num_batches_tracked"))
        if missing:
            raise InputError(f"{folder}: the weights lack {len(missing)} tensors, e.g. {missing[0]}; "
                             "expected a complete SegFormer for face parsing, not an encoder or another network")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._batch = model.float().eval().to(self._device), batch

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """See `Masker`."""
        heuristic, evidence = attribute_masks(frames, keypoints, person, known)
        found = {kind: (heuristic & attribute_bit(kind)) > 0 for kind in ATTRIBUTE_KINDS}
        found |= {kind: np.zeros(frames.shape[:3], bool) for kind in self.classes}
        sureness = {kind: np.zeros(len(frames)) for kind in self.classes}
        ruled_out = self.classes.get("hat", []) if known is not None and "hat" not in known else []
        for first in range(0, len(frames), self._batch):
            part = slice(first, first + self._batch)
            winner, probability = self._parse(frames[part], ruled_out)
            for kind, indices in self.classes.items():
                here = np.isin(winner, indices)
                found[kind][part] = here
                total = (probability[:, indices].sum(axis=1) * here).sum(axis=(1, 2))
                sureness[kind][part] = total / np.maximum(here.sum(axis=(1, 2)), 1)
        face_area = np.array([face_frame(points, *frames.shape[1:3]).unit for points in keypoints]) ** 2
        values = vars(evidence).copy()
        for kind in self.classes:
            area = found[kind].sum(axis=(1, 2)) / face_area
            scores = sureness[kind] / _CONFIDENT * np.minimum(area / _LEAST_AREA[kind], 1)
            # For glasses, `values` still holds the heuristic's evidence: the strength of the bridge.
            support = 0.75 + 0.25 * min(values["glasses"], 2) if kind == "glasses" else 1
            values[kind] = float(np.median(scores)) * support
        evidence = Evidence(**values)
        present = set(evidence.present())
        if known is not None:
            present = (present - {"hat"}) | set(known)
        for kind in present & {"glasses", "hat"}:  # both are in front of hair
            found["hair"] &= ~found[kind]
        masks = np.zeros(frames.shape[:3], np.uint8)
        for kind in present:
            masks[found[kind]] |= attribute_bit(kind)
        return masks, evidence

    def _parse(self, frames: np.ndarray, ruled_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, H, W) most likely classes and (N, C, H, W) probabilities of (N, H, W, 3) uint8 frames.

        The classes in `ruled_out` get probability 0.
        """
        import torch
        pixels = self._processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        with torch.inference_mode():
            logits = self._model(pixel_values=pixels.to(self._device)).logits
            logits = torch.nn.functional.interpolate(logits, size=frames.shape[1:3], mode="bilinear",
                                                     align_corners=False)
            logits[:, ruled_out] = -torch.inf
            return logits.argmax(dim=1).cpu().numpy(), logits.softmax(dim=1).cpu().numpy()


def _check_model_folder(folder: Path) -> None:
    """Refuse a folder with missing files: transformers replaces a missing config by a default model."""
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    missing += [] if any(folder.glob("*.safetensors")) else ["model.safetensors"]
    if missing:
        found = listed(sorted(path.name for path in folder.iterdir()), 8) or "nothing"
        raise InputError(f"{folder}: expected a face-parsing SegFormer, {' and '.join(missing)} is missing (found: "
                         f"{found}); save the model and the image processor there with save_pretrained, as safetensors")


def _classes(labels: dict[int, str], origin: str | Path) -> dict[str, list[int]]:
    """Map each attribute kind to the indices of its classes; omit kinds without classes."""
    plain = {index: re.sub("[^a-z]", "", label.lower().removesuffix(".png")) for index, label in labels.items()}
    classes = {kind: [index for index, label in plain.items() if label in names] for kind, names in _LABELS.items()}
    if not classes["hair"]:
        raise InputError(f"{origin}: expected a face-parsing model with a class for hair, found the classes "
                         f"{', '.join(labels.values())}; name another model")
    return {kind: indices for kind, indices in classes.items() if indices}


# --- user-made masks ----------------------------------------------------------------------------------

class UserMasks:
    """User-made masks of the videos; white (> 127) marks the attribute.

    The masks of each video and kind have one of two forms, both in the size of the source frames:

        FOLDER/<video name>/<kind>/<frame number>.png   counted from 0, with any number of leading zeros
        FOLDER/<video name>/<kind>.mp4                  as many frames as the source

    The video's name has no suffix. The file types are those of `video.read_image` and `video.iterate_video`.

    Raises:
        InputError: the folder does not exist, a kind is unknown or given twice, or a picture has no frame number.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not os.path.isdir(folder):
            raise InputError(f"{cut(str(folder))}: expected a folder of masks, FOLDER/<video name>/<kind>/<frame "
                             "number>.png or FOLDER/<video name>/<kind>.mp4; no such folder")
        # Video -> kind -> its mask video, or its pictures by frame number.
        self._given: dict[str, dict[str, Path | dict[int, Path]]] = {}
        self._reading, self._readers = "", {}
        for video in filter(Path.is_dir, _visible(self.folder)):
            kinds = self._given[video.name] = {}
            for path in _visible(video):
                kind = path.name if path.is_dir() else path.stem
                if kind not in ATTRIBUTE_KINDS or not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
                    raise InputError(f"{path}: expected a folder of pictures or a video ({', '.join(VIDEO_SUFFIXES)}) "
                                     f"named after one of the kinds {', '.join(ATTRIBUTE_KINDS)}; rename or remove it")
                if kind in kinds:
                    raise InputError(f"{path}: masks for {kind} are given twice in {video}; remove one of them")
                kinds[kind] = _numbered(path) if path.is_dir() else path

    def kinds(self, video_name: str) -> tuple[str, ...]:
        """Return the kinds with masks for a video; empty for a video without a folder."""
        return tuple(kind for kind in ATTRIBUTE_KINDS if kind in self._given.get(video_name, {}))

    def problems(self, video_names: Iterable[str]) -> list[str]:
        """Return a line per folder, picture or video in FOLDER that matches no input and is probably misspelt."""
        names, lines = set(video_names), []
        for path in _visible(self.folder):
            media = path.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES
            if (path.is_dir() and path.name not in names) or (path.is_file() and media):
                close = get_close_matches(path.name, sorted(names), 1)
                lines.append(f"{path}: expected a folder named after an input video, without its suffix"
                             + (f"; did you mean {close[0]}?" if close else ""))
        return lines

    def read(self, video_name: str, kind: str, frame: int, height: int, width: int) -> np.ndarray:
        """Return one (H, W) bool mask. Any order works; it is fast to read one video after another, frame by frame.

        Args:
            video_name: the video's folder in FOLDER.
            kind: attribute kind.
            frame: number of the frame in the source video, from 0.
            height, width: size of the source frames in pixels.

        Raises:
            InputError: the kind has no masks, the frame is missing, or the file is unreadable. Also, the size is
                wrong, or the picture is partly transparent, coloured or contains only 0 and 1.
        """
        attribute_bit(kind)
        if kind not in self.kinds(video_name):
            raise InputError(f"{self.folder / video_name}: no masks for {kind}; add a folder {kind} or a video "
                             f"{kind}.mp4")
        source = self._given[video_name][kind]
        if isinstance(source, Path):
            if self._reading != video_name:  # only the current video's files stay open
                self._reading, self._readers = video_name, {}
            where = f"{source}, frame {frame}"
            image = self._readers.setdefault(kind, _MaskVideo(source)).read(frame)
        elif frame in source:
            where, image = source[frame], _read_mask(source[frame])
        else:
            raise InputError(f"{self.folder / video_name / kind}: no mask for frame {frame}; found {len(source)} masks "
                             f"from {min(source)} to {max(source)}; add {frame}.png (black if {kind} is not visible)")
        if image.shape[:2] != (height, width):
            raise InputError(f"{where}: expected the size of the source video, {width} x {height}, found "
                             f"{image.shape[1]} x {image.shape[0]} (width x height); create the masks in this size")
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) > 127


class _MaskVideo:
    """A video that is read forwards, one frame at a time; a request for an earlier frame starts again."""

    def __init__(self, path: Path):
        self._path, self._frames, self._last, self._image = path, None, -1, None

    def read(self, frame: int) -> np.ndarray:
        """Return the frame of this number, (H, W, 3) uint8 RGB."""
        if self._frames is None or frame < self._last:
            self._frames, self._last, self._image = iterate_video(self._path), -1, None
        while self._last < frame:
            self._image = next(self._frames, None)
            if self._image is None:
                break
            self._last += 1
        if self._image is None:
            self._frames = None
            raise InputError(f"{self._path}: no mask for frame {frame}; found {self._last + 1} frames; expected as "
                             "many as the source video has")
        return self._image


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _numbered(folder: Path) -> dict[int, Path]:
    """Map each frame number to its picture."""
    found = {}
    for path in _visible(folder):
        if not re.fullmatch("[0-9]+", path.stem) or path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{path}: expected pictures named by frame number, such as 0.png or 00012.png; "
                             "rename or remove it")
        if int(path.stem) in found:
            raise InputError(f"{path}: frame {int(path.stem)} is also in {found[int(path.stem)].name}; remove one file")
        found[int(path.stem)] = path
    if not found:
        raise InputError(f"{folder}: expected pictures such as 0.png, found none; add them or remove the folder")
    return found


def _read_mask(path: Path) -> np.ndarray:
    """Read a mask, (H, W, 3) uint8 RGB; refuse pictures that would silently mark all pixels or none."""
    image = read_image(path)
    with native_messages():
        raw = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    transparent = raw.ndim == 3 and raw.shape[2] == 4 and raw[..., 3].min() < np.iinfo(raw.dtype).max
    if transparent or np.ptp(image, axis=2).max() > 64:
        raise InputError(f"{path}: expected white on black, found {'transparent parts' if transparent else 'colours'}; "
                         "save the mask as a grey picture, white where the attribute is")
    if image.max() == 1:
        raise InputError(f"{path}: expected white (255) for the attribute, found the values 0 and 1; "
                         "multiply the mask by 255")
    return image
