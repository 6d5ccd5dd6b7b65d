"""Attention at the paper's sites, compiled for a TPU chip on a machine without one.

    python -m benchmarks.tpu_attention --chip v5e

Compares implementations, block sizes and padded head widths: one frame with a portrait and one attribute, forward and
backward, in bfloat16. Temporaries are the compiler's figure. FLOPs are counted without and with padding to full matrix
units. There are no times, because the compiler does not estimate kernels.
"""

import argparse
import os
import time

from durian_jax.hardware.chips import CHIPS
from durian_jax.planning.tpu_compiler import compiler_environment

# Tokens per frame and channels per head of the three levels with attention at 512 px.
SITES = ((4096, 40), (1024, 80), (256, 160))
HEADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=list(CHIPS), default="v5e")
    chip = parser.parse_args().chip
    os.environ.update(compiler_environment())
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from durian_jax.hardware.flops import count_flops
    from durian_jax.models.attention import AttentionMethod
    from durian_jax.models.attention.kernels import splash
    from durian_jax.models.attention.plain import chunked_product, product

    shape = "x".join(["2", "2", "1"][:CHIPS[chip].torus_axes])
    device = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip}:{shape}").devices[0]

    def one(attend):
        return lambda q, k, v: attend(q[:, 0], k[:, 0], v[:, 0], None)[:, None]

    def widened(attend, width):
        pad = lambda x: jnp.pad(x, ((0, 0),) * 4 + ((0, width - x.shape[-1]),))
        # The kernel derives the scale of the logits from the padded width.
        scale = lambda x: x * (width / x.shape[-1]) ** 0.5
        return lambda q, k, v: attend(pad(scale(q)), pad(k), pad(v), None, method)[..., :q.shape[-1]]

    method = AttentionMethod("splash")
    blocks_of = lambda block: lambda q, k, v: splash(q, k, v, None, method, block=block)
    print(f"{chip}; jax {jax.__version__}")
    print(f"{'tokens x keys, head':24s} {'implementation':28s} {'temporaries, MiB':>18s} {'GFLOP':>8s} "
          f"{'padded':>10s} {'compiled in, s':>15s}")
    for tokens, width in SITES:
        keys = 3 * tokens
        variants = {"xla": one(product), "chunked": one(chunked_product)}
        variants |= {f"splash, blocks of {block}": blocks_of(block) for block in (256, 512, 1024, 2048)
                     if block <= tokens}
        wide = -(-width // 128) * 128
        variants[f"splash, heads of {wide}"] = widened(splash, wide)
        array = lambda n, width=width: jax.ShapeDtypeStruct(
            (1, 1, n, HEADS, width), jnp.bfloat16, sharding=SingleDeviceSharding(device))
        arguments = array(tokens), array(keys), array(keys)
        for name, attend in variants.items():
            step = jax.grad(lambda q, k, v, attend=attend: jnp.sum(attend(q, k, v).astype(jnp.float32)), (0, 1, 2))
            start = time.perf_counter()
            try:
                memory = f"{jax.jit(step).lower(*arguments).compile().memory_analysis().temp_size_in_bytes / 2**20:.1f}"
            except jax.errors.JaxRuntimeError as error:
                memory = "out of VMEM" if "vmem" in str(error).lower() else "not compiled"
            seconds = time.perf_counter() - start
            flops = [count_flops(step, *arguments, tile=tile) / 1e9 for tile in (1, CHIPS[chip].tile)]
            print(f"{tokens} x {keys}, {width:3d}".ljust(24), f"{name:28s} {memory:>18s} {flops[0]:8.1f} "
                  f"{flops[1]:10.1f} {seconds:15.1f}", flush=True)


if __name__ == "__main__":
    main()
