"""Which sizes batches are cut and padded to."""

import pytest

from mindone_coca import batch_sizes


@pytest.mark.parametrize("on_cpu", [True, False])
def test_parts_cover_all_items_in_sizes_that_are_compiled(monkeypatch, on_cpu):
    monkeypatch.setattr(batch_sizes, "_on_cpu", lambda: on_cpu)
    for count in range(1, 150):
        parts = list(batch_sizes.parts(count))
        assert [i for part in parts for i in range(count)[part]] == list(range(count))
        assert {part.stop - part.start for part in parts} <= set(batch_sizes.encoded_at_once())


@pytest.mark.parametrize(
    ("on_cpu", "sizes"),
    [(True, {1: 1, 2: 4, 4: 4, 5: 8, 8: 8, 9: 16}), (False, {1: 1, 2: 2, 5: 8, 33: 64, 65: 128})],
)
def test_images_are_padded_to_few_slots(monkeypatch, on_cpu, sizes):
    monkeypatch.setattr(batch_sizes, "_on_cpu", lambda: on_cpu)
    assert {count: batch_sizes.padded(count) for count in sizes} == sizes
    assert batch_sizes.may_shrink() == on_cpu


def test_a_large_model_is_trained_at_one_length_of_labels_on_the_cpu_alone(monkeypatch):
    assert batch_sizes.label_lengths(large=False) == []
    assert batch_sizes.label_lengths(large=True) == [batch_sizes.WHOLE_CONTEXT]
    monkeypatch.setattr(batch_sizes, "_on_cpu", lambda: False)
    assert batch_sizes.label_lengths(large=True) == []
