"""Lists and folders on evaluate.py's command line that end it before a model is loaded, and what it reads of others."""

import argparse

import pytest

from mindone_coca.cli import evaluate
from tests.data.training_samples import write_images

ARGUMENTS = ["captioning", "-c", "configs/coca_tiny.yaml", "--data"]


@pytest.mark.parametrize(
    "rows, said",
    [
        ('00.jpg,"a dog\n01.jpg,a cat\n', "list.csv: line 2: a quote is opened here and never closed"),
        ("00.jpg,a dog, and a cat\n01.jpg,a cat\n", "list.csv: line 2: 3 columns where the header has 2"),
        ("00.jpg,a dog\n01.jpg\n", "list.csv: line 3: 1 of the header's 2 columns"),
        ("00.jpg,a dog\n01.jpg,\n", "01.jpg: there is no text with it"),
    ],
)
def test_one_line_and_exit_code_2(tmp_path, capfd, rows, said):
    write_images(tmp_path, 2)
    (tmp_path / "list.csv").write_text(f"filepath,title\n{rows}")
    assert evaluate.main([*ARGUMENTS, str(tmp_path / "list.csv")]) == 2
    output = capfd.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert output.out == "" and len(errors) == 1 and said in errors[0]


def test_a_folder_with_caption_files(tmp_path, capfd):
    write_images(tmp_path, 3)
    for number in range(3):
        (tmp_path / f"{number:02}.txt").write_text(f"picture {number}\nand again\n")
    options = {"task": "captioning", "data": str(tmp_path), "caption_extension": ".txt", "caption_lines": True}
    options["open_clip_pictures"] = False
    samples = evaluate.captioned_samples(argparse.Namespace(**options))
    assert [item.captions for item in samples.items] == [[f"picture {number}", "and again"] for number in range(3)]
    assert evaluate.main([*ARGUMENTS, str(tmp_path)]) == 2
    assert "--caption_extension if there are caption files beside the pictures" in capfd.readouterr().err
    (tmp_path / "01.txt").unlink()
    assert evaluate.main([*ARGUMENTS, str(tmp_path), "--caption_extension", ".txt"]) == 2
    assert "01.jpg has no .txt file beside it; 1 of 3 files cannot be used" in capfd.readouterr().err


def test_a_key_twice_in_a_shard_is_two_items(tmp_path):
    from tests.data.fuzz_shards import END, member

    images = write_images(tmp_path, 2)
    content = b"".join(member("0.jpg", image) + member("0.txt", b"text %d" % n) for n, image in enumerate(images))
    (tmp_path / "x.tar").write_bytes(content + END)
    samples = evaluate.captioned_samples(
        argparse.Namespace(task="captioning", data=str(tmp_path / "x.tar"), open_clip_pictures=False)
    )
    assert [item.captions for item in samples.items] == [["text 0"], ["text 1"]]
