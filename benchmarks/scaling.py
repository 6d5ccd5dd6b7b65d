"""Plans of the paper's size on TPU slices; it makes the table of docs/scaling.md.

    python -m benchmarks.scaling                       all rows: two hours on two cores, 10 GiB of memory
    python -m benchmarks.scaling --rows 0 1 --out docs/scaling

Each row is one `durian plan`; its command is printed. --out FILE writes FILE.json (`rows`, each with every field of
`durian plan --json`) and FILE.md. Rows that are not selected are kept from FILE.json.
"""

import argparse
import json
from datetime import date
from importlib.metadata import version
from pathlib import Path

from durian_jax.configs import load_config
from durian_jax.files import write_json, write_text
from durian_jax.planning.plan import GIB, Plan, mesh_text, parse_mesh, plan, plan_values
from durian_jax.planning.tpu_compiler import requirement

# Stage, topology, mesh, batch, remat.
ROWS = [
    ("1", "v5e:16x16", "data=16,fsdp=16", 1024, "full"),
    ("1", "v6e:16x16", "data=16,fsdp=16", 1024, "full"),
    ("1", "v5p:4x4x4", "data=4,fsdp=16", 256, "none"),
    ("2", "v5e:16x16", "data=16,fsdp=16", 256, "full"),
    ("2", "v6e:16x16", "data=16,fsdp=16", 256, "full"),
    ("2", "v5p:4x4x4", "data=4,fsdp=16", 64, "dots"),
    ("1", "v5p:2x2x4", "data=2,fsdp=8", 64, "none"),
    ("1", "v5p:4x8x8", "data=32,fsdp=8", 1024, "none"),
    ("1", "v5p:8x8x16", "data=128,fsdp=8", 4096, "none"),
]
# Four images per chip on 16, 256 and 1024 chips.
WEAK = ROWS[-3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, choices=range(len(ROWS)), default=range(len(ROWS)))
    parser.add_argument("--out", type=Path, help="output path without its suffix")
    options = parser.parse_args()
    path = options.out and options.out.with_suffix(".json")
    known = json.loads(path.read_text())["rows"] if path and path.exists() else []
    found = {row["command"]: row for row in known}
    for number in options.rows:
        print(command(*ROWS[number]), flush=True)
        found[command(*ROWS[number])] = {"command": command(*ROWS[number]), **plan_values(plan_of(*ROWS[number]))}
        if path:
            write_results(path, [found[text] for text in (command(*row) for row in ROWS) if text in found])
    print("\n".join(table(list(found.values()))))


def command(stage: str, topology: str, mesh: str, batch: int, remat: str) -> str:
    """Return a row as a command line."""
    return (f"durian plan --config=configs/durian.py:sd15,stage={stage} --topology={topology} --mesh={mesh} "
            f"--batch={batch} --config.remat={remat}")


def plan_of(stage: str, topology: str, mesh: str, batch: int, remat: str) -> Plan:
    config = load_config(f"sd15,stage={stage}")
    config.mesh, config.batch_size, config.remat = parse_mesh(mesh), batch, remat
    return plan(config, topology, name=f"configs/durian.py:sd15,stage={stage}")


def plan_from(row: dict) -> Plan:
    """Return the plan of a row of FILE.json."""
    return Plan(**{name: value for name, value in row.items() if name != "command"})


def write_results(path: Path, rows: list[dict]) -> None:
    """Write FILE.json, and replace everything after the heading "Plans" in FILE.md."""
    versions = f"jax {version('jax')}, {requirement()}, {date.today()}"
    write_json(path, {"versions": versions, "rows": rows})
    page = path.with_suffix(".md")
    head = page.read_text().partition("## Plans")[0] if page.exists() else ""
    commands = "\n".join(f"    {row['command']}" for row in rows)
    write_text(page, f"{head}## Plans\n\n`python -m benchmarks.scaling --out docs/scaling`, {versions}:\n\n"
               + "\n".join(table(rows)) + weak_scaling(rows) + f"\n\nThe rows as commands:\n\n{commands}\n")


def weak_scaling(rows: list[dict]) -> str:
    """Return a paragraph on weak scaling (constant work per chip), or "" if a row of `WEAK` is missing."""
    found = {row["command"]: row for row in rows}
    if not all(command(*row) in found for row in WEAK):
        return ""
    first, *others = (found[command(*row)] for row in WEAK)
    share = lambda row: row["flops_per_step"] / row["chips"]
    lines = [f"{row['chips']} chips: {share(row) / share(first) - 1:+.1%} FLOPs and "
             f"{row['collective_bytes_per_chip'] / first['collective_bytes_per_chip'] - 1:+.1%} exchanged bytes"
             for row in others]
    return (f"\n\nWeak scaling, four images per chip. Change per chip relative to {first['chips']} chips: "
            f"{'; '.join(lines)}.")


def table(rows: list[dict]) -> list[str]:
    """Return the lines of a Markdown table."""
    heads = ("stage", "topology", "mesh", "clips per step", "remat", "GiB per chip: used, available", "TFLOP per chip",
             "exchanged GiB per chip", "bounds: compute, memory, network, s", "MFU at most", "hours at least",
             "compile time, s")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        bounds = ", ".join(f"{row['bounds'][name]:.3f}" for name in ("compute", "memory", "network"))
        memory = f"{row['peak_bytes_per_chip'] / GIB:.2f}, {row['hbm_bytes_per_chip'] / GIB:.2f}"
        cells = (row["config"][-1], row["topology"], mesh_text(plan_from(row)), row["batch"], row["remat"],
                 memory + ("" if row["fits"] else " **does not fit**"),
                 f"{row['flops_per_step'] / row['chips'] / 1e12:.2f}", f"{row['collective_bytes_per_chip'] / GIB:.2f}",
                 bounds, f"{row['mfu_bound']:.2f}", f"{row['hours']:.1f}", f"{row['compile_seconds']:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    main()
