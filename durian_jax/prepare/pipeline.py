"""Turn folders of ordinary videos into a dataset of clips with one Apache Beam pipeline.

    videos | annotate each | plan shards | write each shard | index

The steps exchange their results through the output folder (`work`). All workers must see it under the same path: on a
local disk, or on a shared disk of a cluster.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from durian_jax.annotator.files import find_models
from durian_jax.data.corrections import Corrections, has_corrections
from durian_jax.data.dataset_writer import finish_dataset, part_name, prepare_directory, refuse_to_replace, write_shard
from durian_jax.data.outlines import Outlines, save_outlines
from durian_jax.data.recorded_clips import read_shard
from durian_jax.errors import DiskFull, InputError
from durian_jax.files import check_folder, created_folder
from durian_jax.installation import install_command
from durian_jax.interruption import Terminated
from durian_jax.prepare.clips import Identify, Settings, Tools
from durian_jax.prepare.inputs import VideoInput, find_inputs
from durian_jax.prepare.report import finished_before, write_report
from durian_jax.prepare.work import Work
from durian_jax.prepare.worker import RunStopped, Worker, WorkerDied
from durian_jax.progress import messages_into, progress_bar

# Importing Beam logs warnings about optional parts that are not needed here.
_before = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise InputError("durian prepare needs Apache Beam, which is not installed; run "
                     + install_command("prepare")) from error
finally:
    logging.disable(_before)

def prepare(inputs: Sequence[str | Path], out: str | Path, settings: Settings | None = None, *,
            layout: str = "auto", overwrite: bool = False, max_rejected: int | None = None,
            workers: int = 1, shard_clips: int = 64, beam_options: Sequence[str] = (),
            identify: Identify | None = None) -> dict:
    """Turn videos into a dataset.

    An unusable video is rejected with a reason, and the other videos continue. After a crash, the same call continues
    with the unfinished videos. Masks that a person has corrected, in an earlier dataset in `out` or in those of
    `settings.corrections`, are kept. `out` receives the dataset, report.json (settings, counts, one entry per video)
    and rejected.jsonl (`file`, `name` and `reason` per line).

    Args:
        inputs: videos, folders, glob patterns, manifests; see `inputs.find_inputs`.
        out: folder for the dataset; created if missing.
        settings: how videos become clips; None: the defaults.
        layout: see `inputs.LAYOUTS`.
        overwrite: replace a finished dataset in `out`.
        max_rejected: stop when more than this many videos have been rejected; None: never stop.
        workers: number of processes on this machine, each with its own annotator.
        shard_clips: number of clips per shard.
        beam_options: options of Apache Beam, such as --runner=DataflowRunner; they replace `workers`.
        identify: names the person of each clip (`clips.Identify`); None: one person per file, or per tracked face if
            a video shows several faces at once.

    Returns:
        The content of report.json: `accepted` and `rejected` (numbers of videos), `clips`, `frames`, `files`
        (accepted videos with their clips, evidence and skipped frames), `rejected_files`.

    Raises:
        InputError: an input does not exist, the output cannot be written or already holds a dataset, or the annotator
            is not installed. Also, too many videos are rejected or no video is usable; rejected.jsonl then says why.
    """
    settings = settings or Settings()
    if min(workers, shard_clips) < 1 or (max_rejected is not None and max_rejected < 0):
        raise InputError("expected workers and shard_clips of at least 1 and max_rejected of at least 0, got "
                         f"{workers}, {shard_clips} and {max_rejected}")
    out = Path(os.path.abspath(check_folder(out)))
    if has_corrections(out) and str(out) not in settings.corrections:
        settings = replace(settings, corrections=(*settings.corrections, str(out)))
    videos = [video for video in find_inputs(inputs, layout) if not video.place.startswith(f"{out}/")]
    if not videos:
        raise InputError(f"every input lies in the output folder {out}; name another output")
    work = Work(out, settings)
    if not overwrite and not work.folder.exists():  # its existence means that a run is unfinished
        if done := finished_before(out, videos, settings):
            return done
        refuse_to_replace(out)
    _check_tools(settings, videos)
    start = time.perf_counter()
    with created_folder(out), work.held():
        prepare_directory(out)
        work.forget_rejected()
        keys = [work.key(video) for video in videos]
        annotate = _Annotate(work, settings, max_rejected, set(keys), identify)
        assemble = _Assemble(work, out, keys, settings, shard_clips, max_rejected)
        # Beam's workers write pages of their internal state to standard error.
        with _progress(work, set(keys)), (work.folder / "beam.log").open("ab") as log, messages_into(log):
            _run(_pipeline(videos, keys, annotate, assemble, _options(workers, beam_options)), work)
        report = write_report(out, work, videos, keys, settings, max_rejected, time.perf_counter() - start)
        if settings.corrections:
            Corrections(settings.corrections).copy_to(out)
        return report


def _run(pipeline: beam.Pipeline, work: Work) -> None:
    """Run the pipeline.

    Raises:
        InputError: it cannot go on: a worker of Beam has died, the disk is full, or the annotator cannot be loaded.
        KeyboardInterrupt: the run was stopped.
    """
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # Beam has no exception class for failures of workers
        text = str(error).strip()
        for stop in (Terminated, KeyboardInterrupt):
            if stop.__name__ in text:
                raise stop from error
        words = work.stopped or _BEAM_WORDS.sub("", (text.splitlines() or [type(error).__name__])[-1])
        raise InputError(f"the preparation stopped: {' '.join(words.split())}. Finished videos are kept; repeat the "
                         "command to continue") from error


# What Beam adds before and after the text of an exception.
_BEAM_WORDS = re.compile(r"^[\w.]+(Error|Full|Stopped|Exception): | \[while running .*\]$")


def _check_tools(settings: Settings, videos: list[VideoInput]) -> None:
    """Raise InputError before any work if a tool or a folder in the settings is not usable."""
    find_models()
    tools = Tools(settings)
    if tools.masks is not None:
        if problems := tools.masks.problems([video.name for video in videos]):
            raise InputError("; ".join(problems))
        if not any(tools.masks.kinds(video.name) for video in videos):
            raise InputError(f"{settings.masks}: expected folders named after videos ({videos[0].name}, ...), found "
                             "none; put masks into VIDEO/KIND/FRAME.png")


# --- the pipeline -------------------------------------------------------------------------------------

def _pipeline(videos, keys, annotate: "_Annotate", assemble: "_Assemble", options: PipelineOptions):
    pipeline = beam.Pipeline(options=options)
    (pipeline | "videos" >> beam.Create(list(zip(keys, videos, strict=True)))
     | "spread videos" >> beam.Reshuffle()
     | "annotate" >> beam.ParDo(annotate)
     | "all videos" >> beam.combiners.ToList()
     | "plan shards" >> beam.FlatMap(assemble.plan)
     | "spread shards" >> beam.Reshuffle()
     | "write shards" >> beam.Map(assemble.write)
     | "all shards" >> beam.combiners.ToList()
     | "index" >> beam.Map(assemble.finish))
    return pipeline


def _options(workers: int, given: Sequence[str]) -> PipelineOptions:
    """Return Beam's options: processes on this machine, unless others are given."""
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    here = ["--runner=FnApiRunner", f"--direct_num_workers={workers}",
            f"--direct_running_mode={'multi_processing' if workers > 1 else 'in_memory'}"]
    return PipelineOptions(["--default_sdk_harness_log_level=ERROR", "--job_name=durian-prepare", *(given or here)])


