"""Plans for TPUs that are not there: what is read from the compiler, what is computed from it, and a real one."""

import json
import math
import subprocess
import sys

import pytest

from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.hardware.chips import CHIPS, group_bandwidth, parse_topology
from durian_jax.planning import hlo
from durian_jax.planning.plan import Plan, candidates, collective_times, describe, parse_mesh, search, size_text
from durian_jax.planning.tpu_compiler import compiler_environment, find_compiler, requirement
from tests.helpers.runs import ON_MESHES, SMALL

_TEXT = """HloModule jit_train_step, is_scheduled=true

FileNames
1 "/home/me/durian_jax/models/resnet.py"
2 "/home/me/lib/flax/linear.py"

FunctionNames
1 "__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=26 end_line=26 column=9 end_column=20}
2 {file_name_id=2 function_name_id=1 line=300 end_line=300 column=9 end_column=20}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%all-reduce-scatter (input: bf16[256,128]) -> bf16[64,128] {
  %input = WHOLE parameter(0)
  ROOT %all-reduce.9 = WHOLE all-reduce(%input), channel_id=5, replica_groups=HALVES, to_apply=%add
}

%start (p: bf16[64,128]) -> bf16[256,128] {
  %p = PART parameter(0)
  %all-gather.1 = WHOLE all-gather(%p), channel_id=2, replica_groups=COLUMNS
  ROOT %custom-call.1 = (PART, WHOLE) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%end (q: bf16[64,128]) -> bf16[256,128] {
  %q = PART parameter(0)
  %all-gather.2 = WHOLE all-gather(%q), channel_id=2, replica_groups=COLUMNS
  ROOT %custom-call.2 = bf16[256,128] custom-call(%q, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}

%body (c: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %c = (s32[], TILE) parameter(0)
  %x = TILE get-tuple-element(%c), index=1
  %fast = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%fused
  %often = s32[] all-reduce(%c), channel_id=9, replica_groups=HALVES, to_apply=%add
  ROOT %t = (s32[], TILE) tuple(%x, %fast)
}

ENTRY %main (w: f32[100,40]) -> f32[100,40] {
  %w = f32[100,40]{1,0:T(8,128)} parameter(0)
  %sum = f32[] all-reduce(%w), channel_id=7, replica_groups=[1,8]<=[8], to_apply=%add
  %swap = TILE all-reduce(%w), channel_id=8, replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %loop = (s32[], TILE) while(%w), condition=%cond, body=%body, FIVE
  ROOT %conv = f32[100,40]{1,0:T(8,128)} convolution(%w, %w), metadata={op_name="jit(f)/conv" stack_frame_id=2}
}
"""
PROGRAM = _TEXT
for name, text in {
        "COLUMNS": """mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, metadata={op_name="w"}""",
        "HALVES": "{{0,1,2,3},{4,5,6,7}}", "FIVE": 'backend_config={"known_trip_count":{"n":"5"}}',
        "WHOLE": "bf16[256,128]{1,0:T(8,128)(2,1)}", "PART": "bf16[64,128]{1,0:T(8,128)(2,1)}",
        "TILE": "f32[8,128]{1,0:T(8,128)}"}.items():
    PROGRAM = PROGRAM.replace(name, text)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("hlo") / "program.txt"
    path.write_text(PROGRAM)
    return hlo.read_program(path)


def test_a_layout_is_filled_up_to_its_tiles():
    assert hlo.array_bytes("f32[100,40]{1,0:T(8,128)}") == 104 * 128 * 4
    assert hlo.array_bytes("bf16[16,8,4096,40]{3,2,1,0:T(8,128)(2,1)}") == 16 * 8 * 4096 * 128 * 2
    assert hlo.array_bytes("bf16[16,8,4096,40]{2,3,1,0:T(8,128)(2,1)}") == 16 * 8 * 4096 * 40 * 2
    assert hlo.array_bytes("(f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:T(128)})") == 8 * 128 * 4 + 4
    assert hlo.array_bytes("f32[8,128]{1,0:T(8,128)S(1)}", outside=True) == 0


