"""Generated regions as in the paper: a text-to-image model draws the face's keypoints, then a segmenter finds the mask.

The paper (arXiv 2509.04434, mask expansion) uses SDXL, a keypoint ControlNet and prompts such as "long hair", and does
not name the weights. Here the user names them, in diffusers' format. The ControlNet must have learnt to follow
keypoints drawn by `faces.draw`; with one for other drawings (edges, OpenPose) the head may be anywhere.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from durian_jax.errors import InputError
from durian_jax.expansion.request import Wanted
from durian_jax.faces.clip import attribute_bit
from durian_jax.faces.draw import keypoint_image
from durian_jax.installation import install_command
from durian_jax.prepare.maskers import Masker

# Shapes to ask for, large and small. Masks have no colour, so the prompts name none.
DESCRIPTIONS = {
    "hair": ("very long straight hair", "long wavy hair over the shoulders", "long curly hair", "a big afro",
             "a bob cut", "a high ponytail", "a bun on top of the head", "braids", "dreadlocks", "a short crop",
             "a pixie cut", "slicked back hair"),
    "glasses": ("large round glasses", "thin rectangular glasses", "aviator sunglasses", "cat-eye glasses",
                "oversized square sunglasses", "small oval glasses"),
    "beard": ("a long full beard", "a short boxed beard", "a goatee", "a thick moustache", "a chin beard",
              "a short stubble beard with a moustache"),
    "hat": ("a wide-brimmed hat", "a tall top hat", "a knitted beanie", "a baseball cap", "a flat cap", "a fedora",
            "a beret", "a bucket hat"),
}
PROMPT = "a portrait photo of a person with {}, head and shoulders, plain background"
NEGATIVE_PROMPT = "cropped head, several people, drawing, deformed, text"


class DiffusersGenerator:
    """Regions from Stable Diffusion XL with a ControlNet.

    Runs on CUDA in bfloat16 if torch finds it, else on the CPU in float32.

    Args:
        model: folder of a StableDiffusionXL pipeline as `save_pretrained` writes it (safetensors), or a hub id,
            which is downloaded. Nothing else is downloaded.
        controlnet: the same for its ControlNet.
        masker: finds the attribute in the generated picture, see `prepare.maskers`.
        person: (H, W, 3) uint8 -> (H, W) uint8, the confidence that a pixel shows a person (`Annotator.person`).
        steps: of the pipeline's own scheduler.

    Raises:
        InputError: torch, diffusers or transformers is missing, a model cannot be loaded, or the ControlNet is for
            another kind of model.
    """

    def __init__(self, model: str | Path, controlnet: str | Path, masker: Masker,
                 person: Callable[[np.ndarray], np.ndarray], steps: int = 30):
        try:
            import torch
            from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
        except ImportError as error:
            raise InputError(f"the generator diffusers:{model} needs torch, diffusers and transformers ({error}); "
                             "run " + install_command("torch")) from error
        self._masker, self._person, self._steps = masker, person, steps
        network, loaded = _load(ControlNetModel, controlnet, "a ControlNet", output_loading_info=True)
        if loaded["missing_keys"]:
            raise InputError(f"{controlnet}: the weights lack {len(loaded['missing_keys'])} tensors, e.g. "
                             f"{min(loaded['missing_keys'])}; expected a whole ControlNet")
        pipeline = _load(StableDiffusionXLControlNetPipeline, model, "a Stable Diffusion XL", controlnet=network,
                         add_watermarker=False)
        widths = [getattr(part.config, "cross_attention_dim", None) for part in (network, pipeline.unet)]
        if widths[0] != widths[1]:
            raise InputError(f"{controlnet}: expected a ControlNet for {model}, whose text has {widths[1]} channels, "
                             f"found one for {widths[0]}; name one made for Stable Diffusion XL")
        self._pipeline = pipeline.to("cuda", torch.bfloat16) if torch.cuda.is_available() else pipeline.to("cpu")
        self._pipeline.set_progress_bar_config(disable=True)

    @property
    def size(self) -> int:
        """H = W of the generated pictures in pixels: what the model was trained at."""
        return self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor

    def __call__(self, wanted: Sequence[Wanted]) -> list[np.ndarray | None]:
        """See `request.Generator`."""
        images = self.pictures(wanted)
        return [self._find(image, each) for image, each in zip(images, wanted, strict=True)]

    def pictures(self, wanted: Sequence[Wanted]) -> np.ndarray:
        """(B, size, size, 3) uint8: somebody with an attribute of each kind at each photo's keypoints."""
        import torch

        prompts = [PROMPT.format(each.rng.choice(DESCRIPTIONS[each.kind])) for each in wanted]
        # Each picture has its own noise, which must not depend on its neighbours in the batch.
        noise = [torch.Generator("cpu").manual_seed(int(each.rng.integers(2**63))) for each in wanted]
        drawn = np.stack([keypoint_image(each.photo.keypoints[0], self.size, self.size) for each in wanted])
        images = self._pipeline(
            prompts, image=torch.from_numpy(drawn).permute(0, 3, 1, 2), negative_prompt=[NEGATIVE_PROMPT] * len(wanted),
            num_inference_steps=self._steps, generator=noise, height=self.size, width=self.size,
            output_type="np").images
        return np.rint(np.nan_to_num(images) * 255).astype(np.uint8)

    def _find(self, image: np.ndarray, wanted: Wanted) -> np.ndarray:
        """(size, size) bool: the attribute in the generated picture."""
        masks, _ = self._masker(image[None], wanted.photo.keypoints, self._person(image)[None], (wanted.kind,))
        return (masks[0] & attribute_bit(wanted.kind)) > 0


def _load(kind: type, source: str | Path, expected: str, **options):
    """Load a model from a folder or, if no such folder exists, from the hub."""
    local = Path(source).is_dir()
    if not local and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        raise InputError(f"{source}: no such folder; expected one with {expected} in diffusers' format, or a hub id "
                         "OWNER/NAME")
    try:
        return kind.from_pretrained(source, local_files_only=local, use_safetensors=True, **options)
    except Exception as error:  # noqa: BLE001 (diffusers, transformers and safetensors raise many kinds)
        raise InputError(f"{source}: expected {expected} in diffusers' format with safetensors weights; loading it "
                         f"failed: {error}; name another or copy it again") from error
