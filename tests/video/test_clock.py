"""The arithmetic of the clock against its rules, for any list of frame times and durations."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindone_coca.video.clock import Clock, Middle, Timeline, stretches

_NOISE = 1e-5  # seconds; longer than the rounding of sums, shorter than any frame

# Milliseconds: stored times in any order, as of files that were joined, and durations, which may be missing.
stored_frames = st.lists(
    st.tuples(st.none() | st.integers(0, 20_000), st.none() | st.integers(0, 9_000)), min_size=1, max_size=40
)
lengths = st.integers(1, 30_000).map(lambda milliseconds: milliseconds / 1000)


def clock_of(stored) -> Clock:
    clock = Clock()
    for time, duration in stored:
        clock.add(None if time is None else time / 1000, None if duration is None else duration / 1000)
    return clock


def shown_spans(timeline: Timeline):
    return list(zip(timeline.times, [*timeline.times[1:], timeline.end]))


@settings(deadline=None)
@given(stored_frames)
def test_times_ascend_and_a_jump_back_goes_on_from_the_end_before(stored):
    clock, shown = Clock(), []
    for time, duration in stored:
        before = clock.end if shown else None
        shown.append(clock.add(None if time is None else time / 1000, None if duration is None else duration / 1000))
        assert before is None or shown[-1] > shown[-2] or shown[-1] == before
    timeline = clock.timeline()
    assert timeline.times.tolist() == shown
    assert (np.diff(timeline.times) >= 0).all() and timeline.end >= timeline.times[-1]
    if all(duration for _, duration in stored):
        assert (np.diff(timeline.times) > 0).all() and timeline.end > timeline.times[-1]


@settings(deadline=None)
@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=40), st.integers(0, 9_000))
def test_times_that_ascend_are_kept(gaps, start):
    times = np.cumsum([start, *gaps])
    timeline = clock_of([(int(time), None) for time in times]).timeline()
    np.testing.assert_allclose(timeline.times, times / 1000)
    assert timeline.end == pytest.approx((times[-1] + gaps[-1]) / 1000)


@settings(deadline=None)
@given(stored_frames, lengths)
def test_stretches_cover_the_whole_and_show_what_is_shown_longest(stored, seconds):
    timeline = clock_of(stored).timeline()
    if (timeline.end - timeline.start) / seconds > 2_000:
        seconds = (timeline.end - timeline.start) / 2_000
    parts = stretches(timeline, seconds)
    assert parts[0].start == timeline.start and parts[-1].end == timeline.end
    assert all(before.end == after.start for before, after in pairwise(parts))
    lengths_of_parts = [part.end - part.start for part in parts]
    assert lengths_of_parts[:-1] == pytest.approx([seconds] * (len(parts) - 1))
    assert lengths_of_parts[-1] < 1.5 * seconds + _NOISE
    assert len(parts) == 1 or lengths_of_parts[-1] > 0.5 * seconds - _NOISE
    spans = shown_spans(timeline)
    for part in parts:
        begin, end = spans[part.index]
        assert begin - _NOISE <= (part.start + part.end) / 2 <= end + _NOISE
    for part in parts if len(parts) * len(spans) < 2_000 else parts[:: len(parts) // 20]:
        for index, (begin, end) in enumerate(spans):
            if min(end, part.end) - max(begin, part.start) > (part.end - part.start) / 2 + _NOISE:
                assert part.index == index
    indices = [part.index for part in parts]
    assert indices == sorted(indices)


@settings(deadline=None)
@given(stored_frames)
def test_the_middle_of_a_stretch_whose_end_comes_last(stored):
    timeline = clock_of(stored).timeline()
    middle: Middle[int] = Middle()
    for index, time in enumerate(timeline.times):
        middle.add(float(time), index)
        assert len(middle._held) <= 9
    chosen, spans = middle.shown(timeline.end), shown_spans(timeline)
    moment, length = (timeline.start + timeline.end) / 2, timeline.end - timeline.start
    begin, end = spans[chosen]
    assert begin - length / 8 - _NOISE <= moment <= end + length / 8 + _NOISE
    for index, (begin, end) in enumerate(spans):
        if end - begin > length / 2 + _NOISE:
            assert chosen == index


def test_every_stretch_of_the_length_exists_though_no_frame_begins_in_it():
    timeline = Timeline(np.array([0.0, 0.04]), 20.04)
    parts = [(part.start, part.end, part.index) for part in stretches(timeline, 5)]
    assert parts == [(0, 5, 1), (5, 10, 1), (10, 15, 1), (15, 20.04, 1)]


def test_a_still_image_is_one_stretch_of_no_length():
    [part] = stretches(Timeline(np.zeros(1), 0.0), 5)
    assert (part.start, part.end, part.index) == (0, 0, 0)


def test_the_last_frame_lasts_for_its_own_duration_else_for_the_gap_before_it():
    assert clock_of([(0, 40), (40, 20_000)]).end == pytest.approx(20.04)
    assert clock_of([(0, None), (40, None)]).end == pytest.approx(0.08)
    assert clock_of([(0, 10_000)]).end == 10
    assert clock_of([(0, None)]).end == 0


def test_three_recordings_in_one_file():
    times = [time for _ in range(3) for time in range(1_480, 3_480, 500)]
    timeline = clock_of([(time, 500) for time in times]).timeline()
    np.testing.assert_allclose(timeline.times, 1.48 + 0.5 * np.arange(12))
    assert timeline.end == pytest.approx(7.48)