def test_exchanges_are_counted_once(program):
    weight, share = 256 * 128 * 2, 3 / 4
    found = {(e.kind, e.group): e.bytes for e in hlo.exchanges(program, 8)}
    assert found == {
        ("all-gather", (0, 1, 2, 3)): weight * share, ("reduce-scatter", (0, 1, 2, 3)): weight * share,
        ("all-reduce", tuple(range(8))): 2 * 4 * 7 // 8, ("all-reduce", (0, 4)): 2 * 8 * 128 * 4 / 2,
        ("all-reduce", (0, 1, 2, 3)): 5 * 2 * 4 * share}
    assert len(hlo.exchanges(program, 8)) == 5


@pytest.mark.parametrize(("groups", "first"), [
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)), ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}, dimensions={0}", (0, 4)),
    ("source_target_pairs={{3,4},{4,5}}", (3, 4)), ("replica_groups={}", tuple(range(8)))])
def test_groups_are_read(groups, first):
    text = f"  %x = f32[8] all-reduce(%y), channel_id=1, {groups}, to_apply=%add"
    instruction = hlo.Instruction("x", "f32[8]", "all-reduce", text.partition("all-reduce(")[2])
    assert hlo._group(instruction, 8) == first


def test_traffic_counts_loops_and_leaves_fast_memory_out(program):
    weight, tile = 104 * 128 * 4, 8 * 128 * 4
    # Both sums, what the loop's fusion and its sum read in each of 5 rounds, the convolution's operands and its result.
    rounds = 5 * (tile + (4 + tile + 4))
    assert hlo.memory_traffic(program) == (weight + 4) + (weight + tile) + rounds + 3 * weight


ASSIGNMENT = """BufferAssignment:
allocation 0: size 4096, page 0, thread-local:
 value: <2 add.1 @0> (size=4096,offset=0): f32[]
allocation 1: size 53248, page 0, parameter 0, shape |f32[100,40]| at ShapeIndex {}:
 value: <3 w @0> (size=53248,offset=0): f32[100,40]{1,0:T(8,128)}
allocation 2: size 90000, page 0, preallocated-temp:
 value: <5 conv @0> (size=53248,offset=0): f32[100,40]{1,0:T(8,128)}
 value: <6 x.1 @0> (size=4096,offset=60000): f32[8,128]{1,0:T(8,128)}
 value: <7 x.2 @0> (size=4096,offset=70000): f32[8,128]{1,0:T(8,128)}
allocation 3: size 777, color 1, page 0, preallocated-temp:
 value: <8 fast @0> (size=777,offset=0): f32[8,128]{1,0:T(8,128)S(1)}
"""


def test_memory_is_what_is_allocated(program, tmp_path):
    path = tmp_path / "assignment.txt"
    path.write_text(ASSIGNMENT)
    assert hlo.peak_bytes(path) == 4096 + 53248 + 90000
    assert hlo.largest_buffers(program, path) == [
        hlo.Buffer(53248, 1, "f32[100,40]", "models/resnet.py:26"), hlo.Buffer(4096, 2, "f32[8,128]", "")]


def test_instructions_know_the_projects_line(program):
    convolution = program.computations["main"][-1]
    assert program.origin(convolution) == "models/resnet.py:26"


def test_the_complaint_says_how_much_is_missing():
    text = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom ... (36.50G) exceeds available HBM (15.75G)"
    assert hlo.short_of(text) == 36.5 * 2**30
    assert hlo.short_of("Ran out of memory in memory space hbm. Used 512.00M of 15.75G hbm.") == 2**29
    assert hlo.short_of("something else") == 0


def test_bandwidth_follows_from_the_torus():
    v5e, v5p = CHIPS["v5e"], CHIPS["v5p"]
    row = [(0, i) for i in range(16)]
    assert group_bandwidth(v5e, (16, 16), row) == v5e.ring_bandwidth
    assert group_bandwidth(v5e, (16, 16), row[:4]) == v5e.ring_bandwidth / 2, "a line, no ring"
    plane = [(0, i, j) for i in range(4) for j in range(4)]
    assert group_bandwidth(v5p, (4, 4, 4), plane) == 2 * v5p.ring_bandwidth
    exchange = hlo.Exchange("all-gather", int(v5p.ring_bandwidth), (0, 1, 2, 3))
    line = [[0, 0, i] for i in range(4)]
    assert collective_times([exchange, exchange], v5p, (4, 4, 4), line) == {
        "all-gather": {"count": 2, "bytes": 2 * int(v5p.ring_bandwidth), "seconds": pytest.approx(2.0)}}


