"""Plans of the papers' sizes on TPU slices; it makes the tables of docs/scaling.md.

    python -m benchmarks.scaling                       all rows: four hours on two cores, 16 GiB of memory
    python -m benchmarks.scaling --rows 0 1 --out docs/scaling

Each row is one `durian plan`; its command is printed. --out FILE writes FILE.json (`rows`, each with every field of
`durian plan --json` and the versions that made it) and FILE.md. Rows that are not selected are kept from FILE.json.
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

# Config without its stage, stage, topology, mesh, batch, remat.
ROWS = [
    ("sd15", "1", "v5e:16x16", "data=16,fsdp=16", 1024, "full"),
    ("sd15", "1", "v6e:16x16", "data=16,fsdp=16", 1024, "full"),
    ("sd15", "1", "v5p:4x4x4", "data=4,fsdp=16", 256, "none"),
    ("sd15", "2", "v5e:16x16", "data=16,fsdp=16", 256, "full"),
    ("sd15", "2", "v6e:16x16", "data=16,fsdp=16", 256, "full"),
    ("sd15", "2", "v5p:4x4x4", "data=4,fsdp=16", 64, "dots"),
    ("sd15", "1", "v5p:2x2x4", "data=2,fsdp=8", 64, "none"),
    ("sd15", "1", "v5p:4x8x8", "data=32,fsdp=8", 1024, "none"),
    ("sd15", "1", "v5p:8x8x16", "data=128,fsdp=8", 4096, "none"),
    ("svdp:sd35m", "history", "v5e:16x16", "data=4,fsdp=16,frames=4", 64, "full"),
    ("svdp:sd35m", "history", "v6e:16x16", "data=16,fsdp=16", 256, "full"),
    ("svdp:sd35m", "history", "v5p:4x4x4", "data=4,fsdp=16", 64, "full"),
    ("svdp:sd35m", "history", "v5p:2x2x4", "data=1,fsdp=16", 16, "full"),
    ("svdp:sd35m", "history", "v5p:4x8x8", "data=16,fsdp=16", 256, "full"),
    ("svdp:sd35m", "history", "v5p:8x8x16", "data=64,fsdp=16", 1024, "full"),
]
# Constant work per chip on 16, 256 and 1024 chips.
WEAK = (ROWS[6:9], ROWS[-3:])


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
        found[command(*ROWS[number])] = {
            "command": command(*ROWS[number]), "versions": f"jax {version('jax')}, {requirement()}, {date.today()}",
            **plan_values(plan_of(*ROWS[number]))}
        if path:
            write_results(path, [found[text] for text in (command(*row) for row in ROWS) if text in found])
    print("\n".join(table(list(found.values()))))


def command(config: str, stage: str, topology: str, mesh: str, batch: int, remat: str) -> str:
    """Return a row as a command line."""
    return (f"durian plan --config={config},stage={stage} --topology={topology} --mesh={mesh} --batch={batch} "
            f"--config.remat={remat}")


def plan_of(name: str, stage: str, topology: str, mesh: str, batch: int, remat: str) -> Plan:
    config = load_config(f"{name},stage={stage}")
    config.mesh, config.batch_size, config.remat = parse_mesh(mesh), batch, remat
    return plan(config, topology, name=f"{name},stage={stage}")


def plan_from(row: dict) -> Plan:
    """Return the plan of a row of FILE.json."""
    return Plan(**{name: value for name, value in row.items() if name not in ("command", "versions")})


def write_results(path: Path, rows: list[dict]) -> None:
    """Write FILE.json, and replace everything after the heading "Plans" in FILE.md."""
    write_json(path, {"rows": rows})
    page = path.with_suffix(".md")
    head = page.read_text().partition("## Plans")[0] if page.exists() else ""
    parts = []
    for config in dict.fromkeys(config for config, *_ in ROWS):
        ours = [row for row in rows if row["config"].startswith(f"{config},")]
        if not ours:
            continue
        versions = "; ".join(dict.fromkeys(row["versions"] for row in ours))
        commands = "\n".join(f"    {row['command']}" for row in ours)
        parts.append(f"### {config}\n\n{versions}:\n\n" + "\n".join(table(ours)) + weak_scaling(ours)
                     + f"\n\nThe rows as commands:\n\n{commands}\n")
    write_text(page, f"{head}## Plans\n\nMade by `python -m benchmarks.scaling --out docs/scaling`.\n\n"
               + "\n".join(parts))


def weak_scaling(rows: list[dict]) -> str:
    """Return a paragraph on weak scaling (constant work per chip), or "" if no series of `WEAK` is complete."""
    found = {row["command"]: row for row in rows}
    for series in WEAK:
        if all(command(*row) in found for row in series):
            first, *others = (found[command(*row)] for row in series)
            share = lambda row: row["flops_per_step"] / row["chips"]
            change = lambda new, old: f"{round(new / old - 1, 3) + 0.0:+.1%}"  # + 0.0: no "-0.0%"
            lines = [f"{row['chips']} chips: {change(share(row), share(first))} FLOPs and "
                     f"{change(row['collective_bytes_per_chip'], first['collective_bytes_per_chip'])} exchanged bytes"
                     for row in others]
            clips = first["batch"] / first["chips"]
            return (f"\n\nWeak scaling, {clips:g} clip{'s' * (clips != 1)} per chip. Change per chip relative to "
                    f"{first['chips']} chips: {'; '.join(lines)}.")
    return ""


def table(rows: list[dict]) -> list[str]:
    """Return the lines of a Markdown table."""
    heads = ("stage", "topology", "mesh", "clips per step", "remat", "GiB per chip: used, available", "TFLOP per chip",
             "exchanged GiB per chip", "bounds: compute, memory, network, s", "MFU at most", "hours at least",
             "compile time, s")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        bounds = ", ".join(f"{row['bounds'][name]:.3f}" for name in ("compute", "memory", "network"))
        memory = f"{row['peak_bytes_per_chip'] / GIB:.2f}, {row['hbm_bytes_per_chip'] / GIB:.2f}"
        stage = row["config"].partition("stage=")[2]
        cells = (stage, row["topology"], mesh_text(plan_from(row)), row["batch"], row["remat"],
                 memory + ("" if row["fits"] else " **does not fit**"),
                 f"{row['flops_per_step'] / row['chips'] / 1e12:.2f}", f"{row['collective_bytes_per_chip'] / GIB:.2f}",
                 bounds, f"{row['mfu_bound']:.2f}", f"{row['hours']:.1f}", f"{row['compile_seconds']:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


if __name__ == "__main__":
    main()
