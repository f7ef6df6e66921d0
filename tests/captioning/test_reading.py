"""Reading ahead: in order, bounded, ended with the run; and what goes wrong stays with its file."""

import threading
import time

import pytest

from mindone_coca.captioning.reading import ReadAhead, ReadingFailed
from mindone_coca.errors import InputError


def test_order_errors_and_bounds():
    lead, begun, taken = [], [], []

    def read(path):
        begun.append(path)
        if path == "7":
            raise InputError("7: is damaged")
        for number in range(20):
            lead.append((len(begun), number))
            if path == "9" and number == 3:
                raise KeyError("odd")
            yield f"{path}-{number}"

    with ReadAhead(read, workers=3, frames_each=8) as reader:  # four files ahead
        for path, items in reader.files(map(str, range(30))):
            try:
                for item in items:
                    taken.append(item)
                    assert len(begun) <= int(path) + 5
            except ReadingFailed as error:
                taken.append(str(error))
    want = []
    for path in range(30):
        if path == 7:
            want.append("7: is damaged")
            continue
        want += [f"{path}-{number}" for number in range(3 if path == 9 else 20)]
        if path == 9:
            want.append("9: cannot be read (KeyError: 'odd')")
    assert taken == want


def test_threads_end_when_the_run_is_left_early():
    def read(path):
        while True:
            yield path

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), ReadAhead(read, workers=2, frames_each=1) as reader:
        for _, items in reader.files(["a", "b", "c"]):
            next(items)
            raise ZeroDivisionError
    assert threading.active_count() == before


def test_a_reader_waits_for_the_model():
    given = []

    def read(path):
        for number in range(1000):
            given.append(number)
            yield number

    with ReadAhead(read, workers=1, frames_each=1) as reader:
        _, items = next(reader.files(["long"]))
        next(items)
        time.sleep(0.3)
        assert len(given) < 20  # however long the file
