"""The results of the benchmarks as one page: a table of each section, and a plot where a figure grows with a number."""

import html
import io
import json
from pathlib import Path

SIDES = (("ours", "#0a7d5a"), ("open_clip", "#b4462a"))
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ccc }
td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto }
"""
NOTE = """Medians of runs in turns on one noisy machine, CPU only; the ratios are what counts (above 1: ours is faster
or smaller). open_clip computes in float32 here, as we do. In bfloat16, on a CPU that has it, torch encodes an image of
ViT-L/14 in 0.25 s where float32 takes it 0.6 to 0.9; MindSpore has no such products on the CPU."""


def write_page(folder: Path) -> Path:
    """Write FOLDER/index.html from the results in FOLDER; returns its path."""
    parts = [f"<p>{NOTE}</p>"]
    for path in sorted(folder.glob("*.json")):
        for section, result in json.loads(path.read_text()).items():
            parts.append(f"<h2>{html.escape(f'{path.stem}: {section}')}</h2>")
            parts.append(f"<p>{result['date']}, commit {html.escape(result['commit'])}</p>")
            parts += [table(result["rows"]), *plots(result["rows"])]
    target = folder / "index.html"
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><style>{STYLE}</style>"
    target.write_text(f"<!doctype html><title>Benchmarks</title>{head}<h1>Benchmarks</h1>" + "\n".join(parts) + "\n")
    return target


def table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["".join(f"<th>{name}</th>" for name in names)]
    lines += ["".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in names) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def plots(rows: list[dict]) -> list[str]:
    """One for each name that stands before a colon and a number."""
    series: dict[str, list[tuple[int, dict]]] = {}
    for row in rows:
        name, _, number = row["what"].rpartition(": ")
        if number.isdigit():
            series.setdefault(name, []).append((int(number), row))
    return [plot(name, points) for name, points in series.items()]


def plot(name: str, points: list[tuple[int, dict]]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), sharex=True)
    for axis, (side, colour) in zip(axes, SIDES):
        known = [(x, row[side]) for x, row in points if side in row]
        axis.plot(*zip(*known), "o-", color=colour)
        axis.set_ylim(bottom=0)
        axis.set(title=f"{side}: {name}", xlabel=name.rpartition(", ")[2], ylabel=points[0][1]["unit"])
        axis.grid(alpha=0.3)
    figure.tight_layout()
    with io.StringIO() as text:
        figure.savefig(text, format="svg")
        plt.close(figure)
        drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
