"""Writing files: complete or not at all."""

import json
import subprocess
import sys

import numpy as np

from durian_jax.files import writable_file, write_json


def test_writing_json_needs_no_video_library():
    code = "import sys, durian_jax.files; assert not {'av', 'cv2', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_json_has_no_nan_and_appears_complete(tmp_path):
    path = writable_file(tmp_path / "new" / "x.json", (".json",))
    write_json(path, {"a": float("nan"), "b": np.float32(0.5), "c": (1, np.int64(2)), "d": path})
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": [1, 2], "d": str(path)}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
