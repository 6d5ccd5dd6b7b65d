"""ArrayRecord shards: written atomically, read record by record."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from durian_jax.data.clip_record import DecodeError
from durian_jax.files import full_disk_explained, temporary


@contextmanager
def shard_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that adds a record. The file appears when the block ends without an error.

    Raises:
        DiskFull: the disk is full.
    """
    name = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
    with full_disk_explained(path.parent), temporary(name):
        # Compression would not shrink the records. Groups of one record make each record readable alone.
        writer = ArrayRecordWriter(str(name), "group_size:1,uncompressed")
        try:
            yield writer.write
            writer.close()
        finally:
            if writer.is_open():
                with suppress(RuntimeError):  # it has failed before
                    writer.close()
        os.replace(name, path)


def open_shard(path: Path) -> ArrayRecordReader:
    """Return a reader of single records. It does not read ahead, because Grain already prefetches.

    Raises:
        DecodeError: a missing or damaged shard.
    """
    try:
        return ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0",
                                 file_reader_buffer_size=32768)
    except (RuntimeError, ValueError) as error:
        raise DecodeError(f"{path}: {error}") from error


def read_row(reader: ArrayRecordReader, path: Path, row: int) -> bytes:
    """Read one record.

    Args:
        reader: reader of the shard.
        path: path of the shard, for error messages.
        row: index of the record in the shard.

    Raises:
        DecodeError: a damaged or missing record.
    """
    try:
        return reader.read([row])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise DecodeError(f"{path}, record {row}: {error}") from error