@pytest.mark.parametrize("text", ["v5e", "v9:2x2", "v5e:2x2x2", "v5p:4x4", "v5e:0x4", "v5e:axb"])
def test_unknown_topologies_are_refused(text):
    with pytest.raises(InputError, match="--topology"):
        parse_topology(text)


def test_meshes_are_read():
    assert parse_mesh("data=16,fsdp=-1") == {"data": 16, "fsdp": -1, "frames": 1, "tensor": 1}
    for bad in ("rows=2", "data", "data=x"):
        with pytest.raises(InputError, match="expected AXIS=SIZE"):
            parse_mesh(bad)


def test_sizes_have_their_unit():
    assert [size_text(x) for x in (12, 2048, 3 * 2**20, 2**30)] == ["12 bytes", "2 KiB", "3 MiB", "1.00 GiB"]


def test_a_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(InputError, match="durian plan --install"):
        find_compiler()
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    with pytest.raises(InputError, match="TPU_LIBRARY_PATH.*expected a file"):
        find_compiler()
    assert requirement().startswith("libtpu==")


def test_the_search_recommends_the_fastest_that_fits(monkeypatch):
    """And does not try what needs more than something that did not fit."""
    tried, times = [], {"none": 1, "dots": 1.1, "full": 1.3}

    def pretend(config, topology, name):
        clips = config.batch_size // 16
        fits = clips == 1 and config.remat != "none"
        tried.append((clips, config.remat))
        return Plan({"batch": config.batch_size, "chips": 16, "remat": config.remat, "mesh": config.mesh.to_dict(),
                     "fits": fits, "estimated_step_seconds": clips * times[config.remat]})

    monkeypatch.setattr("durian_jax.planning.plan.plan", pretend)
    config = get_config("sd15,stage=1")
    best, found = search(config, "v5e:4x4", attempts=10)
    assert (best["batch"], best["remat"]) == (16, "dots")
    assert tried == [(4, "none"), (4, "dots"), (4, "full"), (1, "none"), (1, "dots"), (1, "full")]
    assert len(found) == len(tried) and len(list(candidates(config, "v5p:4x4x4"))) == 12
    none, _ = search(config, "v5e:4x4", attempts=2)
    assert none is None


@pytest.fixture(scope="module")
def compiler():
    try:
        find_compiler()
    except InputError as error:
        pytest.skip(str(error))


KEYS = {"config", "topology", "mesh", "chips", "batch", "hbm_bytes_per_chip", "peak_bytes_per_chip", "fits",
        "flops_per_step", "collective_bytes_per_chip", "estimated_step_seconds", "mfu_bound", "compile_seconds"}


def small_flags(stage, *more):
    flags = {flag.partition("=")[0]: flag for flag in (*SMALL, *ON_MESHES, *more)}
    return [f"--config=configs/durian.py:tiny,stage={stage}", "--topology=v5e:2x2", *flags.values()]


