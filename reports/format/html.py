"""The table model as one self-contained page: no network, no library; columns sort by a click."""

from __future__ import annotations

import math
from html import escape

from reports.format.table import Amount, Cell, Rank, Same, Score, Section, Signed, Table, text

_STYLE = """
:root{color-scheme:light dark;--line:#d5d9de;--soft:#6b7480;--bar:#2f6db3;--hover:#f2f5f8}
@media(prefers-color-scheme:dark){:root{--line:#39414a;--soft:#98a2ad;--bar:#7fb2e8;--hover:#1d2329}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:84rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2.2rem 0 .2rem}p{margin:.2rem 0;color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th,td{white-space:nowrap}
th{cursor:pointer;user-select:none;font-weight:600}th small{display:block;font-weight:400;color:var(--soft)}
th[aria-sort=ascending]::after{content:" \\2191"}th[aria-sort=descending]::after{content:" \\2193"}
.r{text-align:right}tbody tr:hover{background:var(--hover)}td small{color:var(--soft)}
svg{display:block;margin-left:auto}line{stroke:var(--bar);stroke-width:1.5}circle{fill:var(--bar)}
"""
_SCRIPT = """
document.querySelectorAll("th").forEach(h=>{const sort=()=>{
const t=h.closest("table"),b=t.tBodies[0],i=h.cellIndex;
const up=h.getAttribute("aria-sort")==="descending";
t.querySelectorAll("th").forEach(o=>o.removeAttribute("aria-sort"));
h.setAttribute("aria-sort",up?"ascending":"descending");
const val=r=>{const v=r.cells[i].dataset.v;return v===""?null:isNaN(v)?v:Number(v)};
[...b.rows].sort((x,y)=>{const a=val(x),c=val(y);if(a===null||c===null)return (a===null)-(c===null);
return (a<c?-1:a>c?1:0)*(up?1:-1)}).forEach(r=>b.append(r))};
h.onclick=sort;h.onkeydown=e=>{if(e.key==="Enter"||e.key===" "){e.preventDefault();sort()}}});
"""
_BAR = 110


def html(table: Table) -> str:
    """The whole page as text."""
    body = "".join(_section(s) for s in table.sections)
    notes = "".join(f"<p>{escape(n)}</p>" for n in table.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(table.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(table.title)}</h1>{body}<footer>{notes}</footer>"
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(section: Section) -> str:
    head = "".join(
        f'<th tabindex="0"{" class=r" if c.right else ""}>{escape(c.title)}'
        f"{'<small>' + escape(c.sub) + '</small>' if c.sub else ''}</th>"
        for c in section.columns
    )
    rows = "".join(
        "<tr>" + "".join(_cell(row.get(c.id), c.right) for c in section.columns) + "</tr>\n" for row in section.rows
    )
    grid = f"<div class=wide><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    notes = "".join(f"<p>{escape(n)}</p>" for n in section.notes)
    caption = f"<p>{escape(section.caption)}</p>" if section.caption else ""
    return f"<section><h2>{escape(section.heading)}</h2>{caption}{grid if section.rows else ''}{notes}</section>\n"


def _cell(cell: Cell, right: bool) -> str:
    sort, shown = text(cell) if cell is not None else "", escape(text(cell))
    if isinstance(cell, Score):
        sort = f"{cell.value:.6f}"
        shown = f"{cell.value:.1f}{escape(cell.mark)} <small>{cell.interval}</small>" + _whisker(cell)
    elif isinstance(cell, Amount | Signed):
        sort = f"{cell.value:.6f}"
    elif isinstance(cell, Rank):
        sort = str(cell.number)
    elif isinstance(cell, Same):
        sort = cell.value
    return f'<td{" class=r" if right else ""} data-v="{escape(sort)}">{shown}</td>'


def _whisker(score: Score) -> str:
    if math.isnan(score.low) or math.isnan(score.value):
        return ""
    low, mid, high = (v / 100 * _BAR for v in (score.low, score.value, score.high))
    return (
        f'<svg width={_BAR} height=8 role=img aria-label="interval on a scale from 0 to 100">'
        f"<line x1=0 x2={_BAR} y1=4 y2=4 opacity=.2 /><line x1={low:.1f} x2={high:.1f} y1=4 y2=4 />"
        f"<circle cx={mid:.1f} cy=4 r=2.5 /></svg>"
    )
