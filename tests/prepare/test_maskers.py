"""Maskers: a face-parsing network that is trained in seconds, and user-made masks."""

import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from durian_jax.checkpoints import SHIPPED
from durian_jax.errors import InputError
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.regions import brow_height, face_frame, glasses_region, hair_region, hat_region, oval
from durian_jax.prepare import user_masks
from durian_jax.prepare.annotate import annotate_image, annotate_video
from durian_jax.prepare.attributes import attribute_masks, glasses_evidence
from durian_jax.prepare.maskers import default_masker, make_masker
from durian_jax.prepare.parsing import kinds_of_classes
from durian_jax.prepare.segformer import SegFormerMasker
from durian_jax.prepare.user_masks import UserMasks
from durian_jax.segmentation.examples import procedural_example
from durian_jax.tensor_files import TensorFiles
from durian_jax.video import write_image, write_video
from tests.helpers.faces import face

# The classes of CelebAMask-HQ in the order of the usual models.
LABELS = ["background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
          "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"]
COLOURS = {"background": (128, 128, 128), "skin": (220, 170, 140), "hair": (60, 35, 20), "eye_g": (20, 60, 220),
           "hat": (20, 160, 60)}


def head(seed: int, kinds: tuple[str, ...], frames: int = 3, size: int = 64):
    """Return a drawn head with one colour per class: frames, keypoints, person and (T, H, W) class indices."""
    rng = np.random.default_rng(seed)
    base = face(rng) + np.float32([*rng.uniform(-0.05, 0.05, 2), 0])
    keypoints = np.stack([base + np.float32([0.01 * t, 0, 0]) for t in range(frames)])
    labels = np.zeros((frames, size, size), np.int64)
    for field, points in zip(labels, keypoints, strict=True):
        at = face_frame(points, size, size)
        shapes = {"skin": oval(at), "hair": hair_region(at) & (at.v > -0.3),
                  "hat": hat_region(at) & (at.v > brow_height(at) + 0.1), "eye_g": glasses_region(at)}
        for label, region in shapes.items():
            if label == "skin" or {"eye_g": "glasses"}.get(label, label) in kinds:
                field[region] = LABELS.index(label)
    pictures = np.zeros((*labels.shape, 3), np.uint8)
    for label, colour in COLOURS.items():
        pictures[labels == LABELS.index(label)] = colour
    return pictures, keypoints, ((labels > 0) * 255).astype(np.uint8), labels


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection over union."""
    return (found & truth).sum() / (found | truth).sum()


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def save(torch, tmp_path_factory):
    """A function that writes a tiny SegFormer with its image processor and returns the folder."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    def write(labels=LABELS, change=lambda model: None):
        torch.manual_seed(0)
        config = SegformerConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, num_attention_heads=[1] * 4,
                                 decoder_hidden_size=16, drop_path_rate=0.0, classifier_dropout_prob=0.0,
                                 id2label=dict(enumerate(labels)),
                                 label2id={label: i for i, label in enumerate(labels)})
        model = SegformerForSemanticSegmentation(config)
        change(model)
        folder = tmp_path_factory.mktemp("segformer")
        model.save_pretrained(folder)
        processor = {"image_processor_type": "SegformerImageProcessor", "do_resize": True, "do_rescale": True,
                     "do_normalize": True, "size": {"height": 128, "width": 128},
                     "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        return folder
    return write


@pytest.fixture(scope="module")
def noise(save):
    """The folder of an untrained model."""
    return save()


@pytest.fixture(scope="module")
def taught(torch, save):
    """A masker whose network has learnt the colour of each class in the drawn heads."""
    rng = np.random.default_rng(0)
    drawn = [head(1000 + i, tuple(kind for kind in ("hair", "glasses", "hat") if rng.random() < 0.5), frames=1)
             for i in range(32)]
    pixels = (torch.tensor(np.concatenate([d[0] for d in drawn])).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    pixels = torch.nn.functional.interpolate(pixels, size=(128, 128), mode="bilinear")
    truth = torch.tensor(np.concatenate([d[3] for d in drawn]))

    def teach(model):
        optimizer = torch.optim.AdamW(model.train().parameters(), 3e-2)
        weight = torch.ones(len(LABELS))
        weight[LABELS.index("eye_g")] = 3.0  # glasses have few pixels
        for step in range(80):
            part = slice(8 * (step % 4), 8 * (step % 4) + 8)
            optimizer.zero_grad()
            logits = torch.nn.functional.interpolate(model(pixel_values=pixels[part]).logits, size=(64, 64),
                                                     mode="bilinear")
            torch.nn.functional.cross_entropy(logits, truth[part], weight).backward()
            optimizer.step()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads are slow on a busy machine, because they wait for each other
    yield SegFormerMasker(save(change=teach))
    torch.set_num_threads(threads)


def always(label, labels=LABELS, logit=30.0):
    """Return a change that makes one class win everywhere."""
    def change(model):
        classifier = model.decode_head.classifier
        classifier.weight.data.zero_()
        classifier.bias.data.zero_()
        classifier.bias.data[list(labels).index(label)] = logit
    return change


def constant(masker, images):
    """Replace a masker's network by one that returns the logits `images` (N, C, h, w), batch by batch."""
    left = list(images)
    masker._model = lambda pixel_values: SimpleNamespace(
        logits=type(pixel_values)(np.stack([left.pop(0) for _ in range(len(pixel_values))])))


# --- masks of the network -----------------------------------------------------------------------------

def test_a_trained_network_finds_the_drawn_kinds(taught):
    for seed, kinds in enumerate([("hair",), ("hair", "glasses"), ("hair", "hat"), ("hair", "glasses", "hat"), ()]):
        frames, keypoints, person, labels = head(seed, kinds)
        masks, evidence = taught(frames, keypoints, person, None)
        assert masks.shape == (3, 64, 64) and masks.dtype == np.uint8
        assert set(evidence.present()) - {"beard"} == set(kinds), evidence
        for kind, label in (("hair", "hair"), ("glasses", "eye_g"), ("hat", "hat")):
            found, truth = (masks & attribute_bit(kind)) > 0, labels == LABELS.index(label)
            assert overlap(found, truth) > 0.6 if kind in kinds else not found.any(), (kinds, kind)


def test_the_same_input_gives_the_same_masks(taught):
    clip = head(3, ("hair", "glasses"), frames=5)[:3]
    masks, evidence = taught(*clip, None)
    again, same = taught(*clip, None)
    assert np.array_equal(masks, again) and evidence == same
    taught._batch, before = 2, taught._batch
    split, close = taught(*clip, None)
    taught._batch = before
    assert (split != masks).mean() < 1e-3
    assert vars(close) == pytest.approx(vars(evidence), rel=1e-3)


def test_upsampling_equals_transformers(torch, noise):
    from transformers import AutoImageProcessor, SegformerForSemanticSegmentation
    frames = np.random.default_rng(0).integers(0, 255, (3, 80, 112, 3), np.uint8)
    masker = SegFormerMasker(noise)
    winner, probability = masker._parse(frames, [])
    processor = AutoImageProcessor.from_pretrained(noise)
    model = SegformerForSemanticSegmentation.from_pretrained(noise).eval()
    with torch.inference_mode():
        answer = model(**processor(list(frames), return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(answer, [(80, 112)] * 3)
    assert np.array_equal(winner, np.stack([e.numpy() for e in expected]))
    assert probability.sum(axis=1) == pytest.approx(1, abs=1e-5)
    # A class that is ruled out is replaced by the next most likely class.
    most = int(np.bincount(winner.ravel()).argmax())
    other, probability = masker._parse(frames, [most])
    assert (other != most).all() and probability[:, most].max() == 0
    assert np.array_equal(other[winner != most], winner[winner != most])


def test_a_network_that_sees_only_hair_masks_every_pixel(save):
    clip = head(0, ("hair",))[:3]
    masks, evidence = SegFormerMasker(save(change=always("hair")))(*clip, None)
    assert ((masks & attribute_bit("hair")) > 0).all()
    assert evidence.hair == pytest.approx(1 / 0.6, abs=1e-3) and evidence.hat == 0 and evidence.glasses == 0


def test_an_uncertain_network_gives_no_evidence(noise, save):
    clip = head(0, ("hair", "glasses"))[:3]
    masks, evidence = SegFormerMasker(noise)(*clip, None)
    heuristic, judged = attribute_masks(*clip)
    assert max(evidence.hair, evidence.glasses, evidence.hat) < 0.7
    assert np.array_equal(masks, heuristic & attribute_bit("beard")) and evidence.beard == judged.beard
    # Hair wins everywhere, but its probability is hardly higher than that of other classes.
    _, evidence = SegFormerMasker(save(change=always("hair", logit=1.0)))(*clip, None)
    assert 0 < evidence.hair < 0.5


def test_evidence_is_the_median_of_probability_times_area(noise):
    """The network's answers are given, so the expected numbers are computed by hand."""
    frames, keypoints, person, _ = head(0, ("hair",), frames=5)
    unit = face_frame(keypoints[0], 64, 64).unit
    hair, hat = LABELS.index("hair"), LABELS.index("hat")
    logits = np.zeros((5, len(LABELS), 64, 64), np.float32)
    logits[:, 0] = 20
    logits[:3, hair, :20], logits[:3, 0, :20] = 20, 0  # large and certain in three of five frames
    logits[:2, hat, 40:], logits[:2, 0, 40:] = 20, 0   # in two of five frames
    masker = SegFormerMasker(noise, batch=2)
    constant(masker, logits)
    _, evidence = masker(frames, keypoints, person, None)
    assert evidence.hair == pytest.approx(1 / 0.6, rel=1e-3) and evidence.hat == 0

    small = np.zeros((5, len(LABELS), 64, 64), np.float32)
    small[:, 0] = 20
    small[:, hair, 0, :40], small[:, 0, 0, :40] = 20, 0
    constant(masker, small)
    _, evidence = masker(frames, keypoints, person, None)
    assert evidence.hair == pytest.approx(40 / unit ** 2 / 0.06 / 0.6, rel=1e-3) and evidence.hair < 1


def test_the_bridge_supports_glasses(noise, monkeypatch):
    frames, keypoints, person, labels = head(0, ("hair", "glasses"))
    logits = np.zeros((3, len(LABELS), 64, 64), np.float32)
    where = labels == LABELS.index("eye_g")
    logits[:, LABELS.index("eye_g")][where] = np.log(18 * 0.6 / 0.4)  # probability 0.6, the threshold
    masker, values = SegFormerMasker(noise), {}
    for bridge in (0.0, 1.0, 2.0, 9.0):
        monkeypatch.setattr("durian_jax.prepare.attributes.glasses_evidence", lambda *_, b=bridge: b)
        constant(masker, logits)
        values[bridge] = masker(frames, keypoints, person, None)[1].glasses
    assert list(values.values()) == pytest.approx([0.75, 1, 1.25, 1.25], rel=1e-3)
    monkeypatch.undo()
    bridge = glasses_evidence(frames, [face_frame(points, 64, 64) for points in keypoints])
    constant(masker, logits)
    assert masker(frames, keypoints, person)[1].glasses == pytest.approx(0.75 + 0.25 * min(bridge, 2), rel=1e-3)


def test_known_kinds_are_kept_and_unknown_hats_dropped(noise, taught):
    frames, keypoints, person, labels = head(0, ("hair", "hat"))
    hat = labels == LABELS.index("hat")
    for known, expected in ((None, True), (("hair", "hat"), True), (("hair",), False), ((), False)):
        masks, evidence = taught(frames, keypoints, person, known)
        assert (overlap((masks & attribute_bit("hat")) > 0, hat) > 0.8) == expected, known
        assert (evidence.hat >= 1) == expected
    # A few uncertain pixels are no evidence. They are the mask if the kind is known.
    logits = np.zeros((3, len(LABELS), 64, 64), np.float32)
    logits[:, LABELS.index("eye_g"), 30, 20:24] = 0.1
    masker = SegFormerMasker(noise)
    constant(masker, logits)
    assert not (masker(frames, keypoints, person, None)[0] & attribute_bit("glasses")).any()
    constant(masker, logits)
    masks, evidence = masker(frames, keypoints, person, ("glasses",))
    assert ((masks & attribute_bit("glasses")) > 0).sum() == 3 * 4 and evidence.glasses < 0.2
    # Without any pixels the mask stays empty, and the caller decides.
    constant(masker, np.zeros_like(logits))
    assert not (masker(frames, keypoints, person, ("glasses",))[0] & attribute_bit("glasses")).any()


def test_a_hat_that_is_ruled_out_becomes_the_next_likely_class(noise):
    frames, keypoints, person, _ = head(0, ("hair",))
    logits = np.zeros((3, len(LABELS), 64, 64), np.float32)
    logits[:, LABELS.index("hat")], logits[:, LABELS.index("hair")] = 20, 15
    masker = SegFormerMasker(noise)
    for known, kind in ((None, "hat"), (("hair",), "hair")):
        constant(masker, logits)
        masks, _ = masker(frames, keypoints, person, known)
        assert np.array_equal((masks & attribute_bit(kind)) > 0, np.ones_like(masks, bool)), known


def test_kinds_without_a_class_come_from_the_heuristic(save):
    labels = ("background", "skin", "HAIR")
    frames, keypoints, person, _ = head(0, ("hair", "glasses"))
    masker = SegFormerMasker(save(labels, always("HAIR", labels)))
    for known in (None, ("glasses", "beard")):
        masks, evidence = masker(frames, keypoints, person, known)
        heuristic, judged = attribute_masks(frames, keypoints, person, known)
        for kind in ("glasses", "beard", "hat"):
            assert np.array_equal(masks & attribute_bit(kind), heuristic & attribute_bit(kind))
            assert getattr(evidence, kind) == getattr(judged, kind)
    # Glasses are in front of hair, even if the network finds hair there.
    glasses = (masks & attribute_bit("glasses")) > 0
    assert glasses.any() and np.array_equal((masks & attribute_bit("hair")) > 0, ~glasses)


# --- suitable and unsuitable models -------------------------------------------------------------------

@pytest.mark.parametrize("labels, expected", [
    (LABELS, {"hair": [13], "glasses": [3], "hat": [14]}),
    (["BACKGROUND", "SKIN", "HAIR", "BEARD", "GLASSES", "HEADWEAR", "FACEWEAR"],
     {"hair": [2], "glasses": [4], "beard": [3], "hat": [5]}),
    (["skin", "Hair.png", "eye_g.png", "Eye Glasses", "mustache", "beard", "l_eye", "ear_r", "neck_l"],
     {"hair": [1], "glasses": [2, 3], "beard": [4, 5]}),
    (["hair", "l_lip", "cloth", "hairband"], {"hair": [0]}),
])
def test_labels_are_understood(labels, expected):
    assert kinds_of_classes(dict(enumerate(labels)), "model") == expected


def test_probabilities_of_one_kind_are_added(save):
    labels = ("background", "hair", "Beard", "Mustache")
    masker = SegFormerMasker(save(labels))
    frames, keypoints, person, _ = head(0, ("hair",))
    logits = np.zeros((3, 4, 64, 64), np.float32)
    logits[:, 2:, 40:] = 20  # two equally likely classes, certain together
    constant(masker, logits)
    masks, evidence = masker(frames, keypoints, person, None)
    assert evidence.beard == pytest.approx(1 / 0.6, rel=1e-3)
    assert ((masks & attribute_bit("beard")) > 0)[:, 40:].all() and not (masks & attribute_bit("beard"))[:, :40].any()


def test_a_model_without_hair_is_refused(save):
    with pytest.raises(InputError, match="a class for hair, found the classes road, car, sky"):
        SegFormerMasker(save(("road", "car", "sky")))


def test_pickled_weights_are_refused(torch, save):
    folder = save()
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="model.safetensors is missing .found: config.json, .*pytorch_model.bin"):
        SegFormerMasker(folder)


def test_incomplete_folders_say_what_is_missing(torch, save, tmp_path):
    with pytest.raises(InputError, match="config.json and preprocessor_config.json and model.safetensors is missing"):
        SegFormerMasker(tmp_path)
    folder = save()
    (folder / "config.json").rename(folder / "settings.json")
    with pytest.raises(InputError, match=": expected a face-parsing SegFormer, config.json is missing"):
        SegFormerMasker(folder)
    (folder / "settings.json").rename(folder / "config.json")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="loading it failed"):
        SegFormerMasker(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="loading it failed"):
        SegFormerMasker(folder)


def test_an_encoder_alone_is_refused(torch, save):
    """transformers would initialise a random head and only log it."""
    from safetensors.torch import load_file, save_file
    folder = save()
    encoder = {name: x for name, x in load_file(folder / "model.safetensors").items() if "decode_head" not in name}
    save_file(encoder, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="weights lack .* tensors, e.g. decode_head"):
        SegFormerMasker(folder)


def test_only_a_hub_id_may_be_fetched(torch, monkeypatch, noise):
    import transformers
    asked = []

    def refuse(name, **options):
        asked.append((name, options["local_files_only"]))
        raise OSError("no network")
    monkeypatch.setattr(transformers.SegformerConfig, "from_pretrained", refuse)
    for name in ("owner/face-parsing", str(noise)):
        with pytest.raises(InputError, match="loading it failed: no network"):
            make_masker(f"segformer:{name}")
    assert asked == [("owner/face-parsing", False), (str(noise), True)]
    for name in ("/no/such/folder", "model", "./model", "../model", "a/b/c", "https://huggingface.co/a/b"):
        with pytest.raises(InputError, match="no such folder; expected one with a face-parsing model"):
            make_masker(f"segformer:{name}")
    assert len(asked) == 2


def test_missing_torch_says_how_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"run pip install .*\[torch\]'"):
        SegFormerMasker(tmp_path)


def test_make_masker(noise):
    assert make_masker("heuristic") is attribute_masks
    assert make_masker("default") is default_masker
    assert isinstance(make_masker(f"segformer:{noise}"), SegFormerMasker)
    for name in ("", "segformer", "segformer:", "heuristic:x", "Segformer:x", "sam"):
        with pytest.raises(InputError, match="expected default, heuristic, segmentation:F.* segformer:F.* tflite:FILE"):
            make_masker(name)
    with pytest.raises(InputError, match="at least 1, got 0"):
        SegFormerMasker(noise, batch=0)


# --- user-made masks ----------------------------------------------------------------------------------

@pytest.fixture
def truth():
    """(12, 48, 64) bool masks of a moving block."""
    masks = np.zeros((12, 48, 64), bool)
    for t, mask in enumerate(masks):
        mask[8:32, 4 + 3 * t:20 + 3 * t] = True
    return masks


def write_folder(folder, masks, name="{}.png"):
    for t, mask in enumerate(masks):
        write_image(folder / name.format(t), mask.astype(np.uint8) * 255)


def test_masks_from_pictures_are_read(tmp_path, truth):
    write_folder(tmp_path / "walk" / "hair", truth)
    write_folder(tmp_path / "walk" / "glasses", ~truth, "{:05d}.png")
    write_folder(tmp_path / "talk" / "beard", truth[:1], "{:03d}.jpg")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "walk" / ".DS_Store").touch()
    masks = UserMasks(tmp_path)
    assert masks.kinds("walk") == ("hair", "glasses") and masks.kinds("talk") == ("beard",)
    assert masks.kinds("other") == () and masks.kinds("../walk") == ()
    for t in (0, 5, 11, 3):
        found = masks.read("walk", "hair", t, 48, 64)
        assert found.dtype == bool and np.array_equal(found, truth[t])
        assert np.array_equal(masks.read("walk", "glasses", t, 48, 64), ~truth[t])
    assert overlap(masks.read("talk", "beard", 0, 48, 64), truth[0]) > 0.95


