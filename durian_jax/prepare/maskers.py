"""Who says which pixels are hair, glasses, beard and hat: heuristics, a face-parsing network, or the user.

T frames, H x W pixels; masks are bit fields as in `faces.clip.Clip.masks`.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import face_frame
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.prepare.attributes import Evidence, attribute_masks
from durian_jax.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, iterate_video, read_image


class Masker(Protocol):
    """Annotates one clip of one person; `attributes.attribute_masks` is the one that needs nothing else."""

    def __call__(self, frames: np.ndarray, keypoints: np.ndarray, person: np.ndarray,
                 known: tuple[str, ...] | None = None) -> tuple[np.ndarray, Evidence]:
        """What each pixel shows.

        Args:
            frames: (T, H, W, 3) uint8 RGB.
            keypoints: (T, K, 3) normalised.
            person: (T, H, W) uint8, how surely a pixel shows a person (0..255).
            known: kinds that are certainly there; a hat not among them is certainly absent. None judges
                all from the pixels.

        Returns:
            masks (T, H, W) uint8 as in `Clip.masks`, and the evidence.
        """


def make_masker(name: str) -> Masker:
    """The masker of a name: "heuristic" or "segformer:FOLDER_OR_HUB_ID".

    Raises:
        InputError: any other name, or see `SegFormerMasker`.
    """
    method, _, source = name.partition(":")
    if name == "heuristic":
        return attribute_masks
    if method == "segformer" and source:
        return SegFormerMasker(source)
    raise InputError(f"unknown masker {name!r}; expected heuristic, segformer:FOLDER (a face-parsing model in "
                     "transformers' format) or segformer:OWNER/NAME (one on the Hugging Face hub)")


# --- a face-parsing network ---------------------------------------------------------------------------

# What the classes of published face-parsing models are called, letters only.
_LABELS = {"hair": {"hair"},
           "glasses": {"eyeg", "eyeglass", "eyeglasses", "glass", "glasses", "sunglasses", "spectacles"},
           "beard": {"beard", "mustache", "moustache", "facialhair"},
           "hat": {"hat", "headwear", "headgear", "cap"}}

# A class counts as present where the network gives its pixels this probability ...
_CONFIDENT = 0.6
# ... and it covers so many squares of the face's height: a crew cut, thin rims, a moustache, a headband.
_LEAST_AREA = {"hair": 0.06, "glasses": 0.03, "beard": 0.02, "hat": 0.1}


class SegFormerMasker:
    """Masks from a SegFormer (Xie et al. 2021) trained for face parsing, e.g. on CelebAMask-HQ.

    A kind without a class in the model (beard, mostly) keeps the mask and the evidence of
    `attributes.attribute_masks`. For the others a frame's score is

        mean probability of the class in its pixels / 0.6 * min(1, its area / least area of the kind)

    and the evidence is the median over time: at least 1 where most frames show enough of it surely. The
    score of glasses is multiplied by 0.75 + 0.25 * min(b, 2), where b is `attributes.glasses_evidence`: a
    line across the nose bridge that is clear (b = 2) helps unsure pixels, none at all (b = 0) asks for
    surer ones. The thresholds are set by hand.

    A known kind keeps whatever pixels its class has; where hats are ruled out, the next likely class takes
    their pixels. CUDA serves where torch finds it, else the CPU.

    Args:
        folder: config.json, preprocessor_config.json and model.safetensors as `save_pretrained` writes
            them. OWNER/NAME that is no folder is taken for a hub id and fetched from there. Weights in other
            formats are refused: loading a pickle can run code.
        batch: frames at once.

    Raises:
        InputError: torch or transformers missing, files missing or damaged, weights that do not fill the
            model, or no class for hair.
    """

    def __init__(self, folder: str | Path, batch: int = 8):
        if batch < 1:
            raise InputError(f"frames at once: expected at least 1, got {batch}")
        try:
            import torch
            from transformers import AutoImageProcessor, SegformerConfig, SegformerForSemanticSegmentation
        except ImportError as error:
            raise InputError(f"the segformer masker needs torch and transformers ({error}); "
                             "run pip install 'durian-jax[torch]'") from error
        local = Path(folder).is_dir()
        if local:
            _check_model_folder(Path(folder))
        elif not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(folder)):
            raise InputError(f"{folder}: no such folder; expected one with a face-parsing model, or a hub id "
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
        # transformers fills gaps with random numbers and only logs it; a step counter matters to training alone.
        missing = sorted(name for name in loaded["missing_keys"] if not name.endswith("num_batches_tracked"))
        if missing:
            raise InputError(f"{folder}: the weights lack {len(missing)} tensors, e.g. {missing[0]}; "
                             "expected a whole SegFormer for face parsing, not an encoder or another network")
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
            # The heuristic's value for glasses is still the strength of the bridge.
            support = 0.75 + 0.25 * min(values["glasses"], 2) if kind == "glasses" else 1
            values[kind] = float(np.median(scores)) * support
        evidence = Evidence(**values)
        present = set(evidence.present())
        if known is not None:
            present = (present - {"hat"}) | set(known)
        for kind in present & {"glasses", "hat"}:  # worn in front of hair
            found["hair"] &= ~found[kind]
        masks = np.zeros(frames.shape[:3], np.uint8)
        for kind in present:
            masks[found[kind]] |= attribute_bit(kind)
        return masks, evidence

    def _parse(self, frames: np.ndarray, ruled_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(N, H, W, 3) uint8 -> (N, H, W) winning class and (N, C, H, W) probabilities, some classes ruled out."""
        import torch
        pixels = self._processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        with torch.inference_mode():
            logits = self._model(pixel_values=pixels.to(self._device)).logits
            logits = torch.nn.functional.interpolate(logits, size=frames.shape[1:3], mode="bilinear",
                                                     align_corners=False)
            logits[:, ruled_out] = -torch.inf
            return logits.argmax(dim=1).cpu().numpy(), logits.softmax(dim=1).cpu().numpy()


