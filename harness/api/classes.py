"""Which classes of a dataset are scored and trained on; all others become 255 (`data.keep`, `data.drop`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.api.vocabulary import IGNORE
from harness.errors import BadInput, Problem, nearest


@dataclass(frozen=True)
class Choice:
    """Label values that stay, in their order; they are numbered anew from 0 without gaps."""

    kept: tuple[int, ...]

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """The new value of each label value, (256,); 255 for those that do not stay."""
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.kept)] = np.arange(len(self.kept), dtype=np.uint8)
        return table

    def labels(self, label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels of a file as those that were chosen."""
        chosen: NDArray[np.uint8] = self.table[label_HW]
        return chosen


def choose(names: tuple[str, ...], has_background: bool, keep: str | None, drop: str | None) -> Choice:
    """The classes that `data.keep` names, or all but those of `data.drop`; a background stays.

    Raises BadInput for both words together, for unknown names with the nearest ones, and where no class is left.
    """
    word, text = ("data.keep", keep) if keep is not None else ("data.drop", drop or "")
    given = [name.strip() for name in text.split(",") if name.strip()]
    foreground = names[int(has_background) :]
    problems = []
    if keep is not None and drop is not None:
        problems.append(
            Problem("data.drop", "is given beside data.keep", "give one of them: each says what the other does")
        )
    if not given:
        problems.append(Problem(word, "names no class", f"{word}={foreground[0]}"))
    for name in given:
        if name not in names:
            problems.append(Problem(word, f"no class {name!r}", nearest(name, names)))
    if has_background and drop is not None and names[0] in given:
        problems.append(
            Problem("data.drop", f"{names[0]} is what no class covers: it stays", "leave it out of the list")
        )
    if problems:
        raise BadInput(problems)
    stays = [name in given if keep is not None else name not in given for name in foreground]
    kept = tuple(i + int(has_background) for i, stay in enumerate(stays) if stay)
    if not kept:
        raise BadInput(Problem(word, "no class is left", f"classes are {', '.join(foreground[:8])}"))
    return Choice((0, *kept) if has_background else kept)
