"""Rendered frames per second of the procedural world, one process, one thread.

    python benchmarks/synthetic.py
"""

import time

import cv2

from durian_jax.synthetic import render, sample_motion, sample_person

CLIPS, FRAMES = 12, 16


def main() -> None:
    cv2.setNumThreads(1)
    people = [sample_person("train", index) for index in range(CLIPS)]
    motions = [sample_motion("train", index, FRAMES) for index in range(CLIPS)]
    render(people[0], motions[0], 64)  # warm-up
    print(f"{'size':>6} {'frames/s':>9}   ({CLIPS} clips of {FRAMES} frames, processor time)")
    for size in (64, 128, 256, 512):
        start = time.process_time()
        for person, motion in zip(people, motions, strict=True):
            render(person, motion, size)
        print(f"{size:>6} {CLIPS * FRAMES / (time.process_time() - start):>9.0f}")


if __name__ == "__main__":
    main()
