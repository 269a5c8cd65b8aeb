"""Photos that stand in two splits, under two ids: scores on what was learned from are too high."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from harness.datasets.io.images import some_of
from harness.errors import Problem

TRAIN, SCORED = "train", "keep one of each in the lists: a score on photos that were learned from is too high"
CHOSEN = "keep one of each in the lists: what is chosen on reported photos says too much of them"


def same_photos(digests: Mapping[str, Mapping[str, str]]) -> list[Problem]:
    """Warnings for files of equal content in two of the splits; `digests` holds for each split those of its images, by
    id. A photo that was saved anew has other content, and is not found; one id in two lists is an error elsewhere.
    """
    problems = []
    for (one, first), (other, second) in combinations(digests.items(), 2):
        by_digest: dict[str, str] = {}
        for image_id, digest in first.items():
            by_digest.setdefault(digest, image_id)
        same = ((by_digest[digest], image_id) for image_id, digest in second.items() if digest in by_digest)
        pairs = [(a, b) for a, b in same if a != b]
        if pairs:
            told = some_of((f"{a} = {b} of {other}" for a, b in pairs), 4)
            count = f"{len(pairs)} photo{'s' * (len(pairs) > 1)} of {other} {'are' if len(pairs) > 1 else 'is'}"
            problems.append(Problem("data", f"{count} in {one} too: {told}", SCORED if one == TRAIN else CHOSEN))
    return problems
