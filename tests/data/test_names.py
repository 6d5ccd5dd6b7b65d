"""Names of people and clips come from files of others. They never become a path."""

import os

import numpy as np
import pytest

from durian_jax.data.dataset_sheet import dataset_sheet
from durian_jax.data.dataset_writer import write_clips
from durian_jax.data.mask_files import export_masks, replace_masks
from durian_jax.data.recorded_clips import RecordedClips
from durian_jax.prepare.inputs import find_inputs
from durian_jax.prepare.user_masks import UserMasks
from durian_jax.video import write_image
from tests.helpers.prepare import draw

NAMES = ["../../evil", "/tmp/evil", "..", "a/b", "~root", "$(touch evil)", "nul\\con", "a\nb", "<b>", "é" * 90]


def everything(folder):
    """All files below a folder, relative."""
    return sorted(os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder)
                  for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_stays_inside_of_the_dataset(tmp_path, name):
    """Writing, the sheet, export and replacement of masks write the same files for any name."""
    trees = []
    for number, identity in enumerate(("anna", name)):
        home = tmp_path / str(number) / "deep" / "home"
        clip = draw(3, 48, 2)
        write_clips(home / "data", [type(clip)(clip.frames, clip.keypoints, clip.masks, clip.fps, identity)])
        clips = RecordedClips(home / "data")
        stored = clips.outline(0).name
        assert stored == clips.outline(0).identity == identity.replace("\n", " ") and clips.read(0).identity == identity
        export_masks(home / "data", stored, home / "masks")
        replace_masks(home / "data", stored, home / "masks")
        page = dataset_sheet(home / "data", home / "page" / "sheet.html")
        assert "<b>" not in page.read_text().partition("<tbody")[2]
        trees.append(everything(tmp_path / str(number)))
    assert trees[0] == trees[1] and all(path.startswith("deep/home/") for path in trees[0])


def test_names_of_a_manifest_are_safe_parts_of_paths(tmp_path):
    lines = []
    for number, name in enumerate(name for name in NAMES if name.isprintable()):
        (tmp_path / f"{number}.mp4").touch()
        lines.append(f'{number}.mp4,"{name}"')
    (tmp_path / "list.csv").write_text("path,identity\n" + "\n".join(lines) + "\n")
    for video, name in zip(find_inputs([tmp_path / "list.csv"]), (n for n in NAMES if n.isprintable()), strict=True):
        assert video.identity == name and "/" not in video.name and not video.name.startswith(".")


def test_masks_are_looked_for_in_their_folder_only(tmp_path):
    write_image(tmp_path / "evil" / "hair" / "0.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "masks").mkdir()
    assert UserMasks(tmp_path / "masks").kinds("../evil") == ()
