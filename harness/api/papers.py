"""A paper's ablation tables as a method declares them: rows with the words that run them, columns with how ours is
scored. The printed numbers are claims (`reports.papers.claims`); rows and columns carry their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import BadInput, Problem, nearest


@dataclass(frozen=True, kw_only=True)
class TableColumn:
    """A column of numbers, and the eval of ours that stands beside it (always without CRF, weights as asked for)."""

    name: str
    """The claim's column."""
    title: str
    target: str
    """cam, pseudo or segmentation."""
    rule: str = "none"
    """Threshold rule: fixed for maps, none for segmentation."""
    tags: str = "none"
    """truth for maps, none for segmentation."""
    scales: tuple[float, ...] | None = None
    """Scales of the eval; None takes any."""
    flip: bool | None = None
    """Whether the mirrored image was fused in; None takes either."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row: its claim, its leading cells as printed, and the overrides of the method that it stands for."""

    name: str
    """The claim's row; also what `rows=` takes."""
    ablation: str | None = None
    """A name of `MethodSpec.ablations`; None runs the method as its preset has it."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Leading cells by head."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table: heads of the leading cells, rows and columns in the paper's order."""

    table: str
    """The claim's table, for instance `4`."""
    title: str
    heads: tuple[str, ...]
    rows: tuple[TableRow, ...]
    columns: tuple[TableColumn, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    """Words of `harness.sweep` with which the rows are run; words on the line win."""
    baseline: str | None = None
    """Row that the others are compared with, paired."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What `MethodSpec.tables` names: the tables of one paper that its method can run."""

    name: str
    """The claims' paper."""
    method: str
    """The command-line word that the rows run."""
    title: str
    tables: tuple[PaperTable, ...] = ()
    claims: str | None = None
    """`package:file.csv` of the printed numbers; None: `reports/published/<name>.csv`."""

    def table(self, name: str) -> PaperTable:
        """The table of this name. Raises BadInput naming those there are."""
        found = {t.table: t for t in self.tables}
        if name not in found:
            raise BadInput(Problem("table", f"{self.name} has no ablation table {name!r}", nearest(name, found)))
        return found[name]