# A video is at fault if this many processes died by themselves while they worked on it.
_MOST_DEATHS = 2


@contextmanager
def _stopping(work: Work) -> Iterator[None]:
    """Record an error that ends the run, because Beam passes on its text only in part."""
    try:
        yield
    except InputError as error:
        work.stop(str(error))
        raise


class _Annotate(beam.DoFn):
    """Make the clips of one video, unless it is finished already."""

    def __init__(self, work: Work, settings: Settings, max_rejected: int | None, keys: set[str],
                 identify: Identify | None):
        self._work, self._settings, self._limit, self._keys = work, settings, max_rejected, keys
        self._identify, self._worker = identify, None

    def process(self, element):
        key, video = element
        if self._work.outcome(key) == (None, None) and not self._too_many():
            with _stopping(self._work):
                try:
                    self._work.accept(key, self._entry(video, key))
                except (RunStopped, DiskFull):
                    raise
                except InputError as error:
                    self._work.reject(key, str(error))
        yield key

    def _entry(self, video: VideoInput, key: str) -> dict:
        for _ in range(_MOST_DEATHS):
            self._worker = self._worker or Worker(self._settings, self._identify)
            try:
                return self._worker.prepare(video, self._work.shard(key))
            except WorkerDied:
                self.teardown()
        raise InputError(f"{video.path}: two processes died while they worked on this video; check that the file "
                         "plays, or use a machine with more memory")

    def teardown(self):
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _too_many(self) -> bool:
        return self._limit is not None and self._work.finished(self._keys)[1] > self._limit


