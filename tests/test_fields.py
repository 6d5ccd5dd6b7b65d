"""Fields of dataclasses: types, ranges and names are checked, and the message says what was expected and found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import pytest

from durian_jax.data.about import About
from durian_jax.data.samples.durian import DurianSamples
from durian_jax.data.samples.svdp import SVDPSamples
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.fields import (
    LEVELS,
    OPTIONAL,
    FieldError,
    Items,
    Layers,
    OneOf,
    Range,
    Share,
    UnknownField,
    Width,
    check_complete,
    check_fields,
    inside,
    read_fields,
    read_section,
)
from durian_jax.models.codecs.config import CODECS
from durian_jax.models.durian.config import DurianConfig
from durian_jax.models.image_encoder_config import ImageEncoderConfig
from durian_jax.models.mmdit.config import MMDiTConfig
from durian_jax.models.svdp.config import SVDPConfig
from durian_jax.models.unet.config import UNetConfig


@dataclass(frozen=True)
class Inner:
    share: Share = 0.5
    new: Annotated[int, OPTIONAL] = 1

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    layers: Layers = 1
    widths: Annotated[tuple[Width, ...], LEVELS] = (1,)
    scale: float | Annotated[tuple[Share, ...], Items(1, 3)] = 1.0
    sizes: Mapping[str, int] | None = None
    kind: Annotated[str, OneOf(("x", "y"))] | None = None
    pair: tuple[int, int] = (1, 2)
    switch: bool = False

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(("values", "message"), [
    ({"layers": 10**9}, "layers: expected an integer from 1 to 256, found 1000000000"),
    ({"layers": True}, "layers: expected an integer from 1 to 256, found True"),
    ({"layers": 2.0}, "layers: expected an integer from 1 to 256, found 2.0"),
    ({"layers": "2"}, "layers: expected an integer from 1 to 256, found '2'"),
    ({"switch": 1}, "switch: expected true or false, found 1"),
    ({"switch": None}, "switch: expected true or false, found None"),
    ({"widths": ()}, "widths: expected a list of 1 to 8 entries, each an integer from 1 to 65536, found ()"),
    ({"widths": (8, 0)}, "widths[1]: expected an integer from 1 to 65536, found 0"),
    ({"scale": math.nan}, "scale: expected a finite number or a list of 1 to 3 entries, each a finite number from 0 "
                          "to 1, found nan"),
    ({"scale": (0.5, 2)}, "scale[1]: expected a finite number from 0 to 1, found 2"),
    ({"sizes": {"a": 1.5}}, "sizes.a: expected an integer, found 1.5"),
    ({"sizes": 3}, "sizes: expected an object whose values are each an integer or null, found 3"),
    ({"kind": "z"}, "kind: expected a text that is one of x, y or null, found 'z'"),
    ({"kind": "x\0"}, "kind: expected a text that is one of x, y or null, found 'x\\x00'"),
    ({"pair": (1,)}, "pair: expected a list of 2 entries, each an integer, found (1,)"),
    ({"pair": (1, None)}, "pair[1]: expected an integer, found None"),
    ({"inner": {"share": 0.5}}, "inner: expected Inner, found {'share': 0.5}"),
])
def test_types_and_ranges(values, message):
    with pytest.raises(FieldError) as error:
        Outer(**{"inner": Inner(), **values})
    assert str(error.value) == message


def test_right_values_are_kept_as_they_are():
    made = Outer(Inner(1), 256, (65536,) * 8, (0, 1, 0.5), {"a": -3}, "y", (0, -1), True)
    assert (made.layers, made.scale, made.sizes, made.kind) == (256, (0, 1, 0.5), {"a": -3}, "y")
    assert Outer(Inner(), np.int64(3), scale=np.float32(2)).layers == 3


def test_plain_values_become_a_dataclass():
    values = {"inner": {"share": 1, "new": 2}, "widths": [3, 4]}
    made = read_fields(Outer, {**values, "inner": read_section(Inner, dict(values), "inner")})
    assert made == Outer(Inner(1, 2), widths=(3, 4))
    with pytest.raises(UnknownField, match="^unknown fields 'shares'; did you mean share?"):
        read_fields(Inner, {"shares": 1})
    with pytest.raises(FieldError, match="^inner: expected this field, found none"):
        read_fields(Outer, {})
    with pytest.raises(FieldError, match="^inner: expected this field, found none"):
        read_section(Inner, {}, "inner")
    with pytest.raises(FieldError, match=r"^inner: expected an object of fields, found \[1\]"):
        read_section(Inner, {"inner": [1]}, "inner")
    with pytest.raises(FieldError, match="^model.inner.share: expected a finite number from 0 to 1, found 7"), \
            inside("model"):
        read_section(Inner, {"inner": {"share": 7}}, "inner")


def test_a_message_is_one_short_line_whatever_the_value():
    for value in ("a\nb" * 9999, [[[[1] * 999] * 999]], {str(i): i for i in range(9999)}, 10**4000):
        with pytest.raises(InputError) as error:
            Inner(share=value)
        assert len(str(error.value)) < 200 and "\n" not in str(error.value)
    with pytest.raises(InputError) as error:
        read_fields(Inner, {f"{'x' * 5000}{i}": 1 for i in range(1000)})
    assert len(str(error.value)) < 700 and "(1000 in all)" in str(error.value)


def test_only_marked_fields_may_be_absent():
    check_complete(Outer(Inner()), {**vars(Outer(Inner())), "inner": {"share": 0.5}})
    with pytest.raises(FieldError, match="^inner.share: expected this field, found none"):
        check_complete(Outer(Inner()), {**vars(Outer(Inner())), "inner": {"new": 1}})
    with pytest.raises(FieldError, match="^widths: expected this field"):
        check_complete(Outer(Inner()), {"inner": {"share": 1}, "layers": 1})


@pytest.mark.parametrize("cls", [
    DurianConfig, SVDPConfig, UNetConfig, MMDiTConfig, ImageEncoderConfig, *CODECS.values(), Objective, Sampling,
    DurianSamples, SVDPSamples, About], ids=lambda cls: cls.__name__)
def test_every_dataclass_that_is_read_from_a_file_checks_every_field(cls):
    for field in fields(cls):
        given = {"format": "portrait_clips-1", "clips": 1, "frames": 1, "people": 1, "shards": 1, "height": 8,
                 "width": 8, "margin": 0} if cls is About else {}
        with pytest.raises(InputError, match=field.name):
            cls(**{**given, field.name: object()})


def test_a_range_says_its_ends():
    assert [str(Range(1, 2)), str(Range(0, 1, open=True)), str(Range(least=3)), str(Range(most=4)), str(Range())] == [
        " from 1 to 2", " above 0 and at most 1", " of at least 3", " of at most 4", ""]
