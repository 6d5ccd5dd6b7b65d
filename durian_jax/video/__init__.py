"""Read and write pictures and video as uint8 RGB arrays.

H x W pixels, T frames, channels last. PyAV (FFmpeg) handles video, OpenCV handles pictures. A user's file
that is wrong or damaged raises an `InputError` that names the file.
"""

from durian_jax.video.given import local_path
from durian_jax.video.limits import check_length, picture_size
from durian_jax.video.pictures import IMAGE_SUFFIXES, PHOTO_SUFFIXES, read_image, write_image
from durian_jax.video.provenance import Provenance, read_provenance
from durian_jax.video.reading import VIDEO_SUFFIXES, VideoInfo, iterate_video, probe_video, read_video
from durian_jax.video.writing import check_crf, there_and_back, video_writer, write_video

__all__ = ["IMAGE_SUFFIXES", "PHOTO_SUFFIXES", "VIDEO_SUFFIXES", "Provenance", "VideoInfo", "check_crf",
           "check_length", "iterate_video", "local_path", "picture_size", "probe_video", "read_image",
           "read_provenance", "read_video", "there_and_back", "video_writer", "write_image", "write_video"]
