"""Fewer reference tokens: the loss in transfer quality, and the share of tokens that are relevant.

    python -m benchmarks.pruning                           the shipped checkpoint, 16 transfers per attribute
    python -m benchmarks.pruning --checkpoint runs/stage1/export --cases 64 --json figures.json

All rows use the same checkpoint with different capacities. It was trained with the capacities of its own config only.
"""

import argparse
from dataclasses import replace
from functools import cache

import numpy as np

from durian_jax import runtime

# portrait_capacity, attribute_capacity
CAPACITIES = ((1.0, 1.0), (1.0, 0.5), (0.875, 0.75), (0.75, 0.5), (0.625, 0.375), (0.5, 0.25))
COLUMNS = {"psnr": "PSNR dB", "psnr_region": "region dB", "ssim": "SSIM", "ssim_region": "region"}
PERCENTILES = (50, 90, 99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="tiny", help="name of a shipped checkpoint, or a folder")
    parser.add_argument("--cases", type=int, default=16, help="transfers per attribute")
    parser.add_argument("--samples", type=int, default=200, help="training samples whose tokens are counted")
    parser.add_argument("--json", help="also write the results to this file")
    options = parser.parse_args()
    if options.json:
        from durian_jax.files import writable_file, write_json

        writable_file(options.json, (".json",))
    runtime.configure()
    needed = needed_capacities(options.checkpoint, options.samples)
    print_needed(needed, options.samples)
    quality = transfer_quality(options.checkpoint, options.cases)
    if options.json:
        from durian_jax.versions import versions

        write_json(options.json, {
            "needed": needed, "quality": quality, "versions": versions(),
            "settings": {"checkpoint": options.checkpoint, "cases": options.cases, "samples": options.samples}})


def transfer_quality(name: str, cases: int) -> list[dict]:
    """Return a row for each of `CAPACITIES`: the share of keys that are kept, and the means of `transfer.run`."""
    from durian_jax.checkpoints.weights import load_checkpoint
    from durian_jax.evaluation import transfer

    checkpoint = load_checkpoint(name)
    # Render every case only once for all capacities.
    questions = {kind: [cache(make) for make in makers]
                 for kind, makers in transfer.transfer_cases(cases, size=checkpoint.config.image_size).items()}
    print(f"\n{'portrait':>8} {'attribute':>9} {'keys':>6}" + "".join(f"{title:>10}" for title in COLUMNS.values())
          + f"   ({name}, {cases} transfers per attribute)")
    rows = []
    for portrait, attribute in CAPACITIES:
        config = replace(checkpoint.config, portrait_capacity=portrait, attribute_capacity=attribute)
        result = transfer.run(replace(checkpoint, config=config), questions, progress=False)
        # Keys of the frame, the portrait and one attribute, relative to keeping all.
        row = {"portrait_capacity": portrait, "attribute_capacity": attribute, "keys": (1 + portrait + attribute) / 3,
               **{kind: {key: means[key] for key in COLUMNS} for kind, means in result.summary.items()}}
        rows.append(row)
        print(f"{portrait:8} {attribute:9} {row['keys']:6.0%}"
              + "".join(f"{row['mean'][key]:10.{2 if 'psnr' in key else 4}f}" for key in COLUMNS), flush=True)
    return rows


def needed_capacities(name: str, samples: int) -> dict[str, dict[int, list[float]]]:
    """Measure, on procedural training samples, the capacities that keep all relevant tokens.

    A token is relevant if more than `TRACE` of it lies outside M_port (portrait) or inside M_attr (attribute). For
    ", half or more" it is relevant if at least half of it does.

    Returns:
        "portrait" or "attribute", with or without ", half or more" -> side of an attention site -> capacities that
        are sufficient for `PERCENTILES` of the references.
    """
    import jax
    import jax.numpy as jnp

    from durian_jax.checkpoints.weights import read_description
    from durian_jax.configs import load_config
    from durian_jax.data.pipeline import make_samples
    from durian_jax.models.token_importance import TRACE, shares
    from durian_jax.progress import progress_bar
    from durian_jax.training.config import RunConfig
    from durian_jax.training.training_clips import make_source

    config, run = read_description(name).config, RunConfig.read(load_config("tiny,stage=1"))
    data = replace(run.data, image_size=config.image_size)
    drawn = make_samples(make_source(run.source, data.image_size), data, seed=0)
    sides = [config.latent_size // 2**level for level, has in enumerate(config.unet.attention) if has]
    found = {f"{reference}{half}": {side: [] for side in sides}
             for half in ("", ", half or more") for reference in ("portrait", "attribute")}
    for index in progress_bar(range(samples), desc="samples"):
        sample = drawn[index]
        worn = sample["attribute_masks"][sample["attribute_valid"] > 0]
        masks = jnp.asarray(np.concatenate([1 - sample["portrait_mask"][None], worn]), jnp.float32)[..., 0]
        latents = jax.image.resize(masks, (len(masks), config.latent_size, config.latent_size), "linear")
        for side in sides:
            share = np.asarray(shares(latents, side)).reshape(len(masks), -1)
            for half, relevant in (("", share > TRACE), (", half or more", share >= 0.5)):
                needed = relevant.mean(1)
                found[f"portrait{half}"][side].append(needed[0])
                found[f"attribute{half}"][side].extend(needed[1:])
    percentiles = lambda values: [float(x) for x in np.percentile(values, PERCENTILES)]
    return {reference: {side: percentiles(values) for side, values in by_side.items()}
            for reference, by_side in found.items()}


def print_needed(needed: dict[str, dict[int, list[float]]], samples: int) -> None:
    print(f"{'sufficient capacity for':26} {'tokens':>8}" + "".join(f"{percent:8} %" for percent in PERCENTILES)
          + f"   of the references ({samples} samples)")
    for reference, by_side in needed.items():
        for side, values in by_side.items():
            print(f"{reference:26} {f'{side} x {side}':>8}" + "".join(f"{value:10.3f}" for value in values))


if __name__ == "__main__":
    main()
