"""Every kind of file that the program reads: how the tests make one, change it, and read it again."""

import json
import math
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from durian_jax.checkpoints.weights import Checkpoint, load_checkpoint, read_description, save_checkpoint
from durian_jax.convert import sizes
from durian_jax.convert.bundle import read_bundle
from durian_jax.convert.exporter import export_checkpoint
from durian_jax.convert.files import read_json
from durian_jax.data.clip_record import DecodeError, Provenance
from durian_jax.data.corrections import Corrections, correction_file, keep_correction
from durian_jax.data.dataset_sheet import dataset_sheet
from durian_jax.data.dataset_writer import write_clips
from durian_jax.data.encoded_samples import FORMAT, EncodedSamples, shard_name, write_samples
from durian_jax.data.mask_files import export_masks, replace_masks
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.diffusion import Objective
from durian_jax.errors import InputError
from durian_jax.evaluation.comparison import compare_evaluations
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.inference.references import make_references
from durian_jax.models.codecs.config import AutoencoderKLConfig, AutoencoderTinyConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.unet.config import UNetConfig
from durian_jax.prepare.annotate import annotate_image
from durian_jax.prepare.attribute_file import read_attribute, write_attribute
from durian_jax.prepare.attribute_shelf import describe_attribute
from durian_jax.prepare.clips import Settings
from durian_jax.prepare.inputs import find_inputs
from durian_jax.prepare.segmentation_masker import SegmentationMasker
from durian_jax.prepare.tflite import TfliteMasker
from durian_jax.prepare.user_masks import UserMasks
from durian_jax.prepare.work import Work
from durian_jax.tensor_files import TensorFiles, write_tensors
from durian_jax.training.config import RunConfig
from durian_jax.training.loop import check_same_run
from durian_jax.training.metrics import MetricsWriter
from durian_jax.video import iterate_video, probe_video, read_image, write_image, write_video
from tests.helpers import mutations as change
from tests.helpers.attributes import attribute
from tests.helpers.data import write_dataset
from tests.helpers.evaluation import write_evaluation
from tests.helpers.exports import random_checkpoint
from tests.helpers.faces import clip as noise_clip
from tests.helpers.faces import face
from tests.helpers.models import TINY
from tests.helpers.prepare import draw
from tests.helpers.runs import small_config
from tests.helpers.segmentation import write_random_network
from tests.helpers.svdp import tiny as svdp_tiny
from tests.helpers.tflite import pixel_classifier

SECONDS, MEMORY = 10, 1 << 30

# A U-Net, an autoencoder, an image encoder and a transformer of Stable Diffusion's layouts.
_UNET = UNetConfig(channels=(16, 32), attention=(True, False), heads=(2, 2), context_dim=24, positions=False,
                   feedforward_multiplier=4)
_KL, _SMALL = AutoencoderKLConfig(channels=(8, 16), layers=1, norm_groups=4), AutoencoderTinyConfig(
    channels=8, encoder_blocks=(1, 2), decoder_blocks=(2, 1))
_CLIP = ImageEncoderConfig(channels=16, layers=2, heads=2, mlp_channels=32, image_size=28, projection=24)
_MMDIT = MMDiTConfig(width=32, layers=3, heads=2, dual_layers=2, positions="canvas", canvas_size=24, text_dim=16,
                     text_tokens=4, pooled_dim=8, time_rotation=4, canvas_step=1 / 6)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes good files into an empty folder.
        file: name of the file to change.
        changed: content of the good file -> strategy of changed contents.
        read: reads the folder as the program does, and checks that what it returns can be used.
        slow: whether reading takes about a second.
    """

    make: Callable[[Path], Any]
    file: str
    changed: Callable[[bytes], st.SearchStrategy[bytes]]
    read: Callable[[Path], Any]
    slow: bool = False


@contextmanager
def bounded(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Fail if the block takes more time of the processor or more memory, and never let it take all memory."""
    def late(*_):
        raise AssertionError(f"still at work after {seconds} s")

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * memory, limits[1]))
    handler = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    assert grown < memory, f"{grown >> 20} MB"


