"""Readers of the compiler's output: programs, collectives, memory and errors."""

import pytest

from durian_jax.planning import hlo

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


def test_arrays_are_padded_to_their_tiles():
    assert hlo.array_bytes("f32[100,40]{1,0:T(8,128)}") == 104 * 128 * 4
    assert hlo.array_bytes("bf16[16,8,4096,40]{3,2,1,0:T(8,128)(2,1)}") == 16 * 8 * 4096 * 128 * 2
    assert hlo.array_bytes("bf16[16,8,4096,40]{2,3,1,0:T(8,128)(2,1)}") == 16 * 8 * 4096 * 40 * 2
    assert hlo.array_bytes("(f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:T(128)})") == 8 * 128 * 4 + 4
    assert hlo.array_bytes("f32[8,128]{1,0:T(8,128)S(1)}", outside=True) == 0


def test_collectives_are_counted_once(program):
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
    # Both sums; the operands of the loop's fusion and sum in each of 5 rounds; the convolution's operands and result.
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


def test_peak_memory_is_the_sum_of_allocations(program, tmp_path):
    path = tmp_path / "assignment.txt"
    path.write_text(ASSIGNMENT)
    assert hlo.peak_bytes(path) == 4096 + 53248 + 90000
    assert hlo.largest_buffers(program, path) == [
        hlo.Buffer(53248, 1, "f32[100,40]", "models/resnet.py:26"), hlo.Buffer(4096, 2, "f32[8,128]", "")]


def test_instructions_know_the_projects_line(program):
    convolution = program.computations["main"][-1]
    assert program.origin(convolution) == "models/resnet.py:26"


def test_missing_memory_is_read_from_the_error():
    text = "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom ... (36.50G) exceeds available HBM (15.75G)"
    assert hlo.short_of(text) == 36.5 * 2**30
    assert hlo.short_of("Ran out of memory in memory space hbm. Used 512.00M of 15.75G hbm.") == 2**29
    assert hlo.short_of("something else") == 0
