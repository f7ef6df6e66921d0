"""Caption metrics against pycocoevalcap's pure-Python parts, and the whole command."""

import json
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

import evaluate
from mindone_coca.captioning.batches import one_line
from mindone_coca.evaluation.caption_scores import bleu, cider_d, common_length, rouge_l, score_captions, tokenize
from mindone_coca.evaluation.captioning import image_ids
from mindone_coca.evaluation.samples import Item
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_transforms
from tests.evaluation.conftest import CLASSES, EACH, captions_of
from tests.reference import torch

WORDS = ("a", "the", "dog", "cat", "man", "woman", "rides", "sits", "on", "under", "red", "bike", "table", "with", "of")
SENTENCES = (
    "A man's dog isn't here, it's gone!",
    'A sign reads "STOP" & go; 3.5 km at 10:30 for $5.00, 50% off',
    "I can't; they're we've I'd you'll I'm, cannot",
    "Two black-and-white cats - one sleeping - on a sofa...",
    "a t-shirt with #1 and/or 2/3 of pizza",
    "the dogs' bowls and the 1990's car -- men's",
    "a 'quoted' word: 1,000 cafés",
    "o'clock tower; John O'Neil's 2nd-floor flat?",
    "A giraffe eats leaves.",
    "",
    "x_y under_score",
)


def sentences(rng: np.random.Generator, count: int) -> list[str]:
    return [" ".join(rng.choice(WORDS, rng.integers(5, 14))) for _ in range(count)]


@pytest.fixture(scope="module")
def corpus() -> tuple[list[list[str]], list[list[list[str]]]]:
    """Captions near their references, as lists of words; among them an empty one, a short one and an exact one."""
    rng = np.random.default_rng(3)
    references = [sentences(rng, int(rng.integers(1, 6))) for _ in range(80)]
    candidates = []
    for several in references:
        words = several[0].split()
        for place in rng.integers(0, len(words), 3):
            words[place] = str(rng.choice(WORDS))
        candidates.append(" ".join(words[: len(words) - int(rng.integers(0, 4))]))
    candidates[:3] = ["", "dog", references[2][-1]]
    return [text.split() for text in candidates], [[text.split() for text in several] for several in references]


def theirs(metric, corpus) -> tuple:
    candidates, references = corpus
    return metric.compute_score(
        {i: [" ".join(words) for words in several] for i, several in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(candidates)},
    )


def test_bleu(corpus, capsys):
    expected, _ = theirs(Bleu(4), corpus)
    assert bleu(*corpus) == pytest.approx(expected, abs=1e-8)
    assert 0.2 < expected[3] < expected[0] < 0.9


def test_bleu_of_short_captions_is_punished():
    assert bleu([["a", "dog"]], [[["a", "dog", "runs"]]])[0] == pytest.approx(np.exp(1 - 3 / 2))
    assert bleu([["a", "dog"]], [[["a", "dog", "runs"], ["dog"]]])[0] == 1  # of two as close the shorter counts
    assert bleu([[]], [[["a"]]]) == [0, 0, 0, 0]


def test_rouge(corpus):
    mean, each = theirs(Rouge(), corpus)
    assert rouge_l(*corpus) == pytest.approx(each, abs=1e-12)
    assert rouge_l(*corpus).mean() == pytest.approx(mean, abs=1e-12)
    assert common_length("abcbdab", "bdcaba") == 4


def test_cider(corpus):
    mean, each = theirs(Cider(), corpus)
    assert cider_d(*corpus) == pytest.approx(each, abs=1e-9)
    assert mean > 0.5 and cider_d(*corpus)[0] == 0


def test_all_metrics_of_raw_captions():
    metrics, each = score_captions(["A dog's here!", "Two cats."], [["a dog's here"], ["two cats", "a cat"]])
    assert list(metrics) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert metrics["ROUGE_L"] == 1 and metrics["CIDEr"] == pytest.approx(each.mean())


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java here: Stanford's tokenizer needs it")
def test_words_are_those_of_the_java_tokenizer():
    tokens = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(SENTENCES)})
    assert [tokenize(text) for text in SENTENCES] == [tokens[i][0].split() for i in range(len(SENTENCES))]


@pytest.mark.graphs
def test_command(model, reference, pictures, tmp_path, capfd):
    arguments = [*model, "--data", str(pictures / "coco.json"), "--output_dir", str(tmp_path)]
    # the default of 30 tokens is more than this model has, and open_clip fails with it
    assert evaluate.main(["captioning", *arguments, "--num_beams", "2"]) == 0
    printed = dict(line.split() for line in capfd.readouterr().out.splitlines())
    assert list(printed)[:6] == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    results = json.loads((tmp_path / "captions_results.json").read_bytes())
    count = len(CLASSES) * EACH
    assert [row["image_id"] for row in results] == [500 + number for number in range(count)]
    files = [pictures / f"classes/{CLASSES[number // EACH]}/{number:02}.png" for number in range(3)]
    images = torch.from_numpy(np.stack([create_transforms(32)(Image.open(file)) for file in files]))
    ids = reference.generate(images, seq_len=17, min_seq_len=5, num_beams=2, num_beam_groups=1)
    captions = [one_line(Tokenizer().decode(row.numpy(), skip_special_tokens=True)) for row in ids]
    assert [row["caption"] for row in results[:3]] == captions
    expected, _ = score_captions([row["caption"] for row in results], [captions_of(n) for n in range(count)])
    content = json.loads((tmp_path / "metrics.json").read_bytes())
    assert {key: content["metrics"][key] for key in expected} == pytest.approx(expected)
    assert content["examples"] == {"shown": count, "right": 0, "wrong": 0}
    assert content["metrics"]["images"] == count == int(printed["images"])


def test_image_ids():
    def ids(*found: tuple[str, int | None]) -> Sequence[int | str]:
        return image_ids([Item(0, name, ["a"], number) for name, number in found])

    assert ids(("a/x.png", 4), ("b/x.png", 0)) == [4, 0]
    assert ids(("a/x.png", None), ("b/y.png", None)) == ["x.png", "y.png"]
    assert ids(("a/x.png", None), ("b/x.png", None)) == ["a/x.png", "b/x.png"]


@pytest.mark.graphs
def test_options_that_do_not_go_together(model, pictures, capfd):
    arguments = [*model, "--data", str(pictures / "coco.json"), "--seq_len", "5", "--min_seq_len", "5"]
    assert evaluate.main(["captioning", *arguments]) == 2
    output = capfd.readouterr()
    assert output.out == "" and "error: seq_len: 5 must be larger than min_seq_len 5" in output.err
