"""ArrayRecord shards: written whole or not at all, read record by record."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from durian_jax.data.clip_record import DecodeError


@contextmanager
def shard_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Gives a function that adds a record; the file appears when the block ends without an error."""
    temporary = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
    # Records are compressed already, or do not shrink. A group of one makes every record readable by itself.
    writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
    try:
        yield writer.write
        writer.close()
        os.replace(temporary, path)
    finally:
        if writer.is_open():
            writer.close()
        temporary.unlink(missing_ok=True)


def open_shard(path: Path) -> ArrayRecordReader:
    """A reader of single records; Grain makes them ahead, not the file system.

    Raises:
        DecodeError: no shard, or a damaged one.
    """
    try:
        return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0",
                                 file_reader_buffer_size=32768)
    except (RuntimeError, ValueError) as error:
        raise DecodeError(f"{path}: {error}") from error


def read_row(reader: ArrayRecordReader, path: Path, row: int) -> bytes:
    """One record.

    Args:
        path: of the shard, for errors.

    Raises:
        DecodeError: damaged.
    """
    try:
        return reader.read([row])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise DecodeError(f"{path}, record {row}: {error}") from error
