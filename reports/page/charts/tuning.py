"""What tuning gave and what it looked at: gains, best of k, and Optuna's own views of every study."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.plan.rebuilt import Rebuilt
from reports.format.html import Block, Chart, Words
from reports.format.table import Cell, Column, Section, Signed
from reports.page.charts.style import PALETTE, Trace, as_json, chart, plain
from reports.page.view import View, board_name, quantity_name
from reports.rows.comparing import score_cell
from reports.rows.ranking import Board
from reports.rows.row import Row
from reports.rows.tuning import Knob, Sensitivity, best_of, gain_of, objectives, sensitivity_of, study_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NO_STUDY = (
    "Nothing was tuned here: no study of this store has two finished trials with an objective (trials=, search=)."
)
DIGITS = 3


def blocks(view: View) -> list[Block]:
    """Gains and budgets board by board, then every study by itself, once however often it was scored."""
    out: list[Block] = []
    studies: dict[tuple[str, ...], tuple[Row, Rebuilt]] = {}
    for board in view.boards:
        mine = [
            (row, study)
            for row in board.group.rows
            if row.trials > 1 and (study := study_of(row, view.results, view.runs)) is not None
            if len(objectives(study)) > 1
        ]
        if mine:
            out += [*_gains(view, board, [row for row, _ in mine]), _best_of(view, board, mine)]
            studies |= {study.keys: (row, study) for row, study in mine}
    if not studies:
        return [Words((NO_STUDY,))]
    found = [(row, study, sensitivity_of(row, study, view.results, view.runs)) for row, study in studies.values()]
    out += [_sensitivity(row, s) for row, _, s in found if isinstance(s, Sensitivity)]
    lacking = tuple(s for _, _, s in found if isinstance(s, str))
    out += [Words(lacking)] if lacking else []
    for row, study, told in found:
        out += _optuna(row, study, importance=isinstance(told, Sensitivity))
    return out


def _gains(view: View, board: Board, rows: list[Row]) -> list[Block]:
    lines: list[dict[str, Cell]] = []
    for row in rows:
        for quantity in board.quantities:
            gain = gain_of(row, quantity, view.results, view.filters.weights)
            if gain is not None:
                lines.append({
                    "method": row.title, "target": quantity_name(quantity), "default": score_cell(gain.default),
                    "trial": gain.trial, "tuned": score_cell(gain.tuned), "gain": score_cell(gain.gain),
                })  # fmt: skip
    if not lines:
        return []
    columns = (
        Column("method", "method"), Column("target", "target"),
        Column("default", "default", "trial 0", right=True), Column("trial", "chosen trial", right=True),
        Column("tuned", "tuned", right=True),
        Column("gain", "gain", "tuned − default", right=True, measure="difference"),
    )  # fmt: skip
    note = "both with the seed of the trials, on the reported split; intervals over images, the gain's paired"
    return [Section("Default beside tuned", columns, tuple(lines), caption=board_name(board), notes=(note,),
                    kind="tuning")]  # fmt: skip


def _best_of(view: View, board: Board, studies: list[tuple[Row, Rebuilt]]) -> Block:
    data: list[Trace] = []
    for row, study in studies:
        expected = [100 * v for v in best_of(objectives(study))]
        data.append({"type": "scatter", "mode": "lines+markers", "name": plain(row.title), "y": expected,
                     "x": list(range(1, len(expected) + 1)), "line": view.lines[row.title], "marker": {"size": 5},
                     "hovertemplate": "%{fullData.name}: %{y:.1f} from %{x} trials<extra></extra>"})  # fmt: skip
    return chart("Expected best of k trials", data, x="k finished trials", y="mIoU on the tuning split in %",
                 caption=f"{board_name(board)}; what a smaller budget would find on average, without pruned trials",
                 layout={"xaxis": {"dtick": 1 if len(data[0]["x"]) < 25 else None}})  # fmt: skip


def _sensitivity(row: Row, found: Sensitivity) -> Block:
    noise = 100 * found.noise
    columns = (
        Column("knob", "knob"), Column("best", "best", right=True), Column("plateau", "one-point plateau", right=True),
        Column("width", "width", "% of what was tried", right=True), Column("trials", "trials on it", right=True),
        Column("effect", "moves the score", "upper − lower half", right=True, measure="difference"),
        Column("beyond", "beyond seed noise"),
    )  # fmt: skip
    knobs = sorted(found.knobs, key=lambda k: k.width)
    lines = [_knob_line(knob, noise) for knob in knobs]
    notes = (f"seed noise: {noise:.1f} points between the highest and the lowest of {found.seeds} seeds of the chosen "
             "setting; the plateau holds the trials that lose less than one point to the best",)  # fmt: skip
    return Section(f"What moved the score: {row.title}", columns, tuple(lines), notes=notes, kind="tuning")


def _knob_line(knob: Knob, noise: float) -> dict[str, Cell]:
    effect = None if math.isnan(knob.effect) else Signed(100 * knob.effect)
    beyond = "–" if effect is None else "yes" if abs(effect.value) > noise else "no"
    plateau = "–" if math.isnan(knob.low) else f"{knob.low:.{DIGITS}g} to {knob.high:.{DIGITS}g}"
    best = f"{knob.best:.{DIGITS}g}" if isinstance(knob.best, float) else str(knob.best)
    return {"knob": knob.name, "best": best, "plateau": plateau, "width": f"{100 * knob.width:.0f}",
            "trials": knob.trials, "effect": effect, "beyond": beyond}  # fmt: skip


def _optuna(row: Row, study: Rebuilt, *, importance: bool) -> list[Block]:
    """History, parallel coordinates and, where trials suffice, importance, as `optuna.visualization` draws them."""
    from optuna import visualization

    parallel = visualization.plot_parallel_coordinate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of Optuna that are experimental
        out: list[Block] = [
            _drawn(f"History: {row.title}", lambda: visualization.plot_optimization_history(study.study), wide=False),
        ]
        if importance:
            made = _drawn(
                f"Importance: {row.title}", lambda: visualization.plot_param_importances(study.study), wide=False
            )
            out.append(replace(made, caption="share of the objective's variance over the trials, by fANOVA"))
        out.append(
            replace(
                _drawn(f"Parallel coordinates: {row.title}", lambda: parallel(study.study)),
                height=430,
            )
        )
    return out


def _drawn(title: str, make: Callable[[], Figure], *, wide: bool = True) -> Chart:
    figure = json.loads(make().to_json(), parse_constant=lambda _: math.nan)
    layout = {k: v for k, v in figure["layout"].items() if k not in ("template", "title")}
    if "coloraxis" in layout:
        # Optuna's white to blue loses its ends on one ground or the other.
        layout["coloraxis"] |= {"colorscale": "Viridis", "reversescale": False}
    if figure["data"][0]["type"] == "bar":
        del layout["yaxis"]["title"]  # the bars say their names
    data = [_recoloured(trace, n) for n, trace in enumerate(figure["data"])]
    return Chart(title, as_json({"data": data, "layout": layout}), wide=wide, height=330)


def _recoloured(trace: dict[str, Any], n: int) -> dict[str, Any]:
    """The trace in the page's colours, where it has a colour of its own at all."""
    if trace["type"] == "parcoords":
        return trace | {"line": trace["line"] | {"colorscale": "Viridis", "reversescale": False}}
    marker = {k: v for k, v in trace.get("marker", {}).items() if k != "color"}
    return trace | {"marker": marker | {"color": PALETTE[n % len(PALETTE)]}}