class _Assemble:
    """Combine the clips of all videos in the order of the inputs."""

    def __init__(self, work: Work, out: Path, keys: list[str], settings: Settings, shard_clips: int,
                 max_rejected: int | None):
        self._work, self._out, self._keys, self._settings, self._size = work, out, keys, settings, shard_clips
        self._limit = max_rejected

    def plan(self, _: list[str]) -> Iterator[tuple[int, list[tuple[str, int]]]]:
        """Yield each shard's number and its clips as (video's key, row).

        Yield nothing if a video is unfinished or too many videos are rejected.
        """
        outcomes = [self._work.outcome(key) for key in self._keys]
        rejected = sum(reason is not None for _, reason in outcomes)
        if (None, None) in outcomes or (self._limit is not None and rejected > self._limit):
            return
        clips = [(key, row) for key, (entry, _) in zip(self._keys, outcomes, strict=True) if entry
                 for row in range(len(entry["clips"]))]
        for number, first in enumerate(range(0, len(clips), self._size)):
            yield number, clips[first:first + self._size]

    def write(self, shard: tuple[int, list[tuple[str, int]]]) -> int:
        """Write one shard and its outlines."""
        number, clips = shard
        with _stopping(self._work):
            outlines = write_shard(self._out / part_name(number), self._records(clips))
            save_outlines(self._work.folder / f"shard-{number:05d}.safetensors", [outlines])
        return number

    def _records(self, clips: list[tuple[str, int]]) -> Iterator[bytes]:
        for key, row in clips:
            yield read_shard(self._work.shard(key), row)

    def finish(self, shards: list[int]) -> None:
        """Rename the shards and write the index."""
        if shards:
            side = self._settings.size + 2 * self._settings.margin
            files = [Outlines(self._work.folder / f"shard-{number:05d}.safetensors") for number in range(len(shards))]
            outlines = [[file.complete(row) for row in range(len(file))] for file in files]
            with _stopping(self._work):
                finish_dataset(self._out, outlines, (side, side), self._settings.margin,
                               {"source": "durian prepare", "encoding": self._settings.encoding,
                                "settings": asdict(self._settings)})
            self._work.mark_assembled()


# --- progress -----------------------------------------------------------------------------------------

@contextmanager
def _progress(work: Work, keys: set[str]):
    """Show a progress bar that counts the files in the work folder, so that it works with any Beam runner."""
    stop = threading.Event()

    def count() -> int:
        return sum(work.finished(keys))

    done = count()
    screen = os.fdopen(os.dup(2), "w")
    bar = progress_bar(total=len(keys), initial=done, desc="preparing", unit="video", file=screen)

    def watch():
        while not stop.wait(max(1.0, len(keys) / 5000)):  # listing a large folder takes time
            bar.update(count() - bar.n)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        bar.update(count() - bar.n)
    finally:
        stop.set()
        thread.join()
        bar.close()
        screen.close()
