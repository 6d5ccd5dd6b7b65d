"""Damaged and hostile variants of files, as hypothesis strategies."""

import json
import struct
import zlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# Values that a field of JSON may be replaced by.
HOSTILE = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 1.5, -0.5, 1e-9, 1e9, 10**9, 10**30, -10**30, 2**31, 2**63,
    float("nan"), float("inf"), -float("inf"), "", "x", "None", "1", "../../evil", "/etc/passwd", "a\0b", "\ud800",
    "x" * 5000, "\n\r",
    [], [1], [-1], [None], ["x"], [[]], [1] * 5000, {}, {"x": 1}, {"": {}}, [[[[[[[[1]]]]]]]])


def places(values: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value inside of objects and lists."""
    if path:
        yield path
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


@st.composite
def changed_json(draw, values: Any) -> Any:
    """JSON with one to three values replaced, removed, renamed or added."""
    values = json.loads(json.dumps(values))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        paths = list(places(values))
        if not paths:
            break
        *outer, last = draw(st.sampled_from(paths))
        parent = values
        for key in outer:
            parent = parent[key]
        action = draw(st.sampled_from(("replace",) * 4 + ("remove", "rename", "add")))
        if action == "replace" or isinstance(parent, list):
            old = parent[last]
            number = isinstance(old, int | float) and not isinstance(old, bool)
            near = st.sampled_from([old + 1, old - 1, -old, old * 2, old // 2, old / 3] if number else HOSTILE)
            parent[last] = deepcopy(draw(st.one_of(st.sampled_from(HOSTILE), near)))
        elif action == "remove":
            del parent[last]
        elif action == "rename":
            parent[draw(st.sampled_from((f"{last}s", "", "x" * 5000, "\ud800", last.upper())))] = parent.pop(last)
        else:
            name = draw(st.sampled_from(("extra", "format", "version", "__class__")))
            parent[name] = deepcopy(draw(st.sampled_from(HOSTILE)))
    return values


@st.composite
def changed_bytes(draw, data: bytes) -> bytes:
    """Bytes with a few of them flipped, a part removed, doubled or overwritten, or the end cut off."""
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        # Most of the structure is at the beginning.
        place = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data))))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 1000)))
        action = draw(st.sampled_from(("flip", "flip", "zero", "ones", "cut", "remove", "double", "insert")))
        middle = data[place:place + length]
        if action == "flip" and middle:
            bit = 1 << draw(st.integers(0, 7))
            middle = bytes([middle[0] ^ bit]) + middle[1:]
        elif action in ("zero", "ones"):
            middle = (b"\0" if action == "zero" else b"\xff") * len(middle)
        elif action == "cut":
            return data[:place]
        elif action == "remove":
            middle = b""
        elif action == "double":
            middle *= 2
        elif action == "insert":
            middle = draw(st.binary(min_size=1, max_size=8)) + middle
        data = data[:place] + middle + data[place + length:]
    return data


def changed_text(text: str) -> st.SearchStrategy[bytes]:
    """A JSON file whose values or bytes are changed, or that is something else."""
    others = (b"", b"null", b"[]", b"3", b"\xff\xfe{}", b"{" * 200_000, b"[" * 200_000 + b"]" * 200_000,
              b'{"a":' * 200_000, b'{"a": 1' + b"0" * 10_000 + b"}")
    in_json = changed_json(json.loads(text)).map(lambda values: json.dumps(values).encode())
    return st.one_of(*[in_json] * 8, changed_bytes(text.encode()), st.sampled_from(others))


@st.composite
def changed_tensors(draw, data: bytes) -> bytes:
    """A safetensors file whose header, values or bytes are changed."""
    if draw(st.booleans()):
        return draw(changed_bytes(data))
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    action = draw(st.sampled_from(("header", "type", "values", "huge header")))
    if action == "header":
        header = draw(changed_json(header))
    elif action == "huge header":
        return (1 << draw(st.sampled_from((20, 26, 33, 62)))).to_bytes(8, "little") + data[8:]
    else:
        name = draw(st.sampled_from(sorted(name for name in header if name != "__metadata__")))
        if action == "type":
            header[name]["dtype"] = draw(st.sampled_from((
                "F8_E4M3", "F8_E5M2", "I64", "BOOL", "C64", "BF16", "F4", "x")))
        else:
            first, last = header[name]["data_offsets"]
            number = draw(st.sampled_from((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff")))
            whole = draw(st.booleans())
            count = (last - first) // 4 if whole else min(1, (last - first) // 4)
            body = body[:first] + number * count + body[first + 4 * count:]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def png_of_size(data: bytes, width: int, height: int) -> bytes:
    """A PNG whose header claims another size, with a correct checksum."""
    header = struct.pack(">II", width, height) + data[24:29]
    return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]


@st.composite
def changed_picture(draw, data: bytes) -> bytes:
    """A picture whose bytes are changed, or a PNG or JPEG that claims another size."""
    sizes = st.sampled_from((0, 1, 7, 255, 8192, 13000, 60000, 2**31 - 1))
    if draw(st.booleans()):
        return draw(changed_bytes(data))
    width, height = draw(sizes), draw(sizes)
    if data.startswith(b"\x89PNG"):
        return png_of_size(data, width, height)
    place = next((data.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data), -1)
    if not data.startswith(b"\xff\xd8") or place < 0:
        return draw(changed_bytes(data))
    return data[:place + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[place + 9:]


# Boxes of an MP4 file (ISO 14496-12) and elements of a Matroska file whose numbers decide about time and size.
_BOXES = (b"mvhd", b"tkhd", b"elst", b"mdhd", b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"stss", b"avc1", b"pasp",
          b"colr", b"\x44\x89", b"\x23\xe3\x83", b"\xb0", b"\xba", b"\x54\xb0", b"\x2a\xd7\xb1")


@st.composite
def changed_video(draw, data: bytes) -> bytes:
    """A video whose bytes are changed, or a number of its boxes."""
    boxes = [box for box in _BOXES if box in data]
    if not boxes or draw(st.booleans()):
        return draw(changed_bytes(data))
    box = draw(st.sampled_from(boxes))
    place = data.find(box) + len(box) + draw(st.integers(0, 90))
    number = draw(st.sampled_from((0, 1, 2, 90_000, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)))
    return data[:place] + struct.pack(">I", number) + data[place + 4:]


@st.composite
def changed_rows(draw, text: str) -> bytes:
    """A CSV or JSONL file with changed cells, rows or bytes."""
    lines = text.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    cells = ["", ",", '"', "../../evil", "/etc/passwd", "nan", "-1", "1e999", "a\0b", "x" * 5000, "x/" * 3000,
             "hair;hat",
             '"a\nb"', "\ud800", "{}", '{"path": 3}', '{"path": "a.mp4", "identity": "../../evil"}',
             '{"path": "a.mp4", "start": 1e400}', '{"path": "\\ud800"}', "[" * 100_000]
    action = draw(st.sampled_from(("line", "cell", "double", "bytes")))
    if action == "bytes":
        return draw(changed_bytes(text.encode()))
    if action == "line":
        lines[number] = draw(st.sampled_from(cells))
    elif action == "double":
        lines.insert(number, lines[number])
    else:
        parts = lines[number].split(",")
        parts[draw(st.integers(0, len(parts) - 1))] = draw(st.sampled_from(cells))
        lines[number] = ",".join(parts)
    return "\n".join(lines).encode(errors="surrogatepass")