def test_the_threshold_is_above_127(tmp_path):
    grey = np.array([[0, 127], [128, 255]], np.uint8)
    write_image(tmp_path / "v" / "hat" / "7.png", grey)
    assert UserMasks(tmp_path).read("v", "hat", 7, 2, 2).tolist() == [[False, False], [True, True]]


def test_masks_from_videos_are_read_in_any_order(tmp_path, truth, monkeypatch):
    for video in ("walk", "talk"):
        for kind, masks in (("hair", truth), ("hat", ~truth)):
            write_video(tmp_path / video / f"{kind}.mp4", (masks[..., None] * np.full(3, 255)).astype(np.uint8), 25)
    opened = []
    monkeypatch.setattr(user_masks, "iterate_video", lambda path, real=user_masks.iterate_video: opened.append(path) or
                        real(path))
    masks = UserMasks(tmp_path)
    assert masks.kinds("walk") == ("hair", "hat") and not opened
    for t in (0, 1, 1, 4, 11):
        assert overlap(masks.read("walk", "hair", t, 48, 64), truth[t]) > 0.98
        assert overlap(masks.read("walk", "hat", t, 48, 64), ~truth[t]) > 0.98
    assert len(opened) == 2
    assert overlap(masks.read("walk", "hair", 3, 48, 64), truth[3]) > 0.98
    assert len(opened) == 3
    # The files of the previous video are closed, but can be read again.
    assert overlap(masks.read("talk", "hair", 2, 48, 64), truth[2]) > 0.98
    assert list(masks._readers) == ["hair"]
    assert overlap(masks.read("walk", "hair", 1, 48, 64), truth[1]) > 0.98


