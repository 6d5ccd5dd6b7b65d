"""Plans of runs on TPUs that this machine does not have: bounds, the search, and real plans by the TPU compiler."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from click.testing import CliRunner

from durian_jax.commands.main import main
from durian_jax.configs.durian import get_config
from durian_jax.errors import InputError
from durian_jax.hardware.chips import CHIPS, group_bandwidth, parse_topology
from durian_jax.planning import ahead, hlo
from durian_jax.planning import plan as plan_module
from durian_jax.planning.plan import (
    Plan,
    candidates,
    collective_times,
    describe,
    parse_mesh,
    plan_values,
    search,
    size_text,
)
from durian_jax.training.config import RunConfig
from tests.helpers.runs import ON_MESHES, SMALL


def test_bandwidth_follows_from_the_torus():
    v5e, v5p = CHIPS["v5e"], CHIPS["v5p"]
    row = [(0, i) for i in range(16)]
    assert group_bandwidth(v5e, (16, 16), row) == v5e.ring_bandwidth
    assert group_bandwidth(v5e, (16, 16), row[:4]) == v5e.ring_bandwidth / 2, "a line has half a ring's bandwidth"
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


def test_sizes_have_units():
    assert [size_text(x) for x in (12, 2048, 3 * 2**20, 2**30)] == ["12 bytes", "2 KiB", "3 MiB", "1.00 GiB"]


def test_the_search_recommends_the_fastest_that_fits(monkeypatch):
    """Variants that need more memory than one that did not fit are skipped."""
    tried, times = [], {"none": 1, "dots": 1.1, "full": 1.3}
    names = [field.name for field in fields(Plan)]

    def pretend(config, topology, name):
        clips = config.batch_size // 16
        fits = clips == 1 and config.remat != "none"
        tried.append((clips, config.remat))
        return Plan(**{**dict.fromkeys(names), "batch": config.batch_size, "chips": 16, "remat": config.remat,
                       "mesh": config.mesh.to_dict(), "fits": fits,
                       "estimated_step_seconds": clips * times[config.remat]})

    monkeypatch.setattr("durian_jax.planning.plan.plan", pretend)
    config = get_config("sd15,stage=1")
    best, found = search(config, "v5e:4x4", attempts=10)
    assert (best.batch, best.remat) == (16, "dots")
    assert tried == [(4, "none"), (4, "dots"), (4, "full"), (1, "none"), (1, "dots"), (1, "full")]
    assert len(found) == len(tried) and len(list(candidates(config, "v5p:4x4x4"))) == 12
    none, _ = search(config, "v5e:4x4", attempts=2)
    assert none is None


def small_flags(stage, *more):
    flags = {flag.partition("=")[0]: flag for flag in (*SMALL, *ON_MESHES, *more)}
    return [f"--config=tiny,stage={stage}", "--topology=v5e:2x2", *flags.values()]


@pytest.mark.slow
def test_a_tiny_run_is_planned_to_the_end(compiler, tmp_path):
    """Through the command line, up to machine code."""
    out = tmp_path / "plan.json"
    done = subprocess.run([sys.executable, "-m", "durian_jax", "plan", *small_flags("codec"), "--mesh=data=4",
                           "--batch=8", "--full", "--price=2", f"--json={out}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found) == {field.name for field in fields(Plan)}
    assert found["fits"] and found["complete"] and found["mesh"]["data"] == 4 and found["chips"] == 4
    # The compiler's own figures, which it has only with machine code. It adds up temporaries that never coexist.
    own = found["compiler"]
    assert own["argument_bytes"] < found["peak_bytes_per_chip"] <= own["argument_bytes"] + own["temporary_bytes"]
    assert found["memory"]["optimizer"] == pytest.approx(2 * found["memory"]["params"], rel=0.01)
    # Gradients are summed over all chips, in float32. Small ones are padded to their tiles.
    gradients = 4 * found["trained"] * 2 * 3 / 4
    assert set(found["collectives"]) == {"all-reduce"} and found["collective_bytes_per_chip"] >= gradients
    assert found["flops_per_step"] <= found["filled_flops_per_chip"] * 4
    assert found["estimated_step_seconds"] == max(found["bounds"].values()) and 0 < found["mfu_bound"] < 1
    assert found["chip_hours"] == pytest.approx(4 * found["hours"])
    assert "FITS" in done.stdout and "at 2 a chip-hour" in done.stdout
    assert describe(Plan(**found)) in done.stdout.replace(f"; {2 * found['chip_hours']:,.2f} at 2 a chip-hour", "")


@pytest.mark.slow
def test_a_run_that_does_not_fit_names_the_largest_arrays(compiler, tmp_path):
    """The report has their sizes and the lines of code that they come from."""
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
    (["--topology=v5e:2x2", "--mesh=data=3"], "whose product is the 4 devices"),
    (["--topology=v9:2x2"], "expected CHIP:AxB"),
    (["--topology=v5e:3x5"], "error: --topology v5e:3x5: expected even numbers of chips"),
    (["--topology=v5e:2x2", "--search", "--full"], "leave --mesh, --batch and --full out"),
    (["--topology=v5e:2x2", "--price=cheap"], "--price"),
    ([], "needs --topology")])
def test_mistakes_are_refused(flags, message, compiler):
    result = CliRunner().invoke(main, ["plan", "--config=tiny,stage=codec", *flags])
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.output


def test_a_slice_that_the_compiler_refuses_is_named(monkeypatch):
    def refused(**_):
        raise RuntimeError("no such slice\nmore")
    monkeypatch.setattr(ahead.topologies, "get_topology_desc", refused)
    run = RunConfig.read(get_config("tiny,stage=codec"))
    with pytest.raises(InputError, match=r"v5e:4x4: the compiler knows no such slice \(no such slice\); take a size"):
        ahead.prepare(run, "v5e:4x4")


@pytest.mark.parametrize(("log", "reason"), [
    ("E0000 00:00:1 x.cc:1] Error: unexpected hostname\nValueError: too large\n", "ValueError: too large"),
    ("E0000 00:00:1 x.cc:1] Error: a\n*** SIGABRT received ***\n", "*** SIGABRT received ***"),
    ("E0000 00:00:1 x.cc:1] Error: a", "E0000 00:00:1 x.cc:1] Error: a")])
def test_the_reason_of_a_failed_compiler_is_no_line_of_its_log(log, reason):
    assert plan_module._reason(log) == reason


def test_a_plan_without_machine_code_has_no_figures_of_the_compiler():
    found = Plan(**dict.fromkeys(field.name for field in fields(Plan)))
    assert plan_values(found).keys() == {field.name for field in fields(Plan)} - {"compiler"}
