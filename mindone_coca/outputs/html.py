"""One page that shows every caption with the frames it was made from. It needs no other file and no network."""

import html
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mindone_coca.account import number_of
from mindone_coca.files import atomic_path
from mindone_coca.outputs.schema import Provenance, Records, plain

SCORE_MEANS = "score: mean log-probability of the caption's tokens, higher is surer, 0 is certain"
RANKED_MEANS = "; ranked: what orders the captions of an image, highest first"


def write_html(path: Path, records: Records, paths: Sequence[str], provenance: Provenance) -> None:
    """Write the page. Frames are data URIs; all text is escaped."""
    files = captions = 0
    failures, ranked = [], False
    for record in records():
        files += record["error"] is None
        captions += len(record["segments"])
        ranked |= any(one.get("alternatives") and "rank_score" in one for one in record["segments"])
        if record["error"] is not None:
            failures.append(f"<li>{escape(record['error'])}</li>\n")
    counts = f"{number_of(captions, 'caption')} of {number_of(files, 'file')}"
    if failures:
        counts += f", {len(failures):,} failed"
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(page_start("Captions", counts))
        for record in records():
            file.writelines(_card(record["path"], segment) for segment in record["segments"])
        file.write("</main>\n")
        if failures:
            file.write(f"<section><h2>Failed ({len(failures):,})</h2>\n<ul>\n")
            file.writelines(failures)
            file.write("</ul></section>\n")
        options = json.dumps(provenance.options, ensure_ascii=False)
        meaning = SCORE_MEANS + RANKED_MEANS * ranked
        made_by = f"{meaning} · {provenance.model} · mindone_coca {provenance.version} · {options}"
        file.write(page_end(made_by))


def page_start(title: str, counts: str) -> str:
    """All before the first card: the style, the title, what there is, the filter. Cards are `<article>`s."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('page.css')}</style>\n</head>\n<body>\n"
        f'<header><div><h1>{escape(title)}</h1><span id="count">{escape(counts)}</span></div>\n'
        '<input id="filter" type="search" placeholder="Filter by words" '
        'aria-label="Filter" autocomplete="off"></header>\n<main>\n'
    )


def page_end(footer: str) -> str:
    """All after `</main>`: the footer's text, and the script of the filter."""
    return f"<footer>{escape(footer)}</footer>\n<script>\n{_resource('page.js')}</script>\n</body>\n</html>\n"


def card(pictures: Sequence[str], words: Sequence[str], kind: str = "") -> str:
    """An `<article>`: pictures (`<img>` elements) in a square grid, and elements with words below.

    Args:
        kind: its class, `wrong` for one that stands out as such.
    """
    columns = math.ceil(math.sqrt(max(len(pictures), 1)))
    return (
        f'<article class="{kind}"><div class="frames" style="--columns: {columns}">{"".join(pictures)}</div>'
        f'<div class="words">{"".join(words)}</div></article>\n'
    )


def escape(text: str) -> str:
    """Any text, also a path of odd bytes, as it may stand in a page."""
    return html.escape(plain(text))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _card(path: str, segment: dict[str, Any]) -> str:
    # a still image has no times
    times = [_clock(time) if segment["end"] else "" for time in segment["times"]]
    pictures = [
        f'<img alt="{f"frame at {time}" if time else "the image"}" title="{time}" loading="lazy" '
        f'src="data:image/jpeg;base64,{thumbnail}">'
        for time, thumbnail in zip(times, segment.get("thumbnails", ()))
    ]
    others = "".join(
        f"<li>{escape(other['caption'])} ({_scores(other)})</li>" for other in segment.get("alternatives", ())
    )
    stretch = f"<b>{_clock(segment['start'])} – {_clock(segment['end'])}</b>" if segment["end"] else ""
    words = [
        f'<p class="caption">{escape(segment["caption"])}</p>',
        f'<ul class="more">{others}</ul>' if others else "",
        f'<p class="path">{escape(path)}</p>',
        f'<p class="facts">{stretch}<span>score {_scores(segment, bool(others))}</span></p>',
    ]
    return card(pictures, words)


def _scores(scored: dict[str, Any], ranked: bool = True) -> str:
    """The score of a caption, and what orders it among several, where that is known."""
    rank = scored.get("rank_score")
    return f"{scored['score']:.2f}" + (f", ranked {rank:.2f}" if ranked and rank is not None else "")


def _clock(seconds: float) -> str:
    """H:MM:SS.s or M:SS.s"""
    hours, rest = divmod(round(seconds * 10), 36000)
    minutes = f"{rest // 600:02}" if hours else f"{rest // 600}"
    return f"{hours}:" * bool(hours) + f"{minutes}:{rest % 600 // 10:02}.{rest % 10}"