def refused_or_read(kind: Kind, folder: Path) -> bool:
    """Read changed files; return whether they are refused.

    Raises:
        AssertionError: they are refused with more than one short line, or the result cannot be used.
    """
    try:
        with bounded():
            kind.read(folder)
    except (InputError, DecodeError) as error:
        message = str(error)
        assert 0 < len(message) < 1500 and "\n" not in message.strip(), message[:3000]
        assert message.isprintable(), ascii(message)
        return True
    return False


# --- checkpoints and exports -------------------------------------------------------------------------------

def _make_checkpoint(config, folder: Path) -> None:
    save_checkpoint(folder, random_checkpoint(config, Objective()), "float32")


def _make_shards(folder: Path) -> None:
    _make_checkpoint(TINY, folder)
    tensors = {name: x for name, x in TensorFiles(folder).items()}
    write_tensors(folder, tensors.items(), shard_bytes=100_000)


def _read_description(folder: Path) -> None:
    found = read_description(folder)
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict()))) == found
    found.sampling_for({"steps": 3})


def _read_weights(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    assert isinstance(loaded, Checkpoint)
    for name, x in loaded.params.items():
        assert str(x.dtype) == loaded.config.dtype and np.isfinite(np.asarray(x, np.float32)).all(), name


def _make_export(folder: Path) -> None:
    _make_checkpoint(TINY, folder / "checkpoint")
    export_checkpoint(folder / "checkpoint", folder / "export", "fp32")
    shutil.rmtree(folder / "checkpoint")


def _read_bundle(folder: Path) -> None:
    description, dtype = read_bundle(folder / "export")
    assert dtype in ("fp32", "fp16", "bf16") and description.config.image_size > 0


def _diffusers(name: str, values: dict, read: Callable[[dict], Any]) -> Kind:
    def make(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(values))

    return Kind(make, "config.json", _text, lambda folder: hash(read(read_json(folder))))


# --- evaluations -----------------------------------------------------------------------------------------

def _make_evaluation(folder: Path) -> None:
    write_evaluation(folder / "a.json", suites=("masks",), cases=2)


def _compare_evaluations(folder: Path) -> None:
    text = compare_evaluations([folder / "a.json", folder / "a.json"], folder / "page.html")
    assert "B - A" in text and "</html>" in (folder / "page.html").read_text("utf-8")


# --- runs ----------------------------------------------------------------------------------------------

_RUN = RunConfig.read(small_config("clips"))


def _make_run(folder: Path) -> None:
    (folder / "config.json").write_text(small_config("clips").to_json())


def _read_run(folder: Path) -> None:
    check_same_run(folder, _RUN)
    assert RunConfig.read(json.loads((folder / "config.json").read_bytes())).batch_shapes()


def _make_metrics(folder: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _read_metrics(folder: Path) -> None:
    writer = MetricsWriter(folder, 4)
    writer.scalars(5, {"loss": 0.5})
    writer.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps[-1] == 5 and all(step <= 4 for step in steps[:-1])


# --- datasets --------------------------------------------------------------------------------------------

def _make_dataset(folder: Path) -> None:
    write_clips(folder, [draw(person, 48, 3) for person in (3, 4, 5)], shard_size=2)
    report = {"warnings": ["one"], "files": [{"file": "a", "warnings": ["two"]}]}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "rejected.jsonl").write_text('{"file": "a.mp4", "name": "a", "reason": "no face"}\n' * 3)


def _read_dataset(folder: Path) -> None:
    clips = RecordedClips(folder)
    assert len(clips) == clips.about["clips"] and clips.about["height"] > 0
    for index in range(len(clips)):
        outline = clips.outline(index)
        assert outline.areas.shape == (len(outline), len(ATTRIBUTE_KINDS)) and len(outline) > 0
        mask, keypoints = clips.donor(index, 0)
        assert mask.shape == (64, 64) and keypoints.shape[1] == 3
        clip = clips.read(index)
        assert clip.frames.shape[1:3] == clip.masks.shape[1:3] and len(clip.keypoints) == len(clip.frames)
        assert np.isfinite(clip.keypoints).all() and math.isfinite(clip.fps)


def _read_sheet(folder: Path) -> None:
    page = dataset_sheet(folder, folder / "page" / "sheet.html", limit=1)
    assert "</html>" in page.read_text("utf-8")


def _make_samples(folder: Path) -> None:
    from safetensors.numpy import save_file

    plan = {"format": FORMAT, "samples": 3, "samples_per_shard": 2, "seed": 0, "source": {}, "data": {}, "model": {}}
    for number in range(2):
        write_samples(folder / shard_name(number, 2), [{"x": np.ones(3, np.float32)}] * (2 - number))
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "dataset.json").write_text(json.dumps(plan))
    save_file({"latents": np.ones((1, 4), np.float32)}, folder / "probe.safetensors")


