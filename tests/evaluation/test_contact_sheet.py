"""Contact sheets and side-by-side videos."""

import numpy as np

from durian_jax.evaluation.contact_sheet import Section, draw_sheet, side_by_side, split_picture


def test_sheets_and_videos_show_their_pictures():
    red, blue = np.full((16, 16, 3), (255, 0, 0), np.uint8), np.full((16, 16, 3), (0, 0, 255), np.uint8)
    page = draw_sheet("Title", [Section("Rows", ("one", "two"), [("label", (red, blue))])], picture=64)
    assert (page == (255, 0, 0)).all(-1).sum() > 0.95 * 64 * 64
    assert (page == (0, 0, 255)).all(-1).sum() > 0.95 * 64 * 64
    video = side_by_side([("still", red[None]), ("moving", np.stack([blue, red, blue]))], picture=32)
    assert video.shape[0] == 3 and video.shape[1] % 2 == video.shape[2] % 2 == 0
    assert [int((frame == (255, 0, 0)).all(-1).sum() > 32 * 32) for frame in video] == [0, 1, 0]
    halves = split_picture([red, blue])
    assert halves.shape == red.shape
    assert (halves[0, 0] == red[0, 0]).all() and (halves[0, -1] == blue[0, 0]).all()
