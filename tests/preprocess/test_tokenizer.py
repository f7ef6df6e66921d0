"""The tokenizer against open_clip's `SimpleTokenizer`, run live."""

import functools
import hashlib
import html
import pickle
import random
import subprocess
import sys
import unicodedata
from importlib import resources

import mindspore
import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.preprocess.tokenizer import Tokenizer
from tests.reference import open_clip, torch

SimpleTokenizer = open_clip.tokenizer.SimpleTokenizer

MERGES_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"

# First and last code point of blocks that cover the living scripts, symbols, controls and private use.
BLOCKS = [
    (0x0000, 0x001F),
    (0x0020, 0x007E),
    (0x007F, 0x00A0),
    (0x00A1, 0x00FF),
    (0x0100, 0x024F),
    (0x0250, 0x02AF),
    (0x0300, 0x036F),
    (0x0370, 0x03FF),
    (0x0400, 0x04FF),
    (0x0530, 0x058F),
    (0x0590, 0x05FF),
    (0x0600, 0x06FF),
    (0x0900, 0x097F),
    (0x0980, 0x09FF),
    (0x0A80, 0x0AFF),
    (0x0B80, 0x0BFF),
    (0x0C00, 0x0C7F),
    (0x0D00, 0x0D7F),
    (0x0E00, 0x0E7F),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x10A0, 0x10FF),
    (0x1100, 0x11FF),
    (0x1200, 0x137F),
    (0x13A0, 0x13FF),
    (0x1780, 0x17FF),
    (0x1800, 0x18AF),
    (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFF),
    (0x2000, 0x206F),
    (0x2070, 0x20CF),
    (0x2100, 0x218F),
    (0x2190, 0x23FF),
    (0x2500, 0x27BF),
    (0x2E80, 0x2FDF),
    (0x3000, 0x30FF),
    (0x3400, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xAC00, 0xD7A3),
    (0xD800, 0xDFFF),
    (0xE000, 0xF8FF),
    (0xFB00, 0xFDFF),
    (0xFE00, 0xFFFF),
    (0x10000, 0x100FF),
    (0x12000, 0x123FF),
    (0x1D400, 0x1D7FF),
    (0x1F000, 0x1F2FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F),
    (0x10FF00, 0x10FFFF),
]

HAND_PICKED = [
    "",
    " ",
    "\t\n\r\v\f",
    "\x00",
    "\x1c\x1d\x1e\x1f\x85",
    "!",
    "!!!!",
    "a!b !",
    "!(",
    "a dog",
    "A DOG'S LIFE, I'LL SAY",
    "<end_of_text>",
    "<start_of_text>",
    "a <end_of_text> b",
    "<END_OF_TEXT>",
    "x<end_of_text>",
    "!<end_of_text>",
    "<end_of_text><start_of_text>",
    "&lt;end_of_text&gt;",
    "&amp;lt;end_of_text&amp;gt;",
    "</w>",
    "a</w>b",
    "&amp;amp;amp; &quot;x&quot; &#x1F600; &nbsp;|&nbsp; &bogus; &#0; &#xD800;",
    "<b>bold</b><br/>",
    "it'ſ",
    "<ſtart_of_text>",
    "K Å ſ ß ẞ İ ı ǅ ﬁ",
    "schÃ¶n, doesnâ€™t, âœ”",
    "“quotes” ‘single’ … — –",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 1️⃣",
    "ｆｕｌｌ ｗｉｄｔｈ",
    "٣٤٥ ४५६ ⅷ ½ ²",
    "a\u200bb\ufeffc\u00adz",
    "\ud800",
    "a\ud83d\ude00b",
    "\x1b[31mred\x1b[0m",
    "e\u0301 \u00e9",
    "𝕄𝕒𝕥𝕙",
    "word " * 500,
    "x" * 3000,
    "日本語" * 400,
    "1234567890" * 30,
    "\u0301" * 90,
]