def _check_model_folder(folder: Path) -> None:
    """Names what is missing: transformers itself takes a folder without config for a model of defaults."""
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    missing += [] if any(folder.glob("*.safetensors")) else ["model.safetensors"]
    if missing:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise InputError(f"{folder}: expected a face-parsing SegFormer, {' and '.join(missing)} is missing (found: "
                         f"{found}); save model and image processor there with save_pretrained, as safetensors")


def _classes(labels: dict[int, str], origin: str | Path) -> dict[str, list[int]]:
    """Attribute kind -> indices of the classes that show it, for the kinds that have any."""
    plain = {index: re.sub("[^a-z]", "", label.lower().removesuffix(".png")) for index, label in labels.items()}
    classes = {kind: [index for index, label in plain.items() if label in names] for kind, names in _LABELS.items()}
    if not classes["hair"]:
        raise InputError(f"{origin}: expected a face-parsing model with a class for hair, found the classes "
                         f"{', '.join(labels.values())}; name another model")
    return {kind: indices for kind, indices in classes.items() if indices}


# --- masks made by the user ---------------------------------------------------------------------------

class UserMasks:
    """Masks that come with the videos; white (> 127) is attribute.

    For each video and kind one of the two, of the size of the source frames:

        FOLDER/<video name>/<kind>/<frame number>.png   counted from 0, zeros in front as you like
        FOLDER/<video name>/<kind>.mp4                  as many frames as the source

    The video's name has no ending; the file types are those of `video.read_image` and `video.iterate_video`.

    Raises:
        InputError: no such folder, an unknown kind, a kind given twice, or a picture without a frame number.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: expected a folder of masks, FOLDER/<video name>/<kind>/<frame number>.png "
                             "or FOLDER/<video name>/<kind>.mp4; no such folder")
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
        """The kinds that are supplied for a video; none for a video without a folder."""
        return tuple(kind for kind in ATTRIBUTE_KINDS if kind in self._given.get(video_name, {}))

    def problems(self, video_names: Iterable[str]) -> list[str]:
        """A line for each folder, picture or video in FOLDER that is no input's folder: misspelt, most likely."""
        names, lines = set(video_names), []
        for path in _visible(self.folder):
            media = path.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES
            if (path.is_dir() and path.name not in names) or (path.is_file() and media):
                close = get_close_matches(path.name, sorted(names), 1)
                lines.append(f"{path}: expected a folder named after an input video, without its ending"
                             + (f"; did you mean {close[0]}?" if close else ""))
        return lines

    def read(self, video_name: str, kind: str, frame: int, height: int, width: int) -> np.ndarray:
        """(H, W) bool: one mask. Any order works; rising frame numbers of one video after the other are fast.

        Args:
            frame: number of the frame in the source video, from 0.
            height, width: of the source frames in pixels.

        Raises:
            InputError: a kind not supplied, a missing frame, an unreadable file, a wrong size, a picture
                that is partly transparent, coloured or holds 0 and 1 only.
        """
        attribute_bit(kind)
        if kind not in self.kinds(video_name):
            raise InputError(f"{self.folder / video_name}: no masks for {kind}; add a folder {kind} or a video "
                             f"{kind}.mp4")
        source = self._given[video_name][kind]
        if isinstance(source, Path):
            if self._reading != video_name:  # a file stays open only while its video is worked on
                self._reading, self._readers = video_name, {}
            where = f"{source}, frame {frame}"
            image = self._readers.setdefault(kind, _MaskVideo(source)).read(frame)
        elif frame in source:
            where, image = source[frame], _read_mask(source[frame])
        else:
            raise InputError(f"{self.folder / video_name / kind}: no mask for frame {frame}; found {len(source)} "
                             f"from {min(source)} to {max(source)}; add {frame}.png (black if {kind} is not visible)")
        if image.shape[:2] != (height, width):
            raise InputError(f"{where}: expected the size of the source video, {width} x {height}, found "
                             f"{image.shape[1]} x {image.shape[0]} (width x height); make the masks at full size")
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) > 127


class _MaskVideo:
    """A video read forwards, one frame at a time; it begins again where an earlier frame is asked for."""

    def __init__(self, path: Path):
        self._path, self._frames, self._last, self._image = path, None, -1, None

    def read(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, the frame of this number."""
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
    """Frame number -> picture."""
    found = {}
    for path in _visible(folder):
        if not re.fullmatch("[0-9]+", path.stem) or path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{path}: expected pictures named by frame number, such as 0.png or 00012.png; "
                             "rename or remove it")
        if int(path.stem) in found:
            raise InputError(f"{path}: frame {int(path.stem)} is also {found[int(path.stem)].name}; remove one of them")
        found[int(path.stem)] = path
    if not found:
        raise InputError(f"{folder}: expected pictures such as 0.png, found none; add them or remove the folder")
    return found


def _read_mask(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB; refuses what would silently count as attribute everywhere or nowhere."""
    image = read_image(path)
    raw = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    transparent = raw.ndim == 3 and raw.shape[2] == 4 and raw[..., 3].min() < np.iinfo(raw.dtype).max
    if transparent or np.ptp(image, axis=2).max() > 64:
        raise InputError(f"{path}: expected white on black, found {'transparent parts' if transparent else 'colours'}; "
                         "save the mask as a grey picture, white where the attribute is")
    if image.max() == 1:
        raise InputError(f"{path}: expected white (255) for the attribute, found the values 0 and 1; "
                         "multiply the mask by 255")
    return image
