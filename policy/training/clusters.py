"""Select one text per cluster, so that frequent boilerplate does not dominate.

The clusters come from k-means over TF-IDF vectors (paper, section 4.1). Each word is hashed to one of `WIDTH` columns
of dense vectors. To cluster the few thousand blocks of a repository in this way takes only a few matrix products, and
needs no further library.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WIDTH = 1024
ROUNDS = 12


def representatives(texts: Sequence[str], wanted: int, seed: int) -> list[int]:
    """Return the indexes of up to `wanted` texts, one random text per cluster.

    There is one cluster per five texts, as in the paper, but there are at most `wanted` clusters.
    """
    count = min(wanted, max(1, len(texts) // 5))
    if not texts or wanted <= 0:
        return []
    random = np.random.default_rng(seed)
    labels = k_means(tf_idf(texts), count, random)
    return [int(random.choice(np.flatnonzero(labels == label))) for label in np.unique(labels)]


def tf_idf(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return a unit vector for each text, shape (texts, `WIDTH`).

    Words with the same hash (modulo `WIDTH`) share a column. The value of a column is the sum of 1 + ln(n) over its
    words in the text, where n is how often the word occurs in the text. It is multiplied by the column's inverse
    document frequency. Then each row is scaled to length 1.
    """
    vectors = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        for word, count in Counter(re.findall(r"\w+", text)).items():
            vectors[row, zlib.crc32(word.encode()) % WIDTH] += 1 + np.log(count)
    vectors *= np.log((1 + len(texts)) / (1 + np.count_nonzero(vectors, axis=0))) + 1
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return vectors


def k_means(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return the cluster of each row, shape (rows,). Rows are unit vectors, compared by their cosine similarity.

    The clusters are numbered from 0 to `count` - 1, and some may be empty.
    """
    means = vectors[_initial_means(vectors, count, random)]
    labels = np.zeros(len(vectors), np.intp)
    for _ in range(ROUNDS):
        before, labels = labels, np.argmax(vectors @ means.T, axis=1)
        if np.array_equal(before, labels):
            break
        sums = np.zeros_like(means)
        np.add.at(sums, labels, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        means = np.where(norms > 0, sums / np.maximum(norms, 1e-9), means)
    return labels


def _initial_means(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> list[int]:
    """Return the indexes of the rows that are the first means, chosen as in k-means++.

    Rows that are unlike those chosen before are more likely to be chosen.
    """
    chosen = [int(random.integers(len(vectors)))]
    nearest = vectors @ vectors[chosen[0]]
    while len(chosen) < count:
        distance = np.maximum(1.0 - nearest, 0.0).astype(np.float64) ** 2 + 1e-12
        chosen.append(int(random.choice(len(vectors), p=distance / distance.sum())))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen
