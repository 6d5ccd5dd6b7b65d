"""Train the segmentation networks on the drawn masks, or networks that have not seen a part of the people.

    python -m benchmarks.train_masks FOLDER --out runs/masks/all
    for fold in 0 1 2 3; do python -m benchmarks.train_masks FOLDER --fold $fold --out runs/masks/$fold; done

FOLDER holds the photos and clips that tests/data/true_masks.json names. --fold leaves a quarter of the people out;
`benchmarks.masks --masker segmentation:runs/masks/{fold}` judges every person by the networks that have not seen it.
"""

import argparse
import warnings
from pathlib import Path

import cv2
import numpy as np

from benchmarks.masks import FOLDS, Case, read_cases
from durian_jax.annotator import Annotator
from durian_jax.faces.topology import ATTRIBUTE_KINDS
from durian_jax.segmentation.examples import READ, Example
from durian_jax.segmentation.eye_examples import EyeExample, eye_example, glasses_worn
from durian_jax.segmentation.training import TrainingSettings, train


def example_of_case(case: Case) -> Example:
    """Return the training example of a drawn picture."""
    def fit(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask.astype(np.uint8) * 255, (READ, READ), interpolation=cv2.INTER_AREA) > 127
    masks = np.stack([fit(case.true[kind]) for kind in ATTRIBUTE_KINDS], axis=-1)
    known = np.stack([~fit(case.open[kind]) for kind in ATTRIBUTE_KINDS], axis=-1)
    person = cv2.resize(case.person, (READ, READ), interpolation=cv2.INTER_AREA)
    return Example(cv2.resize(case.frame, (READ, READ), interpolation=cv2.INTER_AREA), case.keypoints, person, masks,
                   known)


def eyes_of_case(case: Case) -> list[EyeExample]:
    """Return examples of the eyes in all frames of a drawn picture's clip."""
    worn = glasses_worn(case.true["glasses"], case.keypoints)
    return [eye_example(frame, points, worn)
            for frame, points in zip(case.clip.frames, case.clip.keypoints, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, choices=range(FOLDS), help="leave this quarter of the people out")
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cases = [case for case in read_cases(options.folder, "heuristic", Annotator())
             if options.fold is None or case.fold != options.fold]
    people: dict[str, list[EyeExample]] = {}
    for case in cases:
        people.setdefault(case.row["person"], []).extend(eyes_of_case(case))
    losses = train([example_of_case(case) for case in cases], list(people.values()), options.out,
                   TrainingSettings(steps=options.steps))
    print(f"{options.out}: {len(cases)} pictures, loss {np.mean(losses[:100]):.3f} at first, "
          f"{np.mean(losses[-100:]):.3f} at last")


if __name__ == "__main__":
    main()
