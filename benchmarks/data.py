"""Speed of training batches from recorded clips, compared with bare JPEG decoding of the same pixels.

    python benchmarks/data.py                    procedural clips, both stages, 0, 1 and 2 worker processes
    python benchmarks/data.py --samples 10000    also measures memory over many samples

The clips show procedural people at 512 px with a margin (640 px stored), as `durian prepare` stores real clips.
Procedural pictures compress better than photos. Noise is added until a JPEG has the size of a photo's (about 100 KiB).
The baseline only decodes the same stored frames with cv2.imdecode, in the same run. Its time is the CPU time of one
thread. Its rate with N workers is N times the rate of one thread, with N at most the number of cores.
"""

import argparse
import gc
import platform
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil

from durian_jax.data import RecordedClips, make_loader, write_clips
from durian_jax.data.clip_record import ENCODINGS
from durian_jax.data.pipeline import tune_process
from durian_jax.data.samples.durian import DurianSamples
from durian_jax.synthetic import render, sample_motion, sample_person

SIZE, MARGIN = 512, 64
# As in the preset sd15.
STAGES = {stage: DurianSamples(image_size=SIZE, frames=frames, mask_jitter=0.3, blur_probability=0.1,
                               jpeg_probability=0.1, clip_colour=0.1, donor_candidates=8, frame_masks=False)
          for stage, frames in (("1", 1), ("2", 16))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="number of procedural clips")
    parser.add_argument("--samples", type=int, default=0, help="stage 1 samples for the memory test; 0: skip the test")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each row")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dataset", help="records to use instead of procedural clips")
    options = parser.parse_args()
    tune_process()
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores; OpenCV {cv2.__version__}, "
          f"numpy {np.__version__}")
    folder = Path(tempfile.mkdtemp(prefix="durian-bench-"))
    try:
        source = RecordedClips(options.dataset or draw(folder / "clips", options.clips))
        encodings(source)
        for stage, config in STAGES.items():
            config = replace(config, image_size=source.about["height"] - 2 * source.about["margin"])
            throughput(source, stage, config, options.workers, options.seconds)
            parts(source, stage, config)
        slow_shard(source, options.seconds)
        if options.samples:
            memory(source, options.samples)
    finally:
        shutil.rmtree(folder)


def draw(folder: Path, count: int) -> Path:
    """Write a dataset of procedural people, 24 frames each."""
    def clips():
        for number in range(count):
            rng = np.random.default_rng(number)
            clip = render(sample_person("train", number), sample_motion("train", number, 24), SIZE + 2 * MARGIN)
            grain = rng.normal(0, 7, clip.frames.shape[1:3]).astype(np.float32)
            for frame in clip.frames:
                noise = cv2.GaussianBlur(np.roll(grain, rng.integers(640), 1), (0, 0), 0.8)
                frame[:] = np.clip(frame + 2 * noise[..., None], 0, 255).astype(np.uint8)
            yield replace(clip, margin=MARGIN)

    write_clips(folder, clips(), encoding="jpeg", shard_size=6)
    return folder


def bare(directory) -> float:
    """Return the seconds per frame of bare JPEG decoding on one thread."""
    source = RecordedClips(directory)
    compressed = [source.open(i).compressed("frames", j) for i in range(min(len(source), 8)) for j in range(8)]
    times = []
    for _ in range(4):
        start = time.thread_time()
        for data in compressed:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        times.append((time.thread_time() - start) / len(compressed))
    return min(times)


def encodings(source) -> None:
    """Print size and decoding time of each frame encoding."""
    frames = source.read(0, range(6)).frames
    print(f"\nframes of {frames.shape[1]} px     KiB  ms to decode")
    for name, (extension, settings) in ENCODINGS.items():
        coded = [cv2.imencode(extension, frame[..., ::-1], settings)[1] for frame in frames]
        for data in coded:
            cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        start = time.thread_time()
        for _ in range(3):
            for data in coded:
                cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        milliseconds = (time.thread_time() - start) / 3 / len(coded) * 1e3
        print(f"{name:16} {np.mean([len(c) for c in coded]) / 1024:9.0f} {milliseconds:9.2f}")
    masks = [source.open(0).compressed("masks", i) for i in range(6)]
    start = time.thread_time()
    for _ in range(20):
        for data in masks:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    print(f"{'masks (png)':16} {np.mean([len(m) for m in masks]) / 1024:9.0f} "
          f"{(time.thread_time() - start) / 20 / len(masks) * 1e3:9.2f}")