def _read_samples(folder: Path) -> None:
    samples = EncodedSamples(folder)
    for index in (0, len(samples) - 1):
        assert isinstance(samples[index], dict)


# --- inputs of people ------------------------------------------------------------------------------------

_ROWS = 'path,start,end,identity,labels\na.mp4,0,1.5,anna,hair;glasses\nb.mp4,,,"bob, jr",none\nc.mp4,2,,,\n'
_LINES = '{"path": "a.mp4", "start": 1, "identity": "anna", "labels": ["hair"]}\n{"path": "b.mp4"}\n'


def _make_manifest(name: str, text: str, folder: Path) -> None:
    (folder / name).write_text(text)
    for video in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / video).touch()


def _read_manifest(name: str, folder: Path) -> None:
    for video in find_inputs([folder / name]):
        assert "/" not in video.name and not video.name.startswith(".") and len(video.name.encode()) < 255
        assert video.identity.encode() and len(video.identity) <= 255 and video.path.is_absolute()
        Work(folder / "out", Settings()).key(video)


def _picture(depth: int = 8, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    layers = [x * 4, y * 5, x + y, 255 - x][:channels]
    return np.stack(layers, -1).astype(np.uint8) if depth == 8 else (np.stack(layers, -1) * 257).astype(np.uint16)


def _make_picture(name: str, picture: np.ndarray, folder: Path) -> None:
    (folder / name).write_bytes(cv2.imencode(Path(name).suffix, picture)[1].tobytes())


def _read_picture(name: str, folder: Path) -> None:
    image = read_image(folder / name)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


def _make_video(name: str, folder: Path) -> None:
    import av

    frames = draw(20, 64, 12, yaw=np.linspace(-10, 10, 12)).frames
    if name.endswith(".mp4"):
        return write_video(folder / name, frames, 12)
    codec, kind = ("gif", "rgb8") if name.endswith(".gif") else ("libvpx-vp9", "yuv420p")
    with av.open(str(folder / name), "w") as output:
        stream = output.add_stream(codec, rate=12)
        stream.width = stream.height = 64
        stream.pix_fmt = kind
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=kind)))
        output.mux(stream.encode())
    return None


def _read_video(name: str, folder: Path) -> None:
    info = probe_video(folder / name)
    assert info.fps > 0
    shape = None
    for number, frame in enumerate(iterate_video(folder / name)):
        shape = shape or frame.shape
        assert frame.dtype == np.uint8 and frame.shape == shape
        if number > 2000:
            break


def _make_masks(folder: Path) -> None:
    for frame in range(3):
        write_image(folder / "talk" / "hair" / f"{frame}.png", np.full((48, 64), 255 * (frame % 2), np.uint8))


def _read_masks(folder: Path) -> None:
    masks = UserMasks(folder)
    found = [masks.read("talk", "hair", frame, 48, 64) for frame in range(3)]
    assert all(mask.shape == (48, 64) and mask.dtype == bool for mask in found)


def _make_edited_masks(folder: Path) -> None:
    write_clips(folder / "data", [draw(3, 48, 2)])
    export_masks(folder / "data", RecordedClips(folder / "data").outline(0).name, folder / "masks")


