"""dataset.json of a folder of clips: its fields are checked before anything else of the folder is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from durian_jax.errors import InputError, shown
from durian_jax.fields import Count, FieldError, Pixels, Range, check_fields, in_file, read_fields
from durian_jax.files import read_json

FORMAT = "portrait_clips-1"
ABOUT_FILE = "dataset.json"
_ADVICE = "write the dataset again with `durian prepare` or `durian synthesize`"


@dataclass(frozen=True)
class About:
    """The fields of dataset.json that the program reads; others, such as the settings of `durian prepare`, are kept."""

    format: str
    clips: Count
    frames: Count  # of all clips
    people: Count
    shards: Count
    height: Pixels  # of the stored frames, with their margin
    width: Pixels
    margin: Annotated[int, Range(0, 4096)]
    encoding: str = "png"  # key of `clip_record.ENCODINGS`
    clips_with: Mapping[str, Annotated[int, Range(0, 10**9)]] = field(default_factory=dict)  # of each attribute kind
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    expanded: Mapping | None = None  # progress of `durian expand`
    paired: Mapping | None = None  # progress of `durian expand --pairs`

    def __post_init__(self):
        check_fields(self)
        if 2 * self.margin >= min(self.height, self.width):
            raise FieldError("margin", f"expected less than half of the frames' {self.width} x {self.height} pixels, "
                             f"found {self.margin}")


def read_about(directory: Path) -> dict[str, Any]:
    """Return all fields of a folder's dataset.json.

    Raises:
        InputError: a damaged file or another format; names the field.
    """
    path = directory / ABOUT_FILE
    values = read_json(path, _ADVICE)
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, found {shown(values.get('format'))}; write the dataset "
                         "again, or update durian-jax if it is newer")
    known = {one.name for one in fields(About)}
    with in_file(path, _ADVICE):
        read_fields(About, {name: value for name, value in values.items() if name in known})
    return values
