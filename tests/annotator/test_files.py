"""The annotator's model files: found, unpacked, refused."""

import hashlib
import zipfile

import pytest

from durian_jax.annotator import files
from durian_jax.errors import InputError


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with small files in the place of the models."""
    contents = {name: name.encode() for name in files.MODELS}
    monkeypatch.setattr(files, "MODELS", {name: (module, hashlib.sha256(contents[name]).hexdigest())
                                          for name, (module, _) in files.MODELS.items()})
    path = tmp_path / "mediapipe.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, (module, _) in files.MODELS.items():
            archive.writestr(f"mediapipe/modules/{module}/{name}", contents[name])
    return path


def test_models_come_out_of_the_wheel(wheel, tmp_path, monkeypatch):
    folder = files.install_models(tmp_path / "models", wheel)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files.MODELS)
    monkeypatch.setenv("DURIAN_ANNOTATOR", str(folder))
    assert files.find_models() == folder
    wheel.unlink()
    assert files.install_models(folder, wheel) == folder, "complete folders are kept"


def test_missing_models_say_how_to_get_them(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FOLDER", "no-such-folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DURIAN_ANNOTATOR", raising=False)
    with pytest.raises(InputError, match="run `durian annotator` once"):
        files.find_models()
    monkeypatch.setenv("DURIAN_ANNOTATOR", str(tmp_path))
    with pytest.raises(InputError, match="expected a folder of `durian annotator`.*face_detection_short_range"):
        files.find_models()


def test_damaged_files_are_refused(wheel, tmp_path, monkeypatch):
    folder = files.install_models(tmp_path / "models", wheel)
    (folder / "selfie_segmentation.tflite").write_bytes(b"cut")
    monkeypatch.setenv("DURIAN_ANNOTATOR", str(folder))
    with pytest.raises(InputError, match="selfie_segmentation.tflite is damaged; delete the folder"):
        files.find_models()
    files.install_models(folder, wheel)
    assert files.find_models() == folder, "the command repairs the folder"
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        for name, (module, _) in files.MODELS.items():
            archive.writestr(f"mediapipe/modules/{module}/{name}", "another model")
    with pytest.raises(InputError, match="is not the model of mediapipe==0.10.21"):
        files.install_models(tmp_path / "b", other)
    wheel.write_text("no zip")
    with pytest.raises(InputError, match="expected the wheel of mediapipe==0.10.21"):
        files.install_models(tmp_path / "c", wheel)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PACKAGE", "durian-no-such-package==0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match="with pip failed .*; get its wheel .* `durian annotator --wheel FILE`"):
        files.install_models(tmp_path / "models", progress=False)