def _replace_masks(folder: Path) -> None:
    clips = RecordedClips(folder / "data")
    about = replace_masks(folder / "data", clips.outline(0).name, folder / "masks")
    assert about["replaced"] and RecordedClips(folder / "data").read(0).masks.shape == (2, 48, 48)


def _make_state(folder: Path) -> None:
    (folder / ".durian-work").mkdir()
    (folder / ".durian-work" / "aa.json").write_text(json.dumps({"file": "a", "name": "a", "clips": [{"frames": 3}]}))
    (folder / ".durian-work" / "bb.rejected").write_text(json.dumps({"reason": "no face"}))


def _make_corrections(folder: Path) -> None:
    origin = Provenance("talk#0", "talk.mp4", 0, 1, {})
    clip = RecordedClips(write_dataset(folder / "set", [noise_clip(0)], [origin])).open(0)
    keep_correction(folder, clip, np.zeros((len(clip), clip.height, clip.width), np.uint8), ["hair", "hat"])
    correction_file(folder, clip).rename(folder / "corrections" / f"{'0' * 20}.safetensors")


def _read_corrections(folder: Path) -> None:
    keypoints, masks = noise_clip(0).keypoints, np.zeros((6, 64, 64), np.uint8)
    Corrections([folder]).apply("talk#0", range(6), keypoints, masks)


def _make_attribute(folder: Path) -> None:
    write_attribute(folder / "curls.attr", attribute("hair"))


def _read_attribute(folder: Path) -> None:
    donor, portrait = annotate_image(folder / "curls.attr", 64, known=("hair",)), noise_clip(1, 1)
    describe_attribute("curls.attr", read_attribute(folder / "curls.attr")).encode()
    for align in (False, True):
        references = make_references(portrait, [("hair", donor)], align_attributes=align)
        assert all(np.isfinite(value).all() for value in references.values())


def _make_network(folder: Path) -> None:
    write_random_network(folder)


def _read_network(folder: Path) -> None:
    frames, keypoints, person = _small_head()
    with np.errstate(all="ignore"):
        _, evidence = SegmentationMasker(folder)(frames, keypoints, person)
    assert np.isfinite(list(vars(evidence).values())).all()


def _make_tflite(folder: Path) -> None:
    weights = np.eye(6, 3)[[3, 0, 1, 2, 4, 5]]
    names = ("wall", "hair", "skin", "face", "cloth", "other")
    (folder / "model.tflite").write_bytes(pixel_classifier(weights, np.zeros(6), 16, ((0.0,), (255.0,)), names))


def _read_tflite(folder: Path) -> None:
    masks, evidence = TfliteMasker(folder / "model.tflite")(*_small_head())
    assert masks.shape == (1, 64, 64) and np.isfinite(evidence.hair)


def _small_head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, keypoints and person of one picture."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (1, 64, 64, 3), np.uint8), face(rng)[None], np.full((1, 64, 64), 255, np.uint8)


def _read_state(folder: Path) -> None:
    work = Work(folder, Settings())
    (entry, _), (_, reason) = work.outcome("aa"), work.outcome("bb")
    assert entry is None or isinstance(entry["clips"], list)
    assert reason is None or isinstance(reason, str)


def _text(data: bytes) -> st.SearchStrategy[bytes]:
    return change.changed_text(data.decode())


def _rows(data: bytes) -> st.SearchStrategy[bytes]:
    return change.changed_rows(data.decode())


def _pictures() -> dict[str, Kind]:
    kinds = {}
    for name, picture in (("a.png", _picture()), ("b.jpg", _picture()), ("c.webp", _picture()), ("d.bmp", _picture()),
                          ("e.png", _picture(16, 4)), ("f.tiff", _picture())):
        kinds[f"picture {name}"] = Kind(partial(_make_picture, name, picture), name, change.changed_picture,
                                        partial(_read_picture, name))
    return kinds


