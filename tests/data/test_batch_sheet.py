"""The picture of training samples."""

import numpy as np

from durian_jax.data import SyntheticClips
from durian_jax.data.batch_sheet import batch_sheet
from durian_jax.data.samples.durian import DurianSamples


def test_the_batch_sheet_shows_the_models_inputs():
    source, count, size = SyntheticClips("train", 4, 5, 64, fps=5), 3, 64
    config = DurianSamples(image_size=size, frames=2, absent_probability=0.0, augment_probability=0.0)
    sheet = batch_sheet(source, config, 1, count)
    side, gap, wide = 2 * size, 2, 10  # small pictures are enlarged twofold
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * wide + 10 * side + 3 * gap + 6 * wide
    assert sheet.shape[0] == 24 + count * side + (count - 1) * gap + wide
    np.testing.assert_array_equal(sheet, batch_sheet(source, config, 1, count))
    np.testing.assert_array_equal(sheet[:150], batch_sheet(source, config, 1, 2)[:150])  # the first samples of a run
    assert (sheet != batch_sheet(source, config, 2, count)).any()
    assert (sheet[:24] < 100).any()  # captions
    two = 2 * side + gap + wide  # columns of two frames
    starts = wide + np.array([0, two, 2 * two, *(3 * two + np.arange(4) * (side + wide))])
    for row in range(count):
        y = 24 + row * (side + gap)
        frame, worn, keypoints, portrait, region, attribute, mask = (
            sheet[y:y + side, x:x + side].astype(int) for x in starts)
        for picture, shown in ((portrait, region < 128), (attribute, mask > 128)):
            assert set(np.unique(shown)) == {False, True}
            assert np.abs(picture[~shown] - 128).max() <= 1  # mid grey
            assert (np.abs(picture[shown] - 128).max(-1) > 1).mean() > 0.8
        assert {*np.unique(region), *np.unique(mask)} == {*np.unique(worn)} == {0, 255}
        assert np.median(keypoints) == 0 and keypoints.max() > 200 and frame.std() > 20
