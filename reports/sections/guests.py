"""Rows that stand in a section without a rank: full supervision as the upper bound, and other programs' results."""

from __future__ import annotations

from collections.abc import Sequence

from reports.rows.ranking import Board
from reports.rows.row import Row

MASKS = "masks"
Guest = tuple[Board, int, str]
"""The board that it comes from, its quantity there, and what it is."""


def guests_of(board: Board, boards: Sequence[Board]) -> list[Guest]:
    """Rows of other boards to compare with those of this one, on the same images: the best fully supervised one of
    these networks, and all that another program made from the same kind of labels."""
    near = [b for b in boards if b is not board and _same_images(b, board)]
    found: list[Guest] = [] if is_foreign(board) else [
        (b, i, "not trained here") for b in near if is_foreign(b) and b.group.head.supervision == _labels(board)
        for i in range(len(b.group.rows))
    ]  # fmt: skip
    bounds = [] if _labels(board) == MASKS else [b for b in near if _labels(b) == MASKS and _same_work(b, board)]
    networks = {(r.backbone, r.decoder) for r in board.group.rows}
    rows = [(b, i) for b in bounds for i, scores in enumerate(b.scores) if b.main in scores]
    rows = [(b, i) for b, i in rows if _network(b.group.rows[i]) in networks] or rows
    if rows:
        best = max(rows, key=lambda at: at[0].scores[at[1]][at[0].main].value)
        found.insert(0, (*best, "masks, upper bound"))
    return found


def is_foreign(board: Board) -> bool:
    """Whether all rows were made by other programs."""
    return all(row.foreign for row in board.group.rows)


def has_host(board: Board, boards: Sequence[Board]) -> bool:
    """Whether the rows of a foreign board stand in another one."""
    return is_foreign(board) and any(guest is board for other in boards for guest, _, _ in guests_of(other, boards))


def _labels(board: Board) -> str:
    return board.group.head.supervision


def _network(row: Row) -> tuple[str, str]:
    return row.backbone, row.decoder


def _same_images(a: Board, b: Board) -> bool:
    one, two = a.group.head, b.group.head
    alike = all(getattr(one, n) == getattr(two, n) for n in ("dataset", "split", "weights"))
    fits = one.data.may_be(two.data) and one.inference.crf == two.inference.crf
    return alike and fits and a.group.digest == b.group.digest


def _same_work(a: Board, b: Board) -> bool:
    one, two = a.group.head, b.group.head
    known = not (one.data.train and two.data.train) or one.data.train == two.data.train
    return known and one.tier == two.tier and one.protocol == two.protocol
