"""The component grid of FSAE (fsae.md 6): its rows here, no printed number is known. No torch here."""

from __future__ import annotations

from harness.api.papers import Paper, PaperTable, TableColumn, TableRow


def _row(name: str, ablation: str | None, consistency: str, ring: str, strong: str) -> TableRow:
    return TableRow(
        name=name, ablation=ablation, cells={"consistency": consistency, "ring": ring, "strong view": strong}
    )


COMPONENTS = PaperTable(
    table="components",
    title="components",
    heads=("consistency", "ring", "strong view"),
    rows=(
        _row("base", "base", "", "", ""),
        _row("no_ring", "no_ring", "yes", "", "yes"),
        _row("no_strong", "no_strong", "yes", "yes", "jitter alone"),
        _row("all", None, "yes", "yes", "yes"),
    ),
    columns=(
        TableColumn(name="CAM", title="CAM", target="cam", rule="fixed", tags="truth"),
        TableColumn(name="masks", title="masks", target="pseudo", rule="fixed", tags="truth"),
    ),
    baseline="base",
    notes=("the paper's component table could not be recovered: the grid is the card's, on the cheapest base",),
)
PAPER = Paper(
    name="fsae",
    method="cam+fsae",
    title="Feature-level and Spatial-level Activation Expansion (WACV 2025)",
    tables=(COMPONENTS,),
)
