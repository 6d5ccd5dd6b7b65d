"""Masks from a SegFormer."""

import os
import re
from pathlib import Path

import numpy as np

from durian_jax.errors import InputError, cut, listed
from durian_jax.installation import install_command
from durian_jax.prepare.parsing import ParsingMasker, kinds_of_classes


class SegFormerMasker(ParsingMasker):
    """Masks from a SegFormer (Xie et al. 2021) trained for face parsing, e.g. on CelebAMask-HQ, see `ParsingMasker`.

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
        super().__init__(batch)
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
            labels = SegformerConfig.from_pretrained(folder, local_files_only=local).id2label
            self.classes = kinds_of_classes(labels, folder)
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
        self._model = model.float().eval().to(self._device)

    def _parse(self, frames: np.ndarray, ruled_out: list[int]) -> tuple[np.ndarray, np.ndarray]:
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