def test_missing_masks_are_named(tmp_path, truth):
    write_folder(tmp_path / "walk" / "hair", truth)
    write_video(tmp_path / "walk" / "hat.mp4", (truth[..., None] * np.full(3, 255)).astype(np.uint8), 25)
    masks = UserMasks(tmp_path)
    with pytest.raises(InputError, match="no mask for frame 12; found 12 masks from 0 to 11; add 12.png"):
        masks.read("walk", "hair", 12, 48, 64)
    for _ in range(2):  # also after the end has been reached
        with pytest.raises(InputError, match="hat.mp4: no mask for frame 12; found 12 frames; expected as many"):
            masks.read("walk", "hat", 12, 48, 64)
    assert overlap(masks.read("walk", "hat", 11, 48, 64), truth[11]) > 0.98
    for video, kind in (("walk", "beard"), ("talk", "hair")):
        with pytest.raises(InputError, match=f"no masks for {kind}; add a folder {kind} or a video {kind}.mp4"):
            masks.read(video, kind, 0, 48, 64)
    with pytest.raises(InputError, match="unknown attribute kind 'ears'"):
        masks.read("walk", "ears", 0, 48, 64)


def test_wrong_sizes_are_named(tmp_path, truth):
    write_folder(tmp_path / "walk" / "hair", truth[:1])
    write_video(tmp_path / "walk" / "hat.mp4", (truth[..., None] * np.full(3, 255)).astype(np.uint8), 25)
    masks = UserMasks(tmp_path)
    for kind, where in (("hair", "0.png"), ("hat", "hat.mp4, frame 0")):
        with pytest.raises(InputError, match=f"{where}: expected the size .*, 128 x 96, found 64 x 48"):
            masks.read("walk", kind, 0, 96, 128)