def random_texts(count: int, seed: int) -> list[str]:
    """Return strings of one script, of mixed scripts, of words, HTML and special tokens, some far too long."""
    rng = random.Random(seed)
    words = [
        "a",
        "the",
        "cat",
        "dog's",
        "they'll",
        "running",
        "snow's",
        "2nd",
        "1999",
        "U.S.A.",
        "e-mail",
        "http://x.io/?q=1&amp;b=2",
    ]
    pieces = [
        "<end_of_text>",
        "<start_of_text>",
        "</w>",
        "&lt;",
        "&amp;",
        "&#39;",
        "&eacute;",
        "<p>",
        "\x00",
        "\x07",
        "'s",
        "'",
    ]

    def from_block(block: tuple[int, int], length: int) -> str:
        return "".join(chr(rng.randint(*block)) for _ in range(length))

    def one() -> str:
        kind = rng.randrange(6)
        length = rng.choice([1, 2, 5, 20, 20, 60, 300])
        if kind == 0:
            return from_block(rng.choice(BLOCKS), length)
        if kind == 1:
            return "".join(from_block(rng.choice(BLOCKS), rng.randint(1, 6)) for _ in range(length // 4 + 1))
        if kind == 2:
            return " ".join(rng.choice(words) for _ in range(length))
        if kind == 3:
            return "".join(rng.choice([*pieces, *words, " ", "  ", "\n"]) for _ in range(length))
        if kind == 4:
            return html.escape(from_block(rng.choice(BLOCKS), length)) + rng.choice(pieces)
        return (
            from_block((0, 0x24F), length).encode("utf-8").decode(rng.choice(["latin-1", "cp1252"]), errors="replace")
        )

    return [one() for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def reference() -> open_clip.tokenizer.SimpleTokenizer:
    """open_clip's, which tokenizes a text once for all tests."""
    tokenizer = SimpleTokenizer()
    tokenizer.encode = functools.cache(tokenizer.encode)
    return tokenizer


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return HAND_PICKED + random_texts(5000, seed=7)


def test_merges_file_is_the_one_named_in_the_notice():
    folder = resources.files("mindone_coca.preprocess")
    packed = folder.joinpath("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == MERGES_SHA256
    assert MERGES_SHA256 in folder.joinpath("NOTICE.md").read_text()


def test_texts_cover_many_scripts(texts):
    categories = {unicodedata.category(character) for text in texts for character in text}
    assert categories == {  # every general category of Unicode
        *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"),
        *("Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"),
    }


def test_encode_equals_open_clip(tokenizer, reference, texts):
    for text in texts:
        assert tokenizer.encode(text) == reference.encode(text), repr(text)


@pytest.mark.graphs
@pytest.mark.parametrize("context_length", [77, 76, 16, 2, 1])
def test_rows_equal_open_clip(tokenizer, reference, texts, context_length):
    rows = tokenizer(texts, context_length)
    assert rows.dtype == np.int32 and rows.shape == (len(texts), context_length)
    np.testing.assert_array_equal(rows, reference(texts, context_length).numpy())


def test_one_text_is_a_batch_of_one_and_77_is_the_default(tokenizer, reference):
    np.testing.assert_array_equal(tokenizer("a dog"), reference("a dog").numpy())
    assert tokenizer([]).shape == (0, 77)


def test_sizes_and_special_ids(tokenizer, reference):
    assert tokenizer.vocab_size == reference.vocab_size == 49408
    assert (tokenizer.sot_token_id, tokenizer.eot_token_id) == (reference.sot_token_id, reference.eot_token_id)
    assert (tokenizer.sot_token_id, tokenizer.eot_token_id) == (49406, 49407)


def test_decode_equals_open_clip_on_every_id_and_on_random_rows(tokenizer, reference):
    for token_id in range(tokenizer.vocab_size):
        assert tokenizer.decode([token_id]) == reference.decode([token_id])
    rng = np.random.default_rng(3)
    for length in rng.integers(0, 80, size=500):
        row = rng.integers(0, tokenizer.vocab_size, size=length)
        assert tokenizer.decode(row) == reference.decode(row.tolist())


def test_decode_without_specials_is_the_text_between_start_and_end(tokenizer):
    row = tokenizer("A cat's life!", 12)[0]
    assert tokenizer.decode(row) == "<start_of_text>a cat 's life ! <end_of_text>" + "!" * 5
    assert tokenizer.decode(row, skip_special_tokens=True) == "a cat 's life !"
    start, end, cat, dog = 49406, 49407, 2368, 1929
    for ids, text in [
        ([cat, dog], "cat dog"),
        ([end, start, cat, end, dog], "cat"),
        ([dog, start, cat], "cat"),
        ([cat, end, dog], "cat"),
        ([start, start, cat, start, dog, end], "cat dog"),
        ([start, end, cat], ""),
        ([start, 0, end, 0, 0], "!"),
        ([], ""),
    ]:
        assert tokenizer.decode(ids, skip_special_tokens=True) == text, ids


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, torch.tensor, lambda ids: mindspore.Tensor(ids, mindspore.int32)]
)
def test_decode_takes_lists_arrays_and_tensors(tokenizer, kind):
    assert tokenizer.decode(kind([49406, 2368, 49407]), skip_special_tokens=True) == "cat"


@pytest.mark.parametrize("ids", [[[1, 2]], 5, [0.5], [-1], [49408]])
def test_decode_refuses_what_is_not_one_row_of_ids(tokenizer, ids):
    with pytest.raises(InputError, match=r"pass rows one by one|outside the vocabulary"):
        tokenizer.decode(ids)


@pytest.mark.parametrize("texts", [[None], ["a", 3], b"bytes"])
def test_only_strings_are_tokenized(tokenizer, texts):
    with pytest.raises(InputError, match="takes strings, not"):
        tokenizer(texts)


@pytest.mark.parametrize("length", [0, -1])
def test_context_length_must_be_positive(tokenizer, length):
    with pytest.raises(InputError, match="at least 1"):
        tokenizer("a", length)


def test_a_full_cache_changes_nothing(tokenizer, texts, monkeypatch):
    expected = tokenizer(texts[:300])
    monkeypatch.setattr("mindone_coca.preprocess.tokenizer._CACHE_LIMIT", 3)
    small = Tokenizer()
    np.testing.assert_array_equal(small(texts[:300]), expected)
    assert len(small._cache) <= 3


def test_can_be_sent_to_worker_processes(tokenizer):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tokenizer))("a dog"), tokenizer("a dog"))


def test_works_from_another_directory(tmp_path):
    code = "from mindone_coca.preprocess.tokenizer import Tokenizer; print(Tokenizer().encode('a dog'))"
    search_path = str(resources.files("mindone_coca").joinpath(".."))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": search_path}, capture_output=True, text=True
    )
    assert done.stdout == "[320, 1929]\n", done.stderr
