"""The output files hold the schema's rows, and other programs read them."""

import csv
import html
import json
import re

import numpy as np
import pysrt
import pytest
import webvtt
from pyarrow import parquet

from mindone_coca.collection.search import Moment
from mindone_coca.outputs.features import write_features
from mindone_coca.outputs.formats import FORMATS, expand_formats, write_outputs
from mindone_coca.outputs.html import write_html
from mindone_coca.outputs.names import mirrored_names
from mindone_coca.outputs.schema import COLUMNS, clock, rows
from mindone_coca.outputs.subtitles import write_subtitles
from mindone_coca.outputs.tables import lines, write_csv, write_json, write_jsonl, write_txt


def seconds(time) -> float:
    return time.hours * 3600 + time.minutes * 60 + time.seconds + time.milliseconds / 1000


def test_tables_hold_the_same_rows(tmp_path, records, provenance):
    want = [row for record in records for row in rows(record)]
    assert all(tuple(row) == COLUMNS for row in want)
    assert len(want) == 8
    for write in (write_json, write_jsonl, write_csv):
        write(tmp_path / write.__name__, lambda: records, [], provenance)
    whole = json.loads((tmp_path / "write_json").read_text())
    assert whole.pop("results") == want
    assert whole == provenance.as_dict()
    lines = [json.loads(line) for line in (tmp_path / "write_jsonl").read_text().splitlines()]
    assert lines == [row | provenance.as_dict() for row in want]
    assert (tmp_path / "write_csv").read_bytes().startswith(b"\xef\xbb\xbfpath,")  # by which Excel knows UTF-8
    with open(tmp_path / "write_csv", newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    assert [row["caption"] for row in table] == [row["caption"] or "" for row in want]
    assert [json.loads(row["times"] or "null") for row in table] == [row["times"] for row in want]
    assert json.loads(table[0]["alternatives"]) == records[0]["segments"][0]["alternatives"]
    assert {row["model"] for row in table} == {provenance.model}


def test_an_empty_collection_is_valid_json(tmp_path, provenance):
    write_json(tmp_path / "empty.json", list, [], provenance)
    assert json.loads((tmp_path / "empty.json").read_text())["results"] == []


def test_text_has_a_line_for_each_caption(tmp_path, records, provenance):
    write_txt(tmp_path / "captions.txt", lambda: records, [], provenance)
    lines = (tmp_path / "captions.txt").read_text().splitlines()
    assert lines[0] == "in/long.mp4\t00:00:00.000 --> 00:01:01.250\ta dog on a beach"
    assert lines[-1] == "in/\\udcff\\n.mp4\t00:00:00.000 --> 00:00:01.000\todd"
    assert len(lines) == 7


def test_a_still_image_has_no_times(tmp_path, records, provenance):
    still = records[3]
    assert list(lines(still, with_times=True)) == ["in/still.png\t\ta still"]
    assert list(lines(still, with_path=False, with_times=True)) == ["a still"]
    write_html(tmp_path / "page.html", lambda: [still], [], provenance)
    page = (tmp_path / "page.html").read_text()
    assert "0:00.0" not in page and 'alt="the image" title=""' in page and "1 caption of 1 file<" in page
    assert Moment(0.5, "in/still.png", 0.0, 0.0, "a still").line() == "0.5000\tin/still.png\t\ta still"
    assert Moment(0.5, "a.mp4", 0.0, 1.0, "b").line() == "0.5000\ta.mp4\t00:00:00.000 --> 00:00:01.000\tb"


def test_the_page_says_which_scores_are_high(tmp_path, records, provenance):
    ranked = records[0]["segments"][0]
    for wanted in (False, True):
        write_html(tmp_path / "page.html", lambda: records, [], provenance)
        page = (tmp_path / "page.html").read_text()
        assert "higher is surer, 0 is certain" in page and ("highest first" in page) == wanted
        ranked["rank_score"] = ranked["alternatives"][0]["rank_score"] = 9.5


@pytest.mark.parametrize(
    ("time", "text"), [(0, "00:00:00.000"), (3599.9996, "01:00:00.000"), (360000, "100:00:00.000")]
)
def test_clock(time, text):
    assert clock(time) == text


def test_subtitles_are_read_by_parsers(tmp_path, records, provenance):
    paths = [record["path"] for record in records]
    for suffix in (".srt", ".vtt"):
        write_subtitles(suffix, tmp_path, lambda: records, paths, provenance)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.srt")}
    assert made == {"long.mp4.srt", "long.mkv.srt", "sub/süß 東京.srt", "\udcff\n.srt"}
    segments = records[0]["segments"]
    srt = pysrt.open(str(tmp_path / "long.mp4.srt"), error_handling=pysrt.ERROR_RAISE)
    vtt = list(webvtt.read(str(tmp_path / "long.mp4.vtt")))
    assert len(srt) == len(vtt) == 3
    for number, (item, cue, segment) in enumerate(zip(srt, vtt, segments)):
        assert item.index == number + 1
        assert [seconds(item.start), seconds(item.end)] == pytest.approx([segment["start"], segment["end"]], abs=5e-4)
        assert [cue.start_in_seconds, cue.end_in_seconds] == pytest.approx(
            [segment["start"], segment["end"]], abs=1
        )  # the parser drops milliseconds
        assert item.text == segment["caption"].replace("-->", "->")
        assert html.unescape(cue.raw_text) == segment["caption"]
    assert vtt[0].start == "00:00:00.000"
    assert vtt[1].end == "01:00:00.000"
    assert len(pysrt.open(str(tmp_path / "sub/süß 東京.srt"))) == 0  # an empty caption is no cue
    assert not list(webvtt.read(str(tmp_path / "sub/süß 東京.vtt")))


def test_names_never_collide(tmp_path):
    paths = ["a/x.mp4", "a/x.mkv", "a/x.mp4.avi", "b/x.mp4", "b/y", "b/z.mov"]
    names = mirrored_names(paths, ".srt", tmp_path)
    assert len(set(names.targets.values())) == len(paths) and not names.notes
    assert names.targets["b/z.mov"] == tmp_path / "b" / "z.srt"
    assert names.targets["a/x.mkv"] == tmp_path / "a" / "x.mkv.srt"
    assert mirrored_names(["one/clip.mp4"], ".vtt", tmp_path).targets == {"one/clip.mp4": tmp_path / "clip.vtt"}


def test_features_in_the_layout_of_clip_retrieval(tmp_path, records, provenance):
    write_features(tmp_path, lambda: records, provenance, part_rows=3)
    parts = [np.load(path) for path in sorted((tmp_path / "img_emb").glob("img_emb_*.npy"))]
    assert [part.shape for part in parts] == [(3, 6), (3, 6), (1, 6)]
    segments = [segment for record in records for segment in record["segments"]]
    want = np.stack([np.random.default_rng(i).standard_normal((2, 6)).astype("<f4")[0] for i in range(7)])
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert np.allclose(np.concatenate(parts), want, atol=1e-6)
    assert {path.name for path in (tmp_path / "text_emb").iterdir()} == {f"text_emb_{i}.npy" for i in range(3)}
    tables = [parquet.read_table(tmp_path / "metadata" / f"metadata_{i}.parquet").to_pylist() for i in range(3)]
    table = [row for part in tables for row in part]
    assert [row["caption"] for row in table] == [segment["caption"] for segment in segments]
    assert table[0]["image_path"] == "in/long.mp4"
    assert table[-1]["image_path"] == "in/\\udcff\\n.mp4"
    # embedding-reader finds the shape in the first line of the file by this pattern
    head = (tmp_path / "img_emb/img_emb_0.npy").read_bytes()[:300].split(b"\n")[0].decode("latin1")
    assert re.search(r"'shape': \(([0-9]+), ([0-9]+)\)", head).groups() == ("3", "6")
    assert re.search(r"'descr': '([<f0-9]+)'", head)[1] == "<f4"
    (tmp_path / "img_emb" / "mine.txt").write_text("stays")
    write_features(tmp_path, lambda: records[:1], provenance)  # a smaller one leaves nothing of the larger
    assert {path.name for path in (tmp_path / "img_emb").iterdir()} == {"img_emb_0.npy", "mine.txt"}


def test_the_page_needs_nothing_else_and_escapes_all_text(tmp_path, records, provenance):
    write_html(tmp_path / "page.html", lambda: records, [], provenance)
    page = (tmp_path / "page.html").read_text()
    references = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']([^"']*)""", page)
    assert len(references) == 10  # nine frames and an empty icon
    assert all(reference.startswith("data:") for reference in references)
    assert not re.search(r"https?:|@import|url\(|<link[^>]+stylesheet", page)
    assert page.count("<script>") == 1
    assert "a &lt;b&gt;&quot;bold&quot;&lt;/b&gt; sign &amp; more --&gt; here" in page
    assert "in/&lt;script&gt;.mp4: is cut short" in page
    assert "7 captions of 5 files, 1 failed" in page
    assert "a puppy (-2.50)" in page
    assert "score -1.23" in page and "ranked" not in page
    ranked = records[0]["segments"][0]
    ranked |= {"rank_score": 9.25, "alternatives": [{"caption": "a puppy", "score": -1.0, "rank_score": 8.5}]}
    write_html(tmp_path / "ranked.html", lambda: records[:1], [], provenance)
    shown = (tmp_path / "ranked.html").read_text()
    assert "score -1.23, ranked 9.25" in shown and "a puppy (-1.00, ranked 8.50)" in shown
    assert "0:00.0 – 1:01.3" in page or "0:00.0 – 1:01.2" in page
    assert "1:00:00.0 – 1:02:05.5" in page


def test_all_formats(tmp_path, records, provenance):
    paths = [record["path"] for record in records]
    outcome = write_outputs(tmp_path, expand_formats(["all"]), True, lambda: records, paths, provenance)
    assert not outcome.problems and not outcome.notes
    assert {path.name for path in outcome.written} == {
        "captions.txt",
        "captions.json",
        "captions.jsonl",
        "captions.csv",
        "captions.html",
        "srt",
        "vtt",
        "features",
    }
    assert all(path.exists() for path in outcome.written)
    assert expand_formats(["all", "sidecar"]) == tuple(FORMATS)