def test_unreadable_masks_are_named(tmp_path, truth):
    write_folder(tmp_path / "v" / "hair", truth)
    (tmp_path / "v" / "hair" / "0.png").write_bytes(b"no picture")
    whole = (tmp_path / "v" / "hair" / "1.png").read_bytes()
    (tmp_path / "v" / "hair" / "1.png").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "v" / "hat.mp4").write_text("no video")
    write_video(tmp_path / "v" / "beard.mp4", (truth[..., None] * np.full(3, 255)).astype(np.uint8), 25)
    masks = UserMasks(tmp_path)
    for kind, frame, words in (("hair", 0, "0.png: expected a picture"), ("hair", 1, "1.png: the picture is cut off"),
                               ("hat", 0, "hat.mp4: not a readable video")):
        with pytest.raises(InputError, match=words):
            masks.read("v", kind, frame, 48, 64)


def test_masks_that_are_not_white_on_black_are_refused(tmp_path, truth):
    folder = tmp_path / "v" / "hair"
    write_image(folder / "0.png", truth[0].astype(np.uint8))
    mask = np.where(truth[0], 255, 0).astype(np.uint8)
    cut_out = np.dstack([np.full((48, 64, 3), 255, np.uint8), mask])
    opaque = np.dstack([mask, mask, mask, np.full_like(mask, 255)])
    invisible, red = np.dstack([opaque[..., :3], 0 * mask]), np.dstack([0 * mask, 0 * mask, mask // 2])
    for name, image in enumerate((cut_out, invisible, opaque, 0 * mask, red), start=1):
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    masks = UserMasks(tmp_path)
    with pytest.raises(InputError, match="found the values 0 and 1; multiply the mask by 255"):
        masks.read("v", "hair", 0, 48, 64)
    for frame in (1, 2):
        with pytest.raises(InputError, match="found transparent parts; save the mask as a grey picture"):
            masks.read("v", "hair", frame, 48, 64)
    with pytest.raises(InputError, match="expected white on black, found colours"):
        masks.read("v", "hair", 5, 48, 64)
    assert np.array_equal(masks.read("v", "hair", 3, 48, 64), truth[0])
    assert not masks.read("v", "hair", 4, 48, 64).any()


@pytest.mark.parametrize("files, words", [
    (["v/ears/0.png"], "v/ears: expected a folder of pictures or a video .* kinds hair, glasses, beard, hat"),
    (["v/Hair/0.png"], "v/Hair: expected"),
    (["hair/0.png"], "hair/0.png: expected a folder of pictures"),
    (["v/hair.zip"], "v/hair.zip: expected"),
    (["v/hair/0.png", "v/hair.mp4"], "hair.mp4: masks for hair are given twice"),
    (["v/hair/frame_1.png"], "frame_1.png: expected pictures named by frame number"),
    (["v/hair/1.txt"], "1.txt: expected pictures named by frame number"),
    (["v/hair/1.png", "v/hair/01.png"], "frame 1 is also in 01.png"),
    (["v/hair/.hidden"], "v/hair: expected pictures such as 0.png, found none"),
])
def test_invalid_folders_are_refused(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=words):
        UserMasks(tmp_path)


def test_no_such_folder(tmp_path):
    (tmp_path / "file").touch()
    for name in ("nothing", "file"):
        with pytest.raises(InputError, match=f"{name}: expected a folder of masks"):
            UserMasks(tmp_path / name)


def test_folders_that_match_no_input_are_problems(tmp_path):
    for name in ("interview_01/hair", "interview_2/hat"):
        write_folder(tmp_path / name, np.zeros((1, 4, 4), bool))
    (tmp_path / "README.md").touch()
    (tmp_path / "interview_3.mp4").touch()
    masks = UserMasks(tmp_path)
    lines = masks.problems(["interview_1", "interview_2", "other"])
    assert len(lines) == 2
    assert "interview_01: expected a folder named after" in lines[0] and lines[0].endswith("did you mean interview_1?")
    assert "interview_3.mp4: expected a folder" in lines[1]
    assert masks.problems(["interview_01", "interview_2"])[0].startswith(str(tmp_path / "interview_3.mp4"))


def test_the_shipped_networks_are_those_of_their_card():
    folder = SHIPPED / "masks"
    stored = TensorFiles(folder)
    eyes = sum(stored[name].size for name in stored if name.startswith("eyes_"))
    head = sum(stored[name].size for name in stored) - eyes
    card = (folder / "README.md").read_text()
    assert f"{head / 1e6:.2f} M parameters" in card and f"{eyes / 1e6:.2f} M parameters" in card
    assert (folder / "model.safetensors").stat().st_size < 1e6


def test_the_default_masks_of_drawn_people():
    """Procedural people are a part of the training data, though not these."""
    scores = []
    for number in range(3000, 3012):
        one = procedural_example(number)
        masks, _ = default_masker(one.frame[None], one.keypoints[None], one.person[None])
        found, true = (masks[0] & attribute_bit("hair")) > 0, one.masks[..., 0]
        if true.any():
            scores.append((found & true).sum() / (found | true).sum())
    assert len(scores) > 5 and np.median(scores) > 0.6


@pytest.mark.parametrize("name", ["forehead.jpg", "dark_short_hair.jpg"])
def test_hair_of_difficult_photos(portraits, annotator, name):
    clip = annotate_image(portraits / "cases" / name, 256, annotator=annotator)
    face = face_frame(clip.keypoints[0], 256, 256)
    skin = oval(face) & (face.v > brow_height(face)) & (face.v < brow_height(face) + 0.15)
    hair = clip.mask("hair")[0]
    assert hair.sum() > 0.1 * face.unit ** 2 and (hair & skin).sum() < 0.05 * skin.sum()
    assert not clip.mask("glasses").any() and not clip.mask("hat").any()


def test_shadows_between_the_eyes_are_no_glasses(portraits, annotator):
    clip, _ = annotate_video(portraits / "cases" / "noglasses.mp4", 256, 24, annotator=annotator)
    assert not clip.mask("glasses").any() and clip.mask("hair").any()
