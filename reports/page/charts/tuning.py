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
from reports.page.charts.style import GREY, PALETTE, Trace, as_json, chart, plain
from reports.page.view import View, board_name, quantity_name
from reports.rows.comparing import score_cell
from reports.rows.ranking import Board
from reports.rows.row import Row
from reports.rows.tuning import Knob, Sensitivity, best_of, gain_of, objectives, sensitivity_of, study_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from plotly.graph_objects import Figure

NO_STUDY = (
    "Nothing was tuned here: no study of this store has two finished trials with an objective (trials=, search=)."
)
TWO_MORE = 3
"""Finished trials from which on a study has a history: two are in the table of gains."""
NO_HISTORY = f"fewer than {TWO_MORE} finished trials, so no history and no parallel coordinates"
FEW = 25
"""Trials below which an axis names each."""
TARGET = "objective in %"
SHADES = [[0.0, GREY], [1.0, PALETTE[1]]]
"""From the worst trial to the best, seen on white and on black."""
KNOB, SCALE = 64, 130
"""Pixels between two axes below which their numbers run into each other; those of margins and the scale of colours."""
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
    out += [_sensitivity(view.name(row), s) for row, _, s in found if isinstance(s, Sensitivity)]
    lacking: dict[str, list[str]] = {}
    for row, study, told in found:
        if isinstance(told, str):
            lacking.setdefault(told, []).append(view.name(row))
        if len(objectives(study)) < TWO_MORE:
            lacking.setdefault(NO_HISTORY, []).append(view.name(row))
    out += [Words(tuple(f"{', '.join(names)}: {why}" for why, names in lacking.items()))] if lacking else []
    for row, study, told in found:
        if len(objectives(study)) >= TWO_MORE:
            out += _optuna(view.name(row), study, importance=isinstance(told, Sensitivity))
    return out


def _gains(view: View, board: Board, rows: list[Row]) -> list[Block]:
    lines: list[dict[str, Cell]] = []
    for row in rows:
        for quantity in board.quantities:
            gain = gain_of(row, quantity, view.results, view.filters.weights)
            if gain is not None:
                lines.append({
                    "method": view.name(row), "target": quantity_name(quantity), "default": score_cell(gain.default),
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
        data.append({"type": "scatter", "mode": "lines+markers", "name": plain(view.name(row)), "y": expected,
                     "x": list(range(1, len(expected) + 1)), "line": view.lines[view.name(row)], "marker": {"size": 5},
                     "hovertemplate": "%{fullData.name}: %{y:.1f} from %{x} trials<extra></extra>"})  # fmt: skip
    return chart("Expected best of k trials", data, x="k finished trials", y="mIoU on the tuning split in %",
                 caption=f"{board_name(board)}; what a smaller budget would find on average, without pruned trials",
                 layout={"xaxis": {"dtick": 1 if len(data[0]["x"]) < FEW else None}})  # fmt: skip


def _sensitivity(name: str, found: Sensitivity) -> Block:
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
    return Section(f"What moved the score: {name}", columns, tuple(lines), notes=notes, kind="tuning")


def _knob_line(knob: Knob, noise: float) -> dict[str, Cell]:
    effect = None if math.isnan(knob.effect) else Signed(100 * knob.effect)
    beyond = "–" if effect is None else "yes" if abs(effect.value) > noise else "no"
    plateau = "–" if math.isnan(knob.low) else f"{knob.low:.{DIGITS}g} to {knob.high:.{DIGITS}g}"
    best = f"{knob.best:.{DIGITS}g}" if isinstance(knob.best, float) else str(knob.best)
    return {"knob": knob.name, "best": best, "plateau": plateau, "width": f"{100 * knob.width:.0f}",
            "trials": knob.trials, "effect": effect, "beyond": beyond}  # fmt: skip


def _optuna(name: str, study: Rebuilt, *, importance: bool) -> list[Block]:
    """History, parallel coordinates and, where trials suffice, importance, as `optuna.visualization` draws them."""
    from optuna import visualization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of Optuna that are experimental
        out: list[Block] = [
            _history(f"History: {name}", study),
        ]
        if importance:
            made = _drawn(f"Importance: {name}", lambda: visualization.plot_param_importances(study.study), wide=False)
            out.append(replace(made, caption="share of the objective's variance over the trials, by fANOVA"))
        knobs = {knob for trial in study.trials for knob in trial.params}
        lines = _drawn(f"Parallel coordinates: {name}", lambda: _parallel(study))
        out.append(replace(lines, height=430, least=SCALE + KNOB * (1 + len(knobs))))
    return out


def _percent(trial: FrozenTrial) -> float:
    return 100 * float(trial.value or 0.0)


def _history(title: str, study: Rebuilt) -> Chart:
    """Scores in %, as everywhere; whole numbers of trials."""
    from optuna.visualization import plot_optimization_history

    def make() -> Figure:
        figure = plot_optimization_history(study.study)
        for trace in figure.data:
            trace.y = [None if v is None else 100 * v for v in trace.y]
        figure.update_yaxes(title_text=TARGET)
        figure.update_xaxes(title_text="trial", dtick=1 if len(study.trials) < FEW else None)
        return figure

    return _drawn(title, make, wide=False)


def _parallel(study: Rebuilt) -> Figure:
    """A line a trial; Optuna's colours, white for the best, are lost on a white ground."""
    from optuna.visualization import plot_parallel_coordinate
    from plotly.colors import sample_colorscale

    figure = plot_parallel_coordinate(study.study, target=_percent, target_name=TARGET)
    for trace in figure.data:
        if trace.mode == "lines":
            # The first axis is the objective, its lowest at 0 and its highest at 1.
            trace.update(line={"color": sample_colorscale(SHADES, [trace.y[0]])[0], "width": 1.6}, opacity=0.9)
        else:
            trace.marker.update(colorscale=SHADES, reversescale=False)
    figure.update_annotations(font={"color": GREY})
    return figure


def _drawn(title: str, make: Callable[[], Figure], *, wide: bool = True) -> Chart:
    figure = json.loads(make().to_json(), parse_constant=lambda _: math.nan)
    layout = {
        k: v for k, v in figure["layout"].items() if k not in ("template", "title", "plot_bgcolor", "paper_bgcolor")
    }
    if figure["data"][0]["type"] == "bar":
        del layout["yaxis"]["title"]  # the bars say their names
    data = [_recoloured(trace, n) for n, trace in enumerate(figure["data"])]
    return Chart(title, as_json({"data": data, "layout": layout}), wide=wide, height=330)


def _recoloured(trace: dict[str, Any], n: int) -> dict[str, Any]:
    """The trace in the page's colours, where it has a colour of its own at all."""
    marker = {k: v for k, v in trace.get("marker", {}).items() if k != "color"}
    return trace | {"marker": marker | {"color": PALETTE[n % len(PALETTE)]}}
