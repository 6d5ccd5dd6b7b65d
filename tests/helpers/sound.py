"""Videos with sound."""

import av
import numpy as np


def with_sound(path, frames, fps=25, seconds=2.0, codec="aac"):
    """Write a video whose sound is a 440 Hz tone."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        sound = output.add_stream(codec, rate=44100)
        for image in frames:
            output.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(video.encode())
        tone = np.sin(np.arange(int(44100 * seconds)) * 2 * np.pi * 440 / 44100)
        layout, kind = ("mono", "s16") if codec.startswith("pcm") else ("stereo", "fltp")
        samples = tone if kind == "fltp" else tone * 20000
        samples = np.stack([samples] * (2 if layout == "stereo" else 1))
        for start in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, start:start + 1024],
                                         np.float32 if kind == "fltp" else np.int16)
            frame = av.AudioFrame.from_ndarray(block, format=kind, layout=layout)
            frame.sample_rate, frame.pts = 44100, start
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
