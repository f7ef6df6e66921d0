"""Classes of zero-shot classification by labels in lists: each has its name, or the list is refused."""

import json

import pytest

from mindone_coca.data.settings import SourceConfig
from mindone_coca.errors import InputError
from mindone_coca.evaluation.zeroshot import open_classes
from tests.data.training_samples import write_csv, write_images

NAMES = {"0": "zero", "1": "one", "2": "two"}


def classes(folder, labels, names=NAMES):
    write_images(folder, len(labels))
    rows = [(f"{number:02}.jpg", label) for number, label in enumerate(labels)]
    path = write_csv(folder / "list.csv", rows, ("filepath", "label"), ",")
    (folder / "names.json").write_text(json.dumps(names))
    return open_classes(SourceConfig(str(path), label_key="label"), str(folder / "names.json"))


@pytest.mark.parametrize("labels", [["0", "1", "2"], ["0.0", "1.0", "2.0"], ["0.00", "1.", " 2.0 "]])
def test_labels_that_pandas_wrote_as_floats_have_their_names(tmp_path, labels):
    found = classes(tmp_path, labels)
    assert found.names == ["zero", "one", "two"] and found.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "labels, unnamed",
    [
        (["0.0", "1.0", "7.0", "7.0"], r"no name for 1 of the 3 labels: '7\.0' \(2 samples\)"),
        (["0", "1.5"], r"'1\.5' \(1 sample"),
        (["cat", "dog"], r"no name for 2 of the 2 labels: 'cat' \(1 sample\), 'dog'"),
        (
            [str(number) for number in range(3, 30)],
            r"no name for 27 of the 27 labels: .* and 24 more; it has names for",
        ),
    ],
)
def test_labels_without_a_name_are_refused(tmp_path, labels, unnamed):
    with pytest.raises(InputError, match=unnamed) as caught:
        classes(tmp_path, labels)
    assert "names.json" in str(caught.value) and "\n" not in str(caught.value)


def test_labels_that_are_names_themselves_are_counted(tmp_path, caplog):
    found = classes(tmp_path, ["red_fox", "cat", "cat"], {"red_fox": "vixen"})
    assert sorted(found.names) == ["cat", "vixen"]
    assert "no name for 1 of the 2 labels: 'cat' (2 samples); they stand for their own names" in caplog.text


def test_rows_that_cannot_be_used_end_an_evaluation(tmp_path):
    """Unlike training, evaluation leaves none out."""
    write_images(tmp_path, 30)
    path = write_csv(tmp_path / "list.csv", [(f"{n:02}.jpg", "a") for n in range(30)], ("filepath", "label"), ",")
    path.write_text(path.read_text() + "00.jpg,a,b\n")
    with pytest.raises(InputError, match=r"line 32: 3 columns .*; 1 of 31 rows cannot be used$"):
        open_classes(SourceConfig(str(path), label_key="label"))
