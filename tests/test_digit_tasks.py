"""The digit tasks: answers that the pictures bear out, sentences that alone tell nothing, scans kept apart."""

import csv
import filecmp
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/digits"))

import digit_pictures
import make_digit_tasks
from make_digits import NAMES


class Plain:
    """Instead of scans: evenly grey squares that say which digit they are."""

    def draw(self, digit, rng):
        return np.full((8, 8), 10 * digit + 10, np.uint8)


def rows(task, count):
    return list(make_digit_tasks.TASKS[task][0](Plain(), count, np.random.default_rng(3)))


def shown(image):
    """What the halves of a picture show: digits, "covered", or None."""
    values = [int(np.asarray(image)[16, x]) for x in (8, 24)]
    return ["covered" if value == digit_pictures.COVER else value // 10 - 1 if value else None for value in values]


def test_questions_and_answers():
    asked = Counter()
    for [image], (question, answer) in rows("vqa", 900):
        left, right = shown(image)
        digits = [digit for digit in (left, right) if digit is not None]
        expected = {
            "how many digits?": len(digits),
            "which digit is it?": digits[0],
            "which is larger?": max(digits),
            "which is smaller?": min(digits),
            "which is on the left?": left,
            "which is on the right?": right,
        }[question]
        assert answer == ("none" if expected is None else NAMES[expected])
        asked[question, len(digits)] += 1
    assert len(asked) == 9 and set(asked.values()) == {100}


def test_statements_about_covered_digits():
    said = Counter()
    for [image], (sentence, label) in rows("entailment", 360):
        _, side, _, _, _, limit = sentence.split()
        seen = shown(image)[side == "right"]
        truth = seen != "covered" and seen > {"two": 2, "four": 4, "six": 6}[limit]
        assert label == ("neutral" if seen == "covered" else "entailment" if truth else "contradiction")
        said[sentence, label] += 1
    assert len(said) == 18 and set(said.values()) == {20}


def test_statements_about_pairs():
    said = Counter()
    for images, (sentence, label) in rows("nlvr2", 800):
        left, right = (shown(image)[0] for image in images)
        truth = {
            "the left digit is larger": left > right,
            "the left digit is even": left in (0, 2, 4, 6, 8),
            "both digits are above three": left > 3 and right > 3,
            "a digit is above seven": left > 7 or right > 7,
        }
        assert label == str(truth[sentence])
        said[sentence, label] += 1
    assert len(said) == 8 and set(said.values()) == {100}


def test_motions_share_their_middle_frame():
    scan = digit_pictures.Scans(validation=False).draw(4, np.random.default_rng(0))
    clips = {
        motion: np.stack(digit_pictures.clip(scan, motion, np.random.default_rng(1))).astype(float)
        for motion in digit_pictures.MOTIONS
    }
    middle = len(clips["left"]) // 2
    assert all(np.array_equal(frames[middle], clips["left"][middle]) for frames in clips.values())
    columns, lines = np.arange(32), np.arange(32)[:, None]

    def path(motion, places):
        """How far the digit's centre moves along `places`, and how its light grows."""
        light = clips[motion][..., 0]
        centres = (light * places).sum((1, 2)) / light.sum((1, 2))
        return centres[-1] - centres[0], light[-1].sum() / light[0].sum()

    for motion, places, sign in (("right", columns, 1), ("left", columns, -1), ("down", lines, 1), ("up", lines, -1)):
        moved, grown = path(motion, places)
        assert sign * moved == pytest.approx(16, abs=0.01) and grown == pytest.approx(1)
    assert path("growing", columns)[1] > 4


def test_no_scan_is_in_both_parts():
    drawn = {}
    for validation in (False, True):
        scans = digit_pictures.Scans(validation)
        drawn[validation] = [scan.tobytes() for digit in scans._by_digit for scan in digit]
    assert (len(drawn[False]), len(drawn[True])) == (1438, 359)
    assert not set(drawn[False]) & set(drawn[True])


def test_files_are_the_same_for_a_seed(tmp_path):
    for folder, seed in (("one", "0"), ("again", "0"), ("other", "1")):
        make_digit_tasks.main([str(tmp_path / folder), "--count", "10", "--seed", seed])
    for task in make_digit_tasks.TASKS:
        files = sorted(
            str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one" / task).rglob("*") if path.is_file()
        )
        assert len(files) == (12 if task != "nlvr2" else 24) + 2
        equal, _, _ = filecmp.cmpfiles(tmp_path / "one", tmp_path / "again", files, shallow=False)
        assert equal == files
        with open(tmp_path / "one" / task / "val.csv", newline="") as file:
            table = list(csv.DictReader(file))
        assert len(table) == 2 and tuple(table[0]) == make_digit_tasks.TASKS[task][1]
    assert not filecmp.cmp(tmp_path / "one/vqa/train/00000.png", tmp_path / "other/vqa/train/00000.png", shallow=False)
