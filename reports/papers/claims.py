"""Claims: numbers printed in papers, with typed fields that say what they were measured on."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.resources import files

from harness.api.papers import Paper
from harness.api.registry import registry
from harness.api.spec import resolve
from harness.errors import BadInput, Problem, nearest

PUBLISHED = "reports.published"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One printed number. None in a field: the source does not say."""

    paper: str
    table: str
    row: str
    column: str
    value: float
    """In `unit`."""
    unit: str
    dataset: str
    """Name of the harness's dataset."""
    split: str
    target: str
    """cam, pseudo, segmentation; other names are maps that the harness does not score."""
    crf: str | None
    """Preset name, or none."""
    scales: tuple[float, ...] | None
    backbone: str | None
    """As printed: `ViT-B`, `RN101`."""
    supervision: str
    """tags, or tags+saliency (off-the-shelf saliency maps)."""
    group: str
    """Block of the table that the row stands in."""
    reference: str
    spread: float | None
    """What stands behind a ±."""
    remark: str
    source: str

    @property
    def method(self) -> str:
        """The command-line word that a method of this row's name has: lower case, what stands in brackets left out."""
        return self.row.partition("(")[0].lower().replace(" ", "")


def papers() -> list[str]:
    """Papers whose numbers are known: files of `reports/published`, and those that registered methods bring along."""
    own = {p.name.removesuffix(".csv") for p in files(PUBLISHED).iterdir() if p.name.endswith(".csv")}
    return sorted(own | {p.name for p in declared_papers()})


def declared_papers() -> list[Paper]:
    """What the methods that can be used declare by `MethodSpec.tables`. Raises BadInput for another kind of object."""
    found = []
    for spec in registry().specs():
        if spec.tables is not None:
            with registry().blamed(spec):
                paper = resolve(spec.tables)
            if not isinstance(paper, Paper):
                where = f"tables of method {spec.name!r}"
                raise BadInput(Problem(where, f"{spec.tables} is {paper!r}", "write a harness.api.papers.Paper"))
            found.append(paper)
    return found


def load_claims(paper: str) -> tuple[Claim, ...]:
    """All claims of a paper in printed order. Raises BadInput naming the known papers for another."""
    if paper not in papers():
        raise BadInput(Problem("paper", f"{paper!r} has no printed numbers here", nearest(paper, papers())))
    declared = next((p for p in declared_papers() if p.name == paper and p.claims), None)
    package, _, name = (declared.claims if declared and declared.claims else f"{PUBLISHED}:{paper}.csv").partition(":")
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return tuple(_claim(row) for row in csv.DictReader(io.StringIO(text)))


def _claim(row: dict[str, str]) -> Claim:
    note = dict(part.split(": ", 1) for part in row["note"].split("; ") if part)
    return Claim(
        paper=row["paper"],
        table=row["table"],
        row=row["row"],
        column=row["column"],
        value=float(row["value"]),
        unit=row["unit"],
        dataset=row["dataset"],
        split=row["split"],
        target=row["target"],
        crf=row["crf"] or None,
        scales=tuple(float(s) for s in row["scales"].split(",")) if row["scales"] else None,
        backbone=row["backbone"] or None,
        supervision=row["supervision"],
        group=note.get("group", ""),
        reference=note.get("reference", ""),
        spread=float(note["spread"]) if "spread" in note else None,
        remark=note.get("remark", ""),
        source=row["source"],
    )
