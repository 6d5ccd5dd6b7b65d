"""Samples, small datasets and their pages, for the tests of `durian_jax.data`."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from durian_jax.commands.main import main
from durian_jax.data import dataset_writer as records
from durian_jax.data.clip_record import read_record, write_record
from durian_jax.data.dataset_sheet import COLUMNS
from durian_jax.data.samples.durian import DurianSamples

CONFIG = DurianSamples(image_size=64, frames=2, attributes=2, second_probability=0.5)
STILL = dict(attribute_shift=0.0, attribute_scale=0.0, attribute_rotation=0.0, attribute_brightness=0.0,
             portrait_shift=0.0, portrait_scale=0.0, portrait_rotation=0.0)

FRAMES, SIZE, MARGIN = 6, 64, 8
HOSTILE = "<script>alert(1)</script>\"'&"


def sample(source, index, seed, config=CONFIG):
    """Make one training sample with a fresh random generator."""
    return config.sample(source, index, np.random.default_rng(seed))


def assert_same(a: dict, b: dict):
    """Compare two samples or batches exactly."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Page(HTMLParser):
    """The content of a page: words, cells and pictures of its rows, and all tags."""

    def __init__(self, path: Path):
        super().__init__()
        self.text, self.tags, self.bodies, self._cell = path.read_text(), [], [], None
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "tbody" and "data-words" in attributes:
            self.bodies.append({"words": attributes["data-words"], "cells": [], "keys": [], "picture": None,
                                "error": ""})
        if self.bodies and tag == "td":
            self._cell = "cells" if "data-sort" in attributes else None
            if self._cell:
                self.bodies[-1]["keys"].append(attributes["data-sort"])
                self.bodies[-1]["cells"].append("")
        if self.bodies and tag == "span" and attributes.get("class") == "error":
            self._cell = "error"
        if self.bodies and tag == "img":
            assert attributes["loading"] == "lazy"
            self.bodies[-1]["picture"] = attributes["src"]

    def handle_endtag(self, tag):
        if tag in ("td", "span"):
            self._cell = None

    def handle_data(self, data):
        if self._cell == "cells":
            self.bodies[-1]["cells"][-1] += data
        elif self._cell == "error":
            self.bodies[-1]["error"] += data

    @property
    def clips(self):
        return [body for body in self.bodies if len(body["cells"]) == len(COLUMNS)]

    @property
    def rejected(self):
        return [body for body in self.bodies if len(body["cells"]) != len(COLUMNS)]


def column(name: str) -> int:
    """Return the index of a page's column."""
    return [entry.name for entry in COLUMNS].index(name)


def write_dataset(directory: Path, clips, provenances, damage=()) -> Path:
    """Write shards of two clips each. The first frame of the clips in `damage` is damaged."""
    def record(number):
        record = write_record(clips[number], "png", provenances[number])
        if number in damage:
            start = record.index(read_record(record).compressed("frames", 0))
            record = record[:start] + bytes(40) + record[start + 40:]
        return record

    directory = records.prepare_directory(directory)
    shards = [records.write_shard(directory / records.part_name(number), map(record, rows))
              for number, rows in enumerate(np.array_split(np.arange(len(clips)), -(-len(clips) // 2)))]
    records.finish_dataset(directory, shards, (SIZE, SIZE), clips[0].margin, {"source": "a & b", "settings": {
        "fps": 25.0}})
    return directory


def durian(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