KINDS: dict[str, Kind] = {
    "config.json": Kind(partial(_make_checkpoint, TINY), "config.json", _text, _read_description),
    "config.json of svdp": Kind(partial(_make_checkpoint, svdp_tiny()), "config.json", _text, _read_description),
    "config.json and weights": Kind(partial(_make_checkpoint, TINY), "config.json", _text, _read_weights, slow=True),
    "weights": Kind(partial(_make_checkpoint, TINY), "model.safetensors", change.changed_tensors, _read_weights),
    "index of weights": Kind(_make_shards, "model.safetensors.index.json", _text, _read_weights),
    "durian.json": Kind(_make_export, "export/durian.json", _text, _read_bundle),
    "config.json of a U-Net": _diffusers("unet", sizes.unet_json(_UNET, 4, 8), lambda x: sizes.unet_config(x, "file")),
    "config.json of AutoencoderKL": _diffusers("vae", sizes.codec_json(_KL, 32),
                                               lambda x: sizes.codec_config(x, "file")),
    "config.json of AutoencoderTiny": _diffusers("vae", sizes.codec_json(_SMALL, 32),
                                                 lambda x: sizes.codec_config(x, "file")),
    "config.json of CLIP": _diffusers("clip", sizes.image_encoder_json(_CLIP),
                                      lambda x: sizes.image_encoder_config(x, "file")),
    "config.json of a motion adapter": _diffusers("motion", sizes.motion_json(_UNET, 2, 32),
                                                  lambda x: sizes.motion_config(x, _UNET, "file")),
    "config.json of a transformer": _diffusers("transformer", sizes.mmdit_json(_MMDIT, 4, 8),
                                               lambda x: sizes.mmdit_config(x, 4, 4, "file")),
    "figures of durian evaluate": Kind(_make_evaluation, "a.json", _text, _compare_evaluations),
    "config.json of a run": Kind(_make_run, "config.json", _text, _read_run),
    "metrics.jsonl": Kind(_make_metrics, "metrics.jsonl", _rows, _read_metrics),
    "dataset.json": Kind(_make_dataset, "dataset.json", _text, _read_dataset),
    "index of clips": Kind(_make_dataset, "index.safetensors", change.changed_tensors, _read_dataset),
    "records": Kind(_make_dataset, "portrait_clips-train.array_record-00000-of-00002", change.changed_bytes,
                    _read_dataset),
    "report.json": Kind(_make_dataset, "report.json", _text, _read_sheet),
    "rejected.jsonl": Kind(_make_dataset, "rejected.jsonl", _rows, _read_sheet),
    "dataset.json of encoded samples": Kind(_make_samples, "dataset.json", _text, _read_samples),
    "probe of encoded samples": Kind(_make_samples, "probe.safetensors", change.changed_tensors, _read_samples),
    "encoded samples": Kind(_make_samples, shard_name(0, 2), change.changed_bytes, _read_samples),
    "manifest.csv": Kind(partial(_make_manifest, "m.csv", _ROWS), "m.csv", _rows, partial(_read_manifest, "m.csv")),
    "manifest.jsonl": Kind(partial(_make_manifest, "m.jsonl", _LINES), "m.jsonl", _rows,
                           partial(_read_manifest, "m.jsonl")),
    **_pictures(),
    **{f"video {name}": Kind(partial(_make_video, name), name, change.changed_video, partial(_read_video, name))
       for name in ("a.mp4", "b.webm", "c.gif", "d.mkv")},
    "segmentation network": Kind(_make_network, "model.safetensors", change.changed_tensors, _read_network),
    "model.tflite": Kind(_make_tflite, "model.tflite", change.changed_bytes, _read_tflite, slow=True),
    "masks of a video": Kind(_make_masks, "talk/hair/1.png", change.changed_picture, _read_masks),
    "edited masks": Kind(_make_edited_masks, "masks/hair/00001.png", change.changed_picture, _replace_masks),
    "corrected masks": Kind(_make_corrections, f"corrections/{'0' * 20}.safetensors", change.changed_tensors,
                            _read_corrections),
    "attribute file": Kind(_make_attribute, "curls.attr", change.changed_tensors, _read_attribute),
    "state of durian prepare": Kind(_make_state, ".durian-work/aa.json", _text, _read_state),
}
