"""BLEU, ROUGE-L and CIDEr-D of captions, as COCO's evaluation computes them, without Java.

Tokenisation: lower case; words, numbers and hyphenated words stay whole; clitics are split off ("it 's", "do n't") as
in the Penn Treebank; punctuation is dropped. COCO's own figures go through Stanford's Java tokenizer, which differs in
rare cases (it leaves brackets and the points of abbreviations, and splits "gonna"), so they may differ slightly.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = (1, 2, 3, 4)  # of n-grams
ROUGE_BETA = 1.2  # weight of recall
CIDER_SIGMA = 6.0  # of the penalty for lengths that differ, in words
_WORD = re.compile(r"\d+(?:[.,:/]\d+)+|\w+(?:[-/&.]\w+)*(?:'\w+)*|[$£€%&#@+=]")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))$")

Tokens = Sequence[str]


def tokenize(caption: str) -> list[str]:
    """The words that are compared."""
    tokens = []
    for word in _WORD.findall(caption.lower().replace("’", "'")):
        clitic = _CLITIC.search(word)
        if word == "cannot":
            tokens += ["can", "not"]
        elif clitic:
            tokens += [word[: clitic.start()], clitic[1]]
        else:
            tokens.append(word)
    return tokens


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the whole set (Papineni et al. 2002), against the reference closest in length.

    0 where no n-gram of that order matches, as among captions of fewer words; COCO's code gives a small number there.
    """
    matched, total = np.zeros(len(ORDERS)), np.zeros(len(ORDERS))
    length = reference_length = 0
    for candidate, several in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(words) - len(candidate)), len(words)) for words in several)[1]
        for index, order in enumerate(ORDERS):
            most: Counter = Counter()
            for words in several:
                most |= ngrams(words, order)
            counts = ngrams(candidate, order)
            matched[index] += (counts & most).total()
            total[index] += counts.total()
    brevity = min(1.0, math.exp(1 - reference_length / length)) if length else 0.0
    precisions = matched / np.maximum(total, 1)
    return [brevity * float(np.prod(precisions[:order])) ** (1 / order) for order in ORDERS]


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """ROUGE-L of each caption (Lin 2004), from the best precision and the best recall among its references."""
    scores = np.zeros(len(candidates))
    for index, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        common = [common_length(candidate, words) for words in several]
        if max(common):
            precision = max(common) / len(candidate)
            recall = max(count / max(len(words), 1) for count, words in zip(common, several))
            scores[index] = (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)
    return scores


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> np.ndarray:
    """CIDEr-D of each caption (Vedantam et al. 2015), from 0 to 10.

    n-grams are weighed by how few images' references have them, so a score depends on the whole set, and is 0 in a set
    of one image.
    """
    grams = [[_all_ngrams(words) for words in several] for several in references]
    images_with = Counter(gram for several in grams for gram in {gram for counts in several for gram in counts})
    log_images = math.log(len(references)) if references else 0.0

    def weigh(counts: Counter) -> tuple[dict[tuple[str, ...], float], list[float]]:
        """Weights of n-grams, and their norms by order."""
        weights = {gram: n * (log_images - math.log(max(images_with[gram], 1))) for gram, n in counts.items()}
        squares = [0.0] * len(ORDERS)
        for gram, weight in weights.items():
            squares[len(gram) - 1] += weight**2
        return weights, [math.sqrt(square) for square in squares]

    scores = np.zeros(len(candidates))
    for index, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        weights, norms = weigh(_all_ngrams(candidate))
        for words, counts in zip(several, grams[index]):
            others, other_norms = weigh(counts)
            products = [0.0] * len(ORDERS)
            for gram in weights.keys() & others.keys():
                products[len(gram) - 1] += min(weights[gram], others[gram]) * others[gram]
            cosines = [p / (a * b) for p, a, b in zip(products, norms, other_norms) if a and b]
            penalty = math.exp(-((len(candidate) - len(words)) ** 2) / (2 * CIDER_SIGMA**2))
            scores[index] += 10 * penalty * sum(cosines) / len(ORDERS) / len(several)
    return scores


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], np.ndarray]:
    """All metrics of one caption for each image against its references, and each image's CIDEr-D."""
    words = [tokenize(caption) for caption in candidates]
    expected = [[tokenize(caption) for caption in several] for several in references]
    cider = cider_d(words, expected)
    metrics = {f"Bleu_{order}": value for order, value in zip(ORDERS, bleu(words, expected))}
    return metrics | {"ROUGE_L": float(rouge_l(words, expected).mean()), "CIDEr": float(cider.mean())}, cider


def ngrams(words: Tokens, order: int) -> Counter:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def _all_ngrams(words: Tokens) -> Counter:
    return sum((ngrams(words, order) for order in ORDERS), Counter())


def common_length(first: Tokens, second: Tokens) -> int:
    """The length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)  # of what was seen of `first` with each start of `second`
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, 1):
            diagonal, lengths[column] = (
                lengths[column],
                diagonal + 1 if word == other else max(lengths[column], lengths[column - 1]),
            )
    return lengths[-1]