def test_a_tiny_run_is_planned_to_the_end(compiler, tmp_path):
    """Through the command line; machine code and all."""
    out = tmp_path / "plan.json"
    done = subprocess.run([sys.executable, "-m", "durian_jax", "plan", *small_flags("codec"), "--mesh=data=4",
                           "--batch=8", "--full", "--price=2", f"--json={out}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found) >= KEYS
    assert found["fits"] and found["complete"] and found["mesh"]["data"] == 4 and found["chips"] == 4
    # The compiler's own figures, which it has only at the end; it adds up what need not lie there at the same time.
    own = found["compiler"]
    assert own["argument_bytes"] < found["peak_bytes_per_chip"] <= own["argument_bytes"] + own["temporary_bytes"]
    assert found["memory"]["optimizer"] == pytest.approx(2 * found["memory"]["params"], rel=0.01)
    gradients = 4 * found["trained"] * 2 * 3 / 4  # summed over all chips, in float32; small ones fill up their tiles
    assert set(found["collectives"]) == {"all-reduce"} and found["collective_bytes_per_chip"] >= gradients
    assert found["flops_per_step"] <= found["filled_flops_per_chip"] * 4
    assert found["estimated_step_seconds"] == max(found["bounds"].values()) and 0 < found["mfu_bound"] < 1
    assert found["chip_hours"] == pytest.approx(4 * found["hours"])
    assert "FITS" in done.stdout and "at 2 a chip-hour" in done.stdout
    assert describe(Plan(found)) in done.stdout.replace(f"; {2 * found['chip_hours']:,.2f} at 2 a chip-hour", "")


def test_what_does_not_fit_is_said(compiler, tmp_path):
    """With the arrays that are too large, and the lines that they come from."""
    out = tmp_path / "plan.json"
    done = subprocess.run([sys.executable, "-m", "durian_jax", "plan", *small_flags("codec"), "--mesh=data=4",
                           "--batch=4000000", f"--json={out}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert not found["fits"] and "DOES NOT FIT" in done.stdout
    pictures = 1_000_000 * 2 * 32 * 32 * 3 * 4  # of one chip, in float32
    assert found["peak_bytes_per_chip"] > pictures > found["hbm_bytes_per_chip"]
    assert found["largest_buffers"][0]["bytes"] >= pictures
    assert "models/layers.py" in str(found["largest_buffers"])


@pytest.mark.parametrize(("flags", "message"), [
    (["--topology=v5e:2x2", "--batch=3", "--mesh=data=4"], "batch_size=3 cannot be divided"),
    (["--topology=v5e:2x2", "--mesh=data=3"], "does not make up the 4 devices"),
    (["--topology=v9:2x2"], "expected CHIP:AxB"),
    (["--topology=v5e:3x5"], "error: --topology v5e:3x5: the compiler knows no such slice"),
    (["--topology=v5e:2x2", "--search", "--full"], "leave --mesh, --batch and --full out"),
    (["--topology=v5e:2x2", "--price=cheap"], "--price"),
    ([], "needs --topology")])
def test_what_cannot_be_planned_is_refused(flags, message, compiler):
    command = [sys.executable, "-m", "durian_jax", "plan", "--config=configs/durian.py:tiny,stage=codec"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


ZERO = """
import json, sys
from ml_collections import ConfigDict
from durian_jax.planning import ahead
config = ConfigDict(json.load(open(sys.argv[1])))
_, facts = ahead.prepare(config, "v5e:2x2")
print(json.dumps(facts))
"""


def facts_of(config, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    done = subprocess.run([sys.executable, "-c", ZERO, str(path)], env=compiler_environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_facts_of_a_run_follow_from_its_mesh(compiler, tmp_path):
    """A quarter of the state on each of four chips; frozen parameters whole where the config says so."""
    config = get_config("tiny,stage=2")
    config.batch_size, config.data.frames, config.model.max_frames = 4, 2, 16
    config.model.unet.channels, config.model.unet.heads, config.model.unet.attention = (256,), (2,), (True,)
    config.model.keypoint_channels, config.model.image_size = (64,), 32
    alone = facts_of(config, tmp_path)
    config.mesh.data, config.mesh.fsdp = 1, 4
    divided = facts_of(config, tmp_path)
    config.frozen_whole = True
    whole = facts_of(config, tmp_path)
    assert divided["bytes"]["params"] == pytest.approx(alone["bytes"]["params"] / 4, rel=0.1)
    assert divided["bytes"]["optimizer"] == pytest.approx(alone["bytes"]["optimizer"] / 4, rel=0.1)
    assert divided["bytes"]["frozen"] < 0.5 * alone["bytes"]["frozen"]
    assert whole["bytes"]["frozen"] == alone["bytes"]["frozen"]
    assert whole["bytes"]["params"] == divided["bytes"]["params"]
    assert len({facts["flops_per_step"] for facts in (alone, divided, whole)}) == 1
    assert alone["mesh"]["data"] == 4 and math.prod(divided["mesh"].values()) == 4
    assert sorted(divided["coordinates"]) == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]


MESHES = """
import numpy as np
from jax.experimental import topologies
from durian_jax.training.sharding import arrange
of = lambda topology, slices=1: topologies.get_topology_desc(topology, "tpu", num_slices=slices).devices
print(arrange((2, 8, 1, 1), of("v6e:4x4")).shape)
print(np.vectorize(lambda chip: chip.slice_index)(arrange((2, 4, 1, 1), of("v6e:2x2", 2))).squeeze().tolist())
"""


def test_an_axis_of_the_torus_is_split_where_it_must_be_and_slices_stay_together(compiler):
    done = subprocess.run([sys.executable, "-c", MESHES], env=compiler_environment(), capture_output=True, text=True)
    assert done.stdout.splitlines() == ["(2, 8, 1, 1)", "[[0, 0, 0, 0], [1, 1, 1, 1]]"], done.stderr