def throughput(source, stage: str, config: DurianSamples, workers: list[int], seconds: float) -> None:
    """Print samples per second for each number of worker processes (0: two threads)."""
    pictures = config.frames + 2
    peer = bare(source.directory) * pictures
    print(f"\nstage {stage}: {pictures} pictures a sample of {config.image_size} px; bare decoding of them takes "
          f"{peer * 1e3:.1f} ms")
    print("workers        samples/s   bare decoding/s   share of it")
    batch = 8 if stage == "1" else 2
    for count in workers:
        loader = iter(make_loader(source, config, seed=0, batch_size=batch, worker_count=count,
                                  threads=1 if count else 2, prefetch=2))
        for _ in range(4 + 2 * count):
            next(loader)
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(loader)
            done += batch
        rate = done / (time.perf_counter() - start)
        cores = min(count or 2, psutil.cpu_count())
        print(f"{count or '0 (2 threads)':<13}  {rate:9.1f}   {cores / peer:15.1f}   {rate * peer / cores:11.0%}")
        del loader
        gc.collect()


def parts(source, stage: str, config: DurianSamples) -> None:
    """Print the time per sample of each function of the sample pipeline, as CPU time of one thread."""
    import cProfile
    import pstats

    samples = 40 if stage == "1" else 10
    config.sample(source, 0, np.random.default_rng(0))
    start = time.thread_time()
    for index in range(samples):
        config.sample(source, index % len(source), np.random.default_rng(index))
    whole = (time.thread_time() - start) / samples * 1e3
    profile = cProfile.Profile()
    profile.enable()
    for index in range(samples):
        config.sample(source, index % len(source), np.random.default_rng(index))
    profile.disable()
    named = {function: numbers for (file, _, function), numbers in pstats.Stats(profile).stats.items()
             if "durian_jax" in file}
    print(f"one sample: {whole:.1f} ms on one thread, of which (profiled)")
    for label, functions in (("decoding pictures and masks", ["_picture"]),
                             ("moving pictures and masks", ["moved", "moved_field", "_moved"]),
                             ("growing regions", ["dilate"]), ("degrading references", ["_degraded"]),
                             ("opening records", ["record", "read_record"]), ("choosing donors", ["_donor"])):
        total = sum(named[name][3] for name in functions if name in named) / samples * 1e3
        print(f"  {label:28} {total:6.1f} ms")


class Slow(RecordedClips):
    """A dataset with one slow shard, as on a busy disk."""

    def record(self, index):
        if self._find(index)[0] == 0:
            time.sleep(0.05)
        return super().record(index)

    def __reduce__(self):
        return Slow, (str(self.directory),)


def slow_shard(source, seconds: float) -> None:
    """Print how much one slow shard delays the batches."""
    print("\none slow shard (50 ms a record more)   samples/s   longest wait for a batch")
    config = replace(STAGES["1"], image_size=source.about["height"] - 2 * source.about["margin"])
    for name, kind in (("no", RecordedClips), ("yes", Slow)):
        loader = iter(make_loader(kind(source.directory), config, seed=0, batch_size=8, worker_count=2, threads=4,
                                  prefetch=4))
        for _ in range(12):
            next(loader)
        start, done, gaps = time.perf_counter(), 0, []
        while time.perf_counter() - start < seconds:
            before = time.perf_counter()
            next(loader)
            gaps.append(time.perf_counter() - before)
            done += 8
        print(f"{name:>36}   {done / (time.perf_counter() - start):9.1f}   {max(gaps) * 1e3:20.0f} ms")
        del loader
        gc.collect()


def memory(source, samples: int) -> None:
    """Print the memory of this process and its workers over many samples."""
    config = replace(STAGES["1"], image_size=source.about["height"] - 2 * source.about["margin"])
    loader = iter(make_loader(source, config, seed=0, batch_size=8, worker_count=2, threads=1, prefetch=2))
    me = psutil.Process()
    print("\nsamples   MiB of this process and its workers")
    for batch in range(samples // 8 + 1):
        next(loader)
        if batch % max(1, samples // 80) == 0:
            own = [me, *me.children(recursive=True)]
            print(f"{batch * 8:7d}   {sum(p.memory_info().rss for p in own) / 2**20:8.0f}", flush=True)


if __name__ == "__main__":
    main()
