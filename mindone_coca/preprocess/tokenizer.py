"""CLIP's byte-pair tokenizer, with the ids and the text of open_clip 3.3.0's `SimpleTokenizer`."""

import gzip
import html
from collections.abc import Iterable, Iterator
from importlib import resources
from itertools import pairwise
from typing import Any

import ftfy
import numpy as np
import regex

from mindone_coca.argument_names import names_arguments
from mindone_coca.errors import InputError

_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_N_MERGES = 48894  # the file holds more; CLIP's vocabulary stops at 49408 = 2 * 256 bytes + merges + 2 specials
_WORD_END = "</w>"
_START, _END = "<start_of_text>", "<end_of_text>"
_WORD = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)
_CACHE_LIMIT = 1 << 17  # words; keeps memory bounded when a large corpus is tokenized


def _byte_symbols() -> list[str]:
    """Return the printable character that stands for each byte 0..255 in the merges file, in byte order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _clean(text: str) -> str:
    """Mend broken Unicode, resolve HTML entities (also doubly escaped ones), collapse white space, lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Text to token ids and back: open_clip's `SimpleTokenizer`, `clean="lower"`.

    Attributes: `vocab_size` (49408), `sot_token_id` (49406), `eot_token_id` (49407). Rows are padded with id 0.
    """

    def __init__(self) -> None:
        packed = resources.files(__package__).joinpath(_MERGES_FILE).read_bytes()
        lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : _N_MERGES + 1]
        merges = [tuple(line.split()) for line in lines]

        self._byte_symbols = _byte_symbols()
        # Ids follow the order of CLIP's table: printable bytes, the other bytes, both again as word ends, merges.
        singles = sorted(self._byte_symbols, key=lambda symbol: (ord(symbol) >= 256, ord(symbol)))
        vocabulary = [*singles, *(s + _WORD_END for s in singles), *map("".join, merges), _START, _END]
        self._ids = {symbol: token_id for token_id, symbol in enumerate(vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}

        byte_of = {symbol: byte for byte, symbol in enumerate(self._byte_symbols)}
        self._token_bytes = [bytes(byte_of[symbol] for symbol in token) for token in vocabulary]

        self.vocab_size = len(vocabulary)
        self.sot_token_id = self._ids[_START]
        self.eot_token_id = self._ids[_END]
        self._cache: dict[str, list[int]] = {}

    @names_arguments
    def __call__(self, texts: str | Iterable[str], context_length: int = 77) -> np.ndarray:
        """Tokenize one text or several; return an int32 array of shape (B, context_length).

        A row is start token, text, end token, zeros. A longer text is cut, and its last id is the end token.
        CoCa's published models use `context_length=76`. Raises InputError for anything but strings and for a
        context length below 1.
        """
        texts = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
        if context_length < 1:
            raise InputError(f"context_length is {context_length}; it must be at least 1")
        rows = np.zeros((len(texts), context_length), dtype=np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.sot_token_id]
            for word_ids in self._words(text):
                ids += word_ids
                if len(ids) >= context_length:  # the rest of a long text would be cut anyway
                    break
            ids.append(self.eot_token_id)
            if len(ids) > context_length:
                ids = ids[:context_length]
                ids[-1] = self.eot_token_id
            row[: len(ids)] = ids
        return rows

    def encode(self, text: str) -> list[int]:
        """Return the ids of the whole text, without start and end token and without a length limit."""
        return [token_id for word_ids in self._words(text) for token_id in word_ids]

    @names_arguments
    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """Turn one row of ids (list, array or tensor, 1-D) into text.

        By default this is open_clip's text: start and end tokens are spelled out, and padding, id 0, reads "!".
        With `skip_special_tokens` it is the text between the first start token (or the beginning) and the first
        end token after it (or the end), stripped. Raises InputError for more than one row and for ids outside
        the vocabulary.
        """
        if hasattr(ids, "asnumpy"):  # a MindSpore tensor
            ids = ids.asnumpy()
        array = np.asarray(ids)
        if array.size == 0 and array.ndim == 1:
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(
                f"decode takes one row of integer ids, not {array.dtype} of shape {array.shape}; pass rows one by one"
            )
        if array.min() < 0 or array.max() >= self.vocab_size:
            wrong = array[(array < 0) | (array >= self.vocab_size)][0]
            raise InputError(f"token id {wrong} is outside the vocabulary of {self.vocab_size} entries")
        row = array.tolist()
        if skip_special_tokens:
            row = self._between_specials(row)
        text = b"".join(self._token_bytes[token_id] for token_id in row).decode("utf-8", errors="replace")
        text = text.replace(_WORD_END, " ")
        return text.strip() if skip_special_tokens else text

    def _between_specials(self, row: list[int]) -> list[int]:
        if self.sot_token_id in row:
            row = row[row.index(self.sot_token_id) + 1 :]
        if self.eot_token_id in row:
            row = row[: row.index(self.eot_token_id)]
        return [token_id for token_id in row if token_id != self.sot_token_id]

    def _words(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of each word of the cleaned text."""
        if not isinstance(text, str):
            raise InputError(f"the tokenizer takes strings, not {type(text).__name__}: {text!r:.80}")
        for match in _WORD.finditer(_clean(text)):
            word = match.group()
            ids = self._cache.get(word)
            if ids is None:
                if len(self._cache) >= _CACHE_LIMIT:
                    self._cache.clear()
                ids = self._cache[word] = self._word_ids(word)
            yield ids

    def _word_ids(self, word: str) -> list[int]:
        """Merge the word's bytes pair by pair, the pair that CLIP learned first before all others."""
        if word in (_START, _END):
            return [self._ids[word]]
        symbols = [self._byte_symbols[byte] for byte in word.encode("utf-8")]
        symbols[-1] += _WORD_END
        while len(symbols) > 1:
            pair = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, _N_MERGES))
            if pair not in self._ranks:
                break
            merged: list[str] = []
            i = 0
            while i < len(symbols):
                if i + 1 < len(symbols) and symbols[i] == pair[0] and symbols[i + 1] == pair[1]:
                    merged.append(symbols[i] + symbols[i + 1])
                    i += 2
                else:
                    merged.append(symbols[i])
                    i += 1
            symbols = merged
        return [self._ids[symbol] for symbol in symbols]
