"use strict";
const $ = (what, root = document) => [...root.querySelectorAll(what)];
const dark = matchMedia("(prefers-color-scheme: dark)");

// Tables: a click sorts, the chosen metric ranks, the filter hides.
const valueOf = cell => cell.dataset.v === "" ? null : isNaN(cell.dataset.v) ? cell.dataset.v : Number(cell.dataset.v);
function sortBy(head, descending) {
  const table = head.closest("table"), at = head.cellIndex, body = table.tBodies[0];
  $("th[aria-sort]", table).forEach(h => h.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const before = (a, b) => {
    const x = valueOf(a.cells[at]), y = valueOf(b.cells[at]);
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : String(x).localeCompare(String(y));
    return descending ? -order : order;
  };
  [...body.rows].sort(before).forEach(row => body.append(row));
}
$("table:not(.gallery) th").forEach(head => {
  const sort = () => {
    const now = head.getAttribute("aria-sort"), numbers = head.classList.contains("r") && head.dataset.id !== "rank";
    sortBy(head, now ? now === "ascending" : numbers);
  };
  head.onclick = sort;
  head.onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); sort(); } };
});
function choose(metric) {
  document.body.dataset.metric = metric;
  $("[data-choose]").forEach(b => b.setAttribute("aria-pressed", b.dataset.choose === metric));
  $("table.board").forEach(table => {
    const heads = $("th[data-metric]", table);
    const head = heads.find(h => h.dataset.metric === metric) || heads[heads.length - 1];
    const rank = $("th", table).findIndex(h => h.dataset.id === "rank");
    $("[data-metric]", table).forEach(c => c.classList.toggle("chosen", c.dataset.metric === head.dataset.metric));
    if (rank >= 0) [...table.tBodies[0].rows].forEach(row => {
      const place = row.cells[head.cellIndex].dataset.rank || "";
      row.cells[rank].textContent = place || "–";
      row.cells[rank].dataset.v = parseInt(place) || "";
    });
    sortBy(head, true);
  });
  $("[data-only]").forEach(block => { block.hidden = block.dataset.only !== metric; });
}
function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  $("table:not(.gallery)").forEach(table => {
    const rows = [...table.tBodies[0].rows];
    rows.forEach(row => {
      const inside = row.textContent.toLowerCase();
      row.hidden = !words.every(w => inside.includes(w));
      all += 1;
      shown += !row.hidden;
    });
    table.closest(".block").hidden = words.length > 0 && rows.every(row => row.hidden);
  });
  document.getElementById("found").textContent = words.length ? `${shown} of ${all} rows` : "";
}
$("[data-choose]").forEach(b => { b.onclick = () => choose(b.dataset.choose); });
$("[data-goto]").forEach(b => { b.onclick = () => document.getElementById(b.dataset.goto).scrollIntoView(); });
const box = document.getElementById("filter"), every = document.getElementById("all");
if (box) box.oninput = () => filter(box.value);
if (every) every.onchange = () => document.body.classList.toggle("every", every.checked);
if (document.body.dataset.metric) choose(document.body.dataset.metric);

// A picture that stands in several places is held once.
$("img[data-of]").forEach(image => { image.src = document.getElementById(image.dataset.of).src; });

// Charts: drawn when they come near, in the colours of the page.
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
function look() {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true,
    tickcolor: colour("line") };
  return { layout: {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
    hoverlabel: { bgcolor: colour("band"), bordercolor: colour("line"), font: { color: colour("ink") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, margin: { l: 54, r: 14, t: 30, b: 44 },
  } };
}
// plotly.js is run with the first chart: the tables are there before it.
function startPlotly() {
  const engine = document.createElement("script");
  engine.textContent = document.getElementById("plotly").textContent;
  document.head.append(engine);
}
function draw(place) {
  const source = place.querySelector("script");
  if (!source) return;
  if (!window.Plotly) startPlotly();
  const figure = JSON.parse(source.textContent);
  source.remove();
  Plotly.newPlot(place, figure.data, { ...figure.layout, template: look() },
    { responsive: true, displaylogo: false, displayModeBar: false });
}
const charts = $(".chart");
if (charts.length) {
  const seen = new IntersectionObserver(entries => entries.forEach(e => {
    if (e.isIntersecting) { seen.unobserve(e.target); draw(e.target); }
  }), { rootMargin: "300px" });
  charts.forEach(place => seen.observe(place));
  const repaint = () => charts.filter(p => p.data).forEach(p => Plotly.relayout(p, { template: look() }));
  dark.addEventListener("change", repaint);
  addEventListener("beforeprint", () => { charts.forEach(draw); repaint(); });
  addEventListener("afterprint", repaint);
}
