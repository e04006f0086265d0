"""Which takes belong together? Connected components over evidence, set by set.

Conventions: a take is a row; evidence that two takes are related is a shared *hub* (their audio's hash, their prompt, their user)
or a pair of audio files that were found to hold the same sound. Components come from one sparse-graph call over a million rows;
only components in which published splits contradict each other are walked row by row.

Belongs here: components and their contradictions. Does not: finding duplicates (`duplicates.py`), which split a group gets
(`splits.py`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

NO_SPLIT = 0


def prompt_key(prompt: pl.Expr) -> pl.Expr:
    """Normalise a prompt, so that equal wishes read equal: letters and digits in lower case, one space between."""
    words = prompt.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}#]+", " ").str.strip_chars()
    return pl.when(words != "").then(words)


def components(takes: pl.DataFrame, pairs: pl.DataFrame, hubs: Sequence[str]) -> np.ndarray:
    """Number the connected components of takes.

    Parameters
    ----------
    takes : pl.DataFrame
        With `audio_sha256` and the columns named in `hubs`; a null links nothing.
    pairs : pl.DataFrame
        `first_sha256`, `second_sha256`: audio files that hold the same sound.
    hubs : sequence of str
        Columns whose equal values link takes.

    Returns
    -------
    np.ndarray [shape=(takes.height,), int32, >= 0]
        Component of each take; the numbers carry no meaning.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = takes.height
    sources, targets, offset = [], [], count
    for hub in hubs:
        values = takes[hub]
        rows = values.is_not_null().to_numpy().nonzero()[0]
        hashes = values.drop_nulls().hash().to_numpy()  # 64 bits: among a million values two collide once in 40 million builds
        codes, nodes, times = np.unique(hashes, return_inverse=True, return_counts=True)
        is_shared = times > 1  # a value of one take links nothing, and most audio is such
        if hub == "audio_sha256" and not pairs.is_empty():
            first, second = (_position(pairs[side].hash().to_numpy(), codes) for side in ("first_sha256", "second_sha256"))
            known = (first >= 0) & (second >= 0)
            sources.append(first[known] + offset)
            targets.append(second[known] + offset)
            is_shared[first[known]] = is_shared[second[known]] = True
        linked = is_shared[nodes]
        sources.append(rows[linked])
        targets.append(nodes[linked] + offset)
        offset += codes.size
    if not count:
        return np.zeros(0, np.int32)
    source, target = np.concatenate(sources), np.concatenate(targets)
    graph = coo_array((np.ones(source.size, np.bool_), (source, target)), shape=(offset, offset))
    labels: np.ndarray = connected_components(graph, directed=False)[1][:count]
    return labels


def _position(hashes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Index of each hash in the sorted codes, -1 where it is not among them."""
    if not codes.size:
        return np.full(hashes.shape, -1)
    at: np.ndarray = np.minimum(np.searchsorted(codes, hashes), codes.size - 1)
    at[codes[at] != hashes] = -1
    return at


def anchors(labels: np.ndarray) -> np.ndarray:
    """First row of each component, row by row: shape (n,), indexes."""
    first = np.empty(labels.max(initial=-1) + 1, np.int64)
    first[labels[::-1]] = np.arange(labels.size)[::-1]  # of several writes to a place the last one stays: the first row
    of_row: np.ndarray = first[labels]
    return of_row


def contradicted(labels: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Rows of components whose fixed splits differ: shape (n,), bool. `fixed` is a split's code, `NO_SPLIT` where it is free."""
    size = labels.max(initial=-1) + 1
    held = fixed != NO_SPLIT
    lowest, highest = np.full(size, np.iinfo(fixed.dtype).max, fixed.dtype), np.zeros(size, fixed.dtype)
    np.minimum.at(lowest, labels[held], fixed[held])
    np.maximum.at(highest, labels[held], fixed[held])
    found: np.ndarray = (lowest < highest)[labels]
    return found


@dataclass
class _Admitted:
    """Takes admitted one after the other: a union-find over their hubs, with the split that each part holds."""

    parent: dict[object, object]
    split: dict[object, int]

    def root(self, hub: object) -> object:
        while self.parent[hub] != hub:
            self.parent[hub] = self.parent[self.parent[hub]]
            hub = self.parent[hub]
        return hub

    def admit(self, node: object, linked: Sequence[object], split: int) -> bool:
        """Join a take to the hubs it touches, unless it would join different splits; says whether it was."""
        roots = {self.root(hub) for hub in linked if hub in self.parent}
        splits = {self.split[root] for root in roots} | {split}
        splits.discard(NO_SPLIT)
        if len(splits) > 1:
            return False
        self.parent[node] = node
        for member in (*roots, *(hub for hub in linked if hub not in self.parent)):
            self.parent[member] = node
        self.split[node] = splits.pop() if splits else NO_SPLIT
        return True


def separate(
    rows: Sequence[Mapping[str, object]], fixed: Sequence[int], pairs: pl.DataFrame, hubs: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Take contradicted components apart: admit rows in the order given, leave out those that would join different splits.

    Parameters
    ----------
    rows : sequence of mappings
        Takes with their hubs' values; those that may least leave come first.
    fixed : sequence of int
        Code of the split that each row holds, or `NO_SPLIT`.
    pairs : pl.DataFrame
        As in `components`.
    hubs : sequence of str
        As in `components`.

    Returns
    -------
    (parts, refused)
        For each row the index of a row that stands for its part, -1 for the refused; and the indexes of the refused.
    """
    wanted = list({row["audio_sha256"] for row in rows})
    partners: dict[object, list[object]] = defaultdict(list)
    both = pl.col("first_sha256").is_in(wanted) & pl.col("second_sha256").is_in(wanted)
    for first, second in pairs.filter(both).select("first_sha256", "second_sha256").iter_rows():
        partners[first].append(("audio_sha256", second))
        partners[second].append(("audio_sha256", first))
    admitted = _Admitted({}, {})
    refused = []
    for index, (row, split) in enumerate(zip(rows, fixed, strict=True)):
        own = [(hub, row[hub]) for hub in hubs if row[hub] is not None]
        near = [hub for hub in partners[row["audio_sha256"]] if hub in admitted.parent]
        if not admitted.admit(index, [*own, *near], split):
            refused.append(index)
    left = set(refused)
    parts = [-1 if index in left else admitted.root(index) for index in range(len(rows))]
    return parts, refused  # type: ignore[return-value]  # the root of an admitted row is always a row's index
