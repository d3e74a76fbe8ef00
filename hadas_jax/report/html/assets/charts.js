// The plots as Plotly takes them: each function returns traces and a layout.
const SPACE = { l: 56, r: 14, t: 12, b: 46 };
const drawn = new Map();

function baseLayout(more = {}) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    margin: SPACE, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { color: colour("text"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("text") }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("text") },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

// Ticks of a logarithmic axis written in full: Plotly's own say 3 where 0.3 is meant.
function logTicks(values) {
  const ends = [Math.min(...values), Math.max(...values)];
  const tickvals = ends[1] / ends[0] < 3 ? evenTicks(...ends) : decadeTicks(...ends.map(Math.log10));
  return { type: "log", tickvals, ticktext: tickvals.map((value) => number(value)) };
}

function evenTicks(low, high) {
  const unit = 10 ** Math.floor(Math.log10((high - low) / 4 || low));
  const step = [5, 2, 1].map((factor) => factor * unit).find((each) => (high - low) / each >= 4) ?? unit;
  const first = Math.max(1, Math.floor(low / step) - 4);
  return Array.from({ length: Math.ceil(high / step) + 5 - first }, (_, k) => (first + k) * step);
}

function decadeTicks(low, high) {
  const steps = high - low > 1.2 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
  const decades = Array.from({ length: Math.ceil(high) - Math.floor(low) + 2 }, (_, k) => Math.floor(low) - 1 + k);
  return decades.flatMap((decade) => steps.map((step) => step * 10 ** decade));
}

function axisOf(name, values = networks.map((network) => network[name])) {
  return { title: { text: QUANTITIES[name].label }, ...(QUANTITIES[name].log ? logTicks(values) : { type: "linear" }) };
}

function draw(id, traces, layout) {
  const place = document.getElementById(id);
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"], toImageButtonOptions: { filename: id, scale: 2 } };
  Plotly.react(place, traces, layout, config);
  if (drawn.has(id)) return;
  drawn.set(id, true);
  place.on("plotly_click", (event) => {
    const id = event.points.map((point) => point.customdata).find((found) => byId.has(found));
    if (id) choose(id, true);
  });
}

function groups(shown) {
  const found = new Map();
  for (const network of shown) {
    const key = `${network.run} ${network.kind} ${network.policy}`;
    found.set(key, [...(found.get(key) ?? []), network]);
  }
  return [...found.values()];
}

const hover = (network) => `<b>${network.runName.replaceAll("<", "&lt;")}</b><br>${describe(network).replaceAll(" · ", "<br>")}<br>${network.exits.length} exits`;

// Accuracies with the ends of their 95 % intervals, as thin bars.
const intervals = (members, paint) => ({
  type: "data", symmetric: false, thickness: 0.8, width: 0, color: paint,
  array: members.map((network) => network.accuracy_high - network.accuracy), arrayminus: members.map((network) => network.accuracy - network.accuracy_low),
});

// The members of a front by the samples that chose them, in their order.
function frontLines(shown, cost) {
  return groups(shown).map((members) => members.filter((network) => network.joined[cost] !== null).sort((a, b) => a.joined[cost] - b.joined[cost]))
    .filter((members) => members.length).map((members) => ({
      type: "scatter", mode: "lines", hoverinfo: "skip", x: members.map((network) => network[cost]), y: members.map((network) => network.accuracy),
      opacity: 0.6, line: { width: 1.2, color: colour(`series-${seriesOf(members[0])}`) } }));
}

function symbolOf(network) {
  const shape = KINDS[network.kind].symbol;
  return network.kind === "exits" && network.policy === "ideal" ? `${shape}-open` : shape;
}

function frontTraces(shown, axes, type) {
  const traces = groups(shown).map((members) => {
    const [first, paint] = [members[0], colour(`series-${seriesOf(members[0])}`)];
    const isBaseline = first.kind.startsWith("static") || first.kind === "exits";
    const holding = members.filter((network) => type === "scatter3d" || network.holds[axes.x]);
    const bars = members.map((network) => (holding.includes(network) ? network : { accuracy: 0, accuracy_low: 0, accuracy_high: 0 }));
    return {
    type, mode: "markers", customdata: members.map((network) => network.id), text: members.map(hover), hoverinfo: "text",
    ...Object.fromEntries(Object.entries(axes).map(([axis, name]) => [axis, members.map((network) => network[name])])),
    ...(type === "scatter" ? { error_y: intervals(bars, paint) } : {}),
    marker: { color: paint, symbol: type === "scatter3d" ? symbolOf(first).replace("triangle-up", "square") : symbolOf(first),
      size: (isBaseline ? 11 : 8) / (type === "scatter3d" ? 2 : 1), opacity: type === "scatter3d" ? 0.85 : members.map((network) => (network.holds[axes.x] ? 0.9 : 0.25)), line: { width: symbolOf(first).endsWith("open") ? 1.6 : 0, color: paint } },
    };
  });
  if (type === "scatter") traces.push(...frontLines(shown, axes.x));
  traces.push({ type, mode: "markers", hoverinfo: "skip", ...Object.fromEntries(Object.entries(axes).map(([axis, name]) => [axis, [chosen[name]]])),
    marker: { symbol: "circle-open", size: type === "scatter3d" ? 12 : 18, color: colour("text"), line: { width: 2.5 } } });
  return traces;
}

function drawFronts(shown) {
  for (const name of ["energy", "latency"]) {
    draw(`front-${name}`, frontTraces(shown, { x: name, y: "accuracy" }, "scatter"), baseLayout({ xaxis: axisOf(name), yaxis: axisOf("accuracy") }));
  }
  const place = document.getElementById("front-3d");
  if (!document.createElement("canvas").getContext("webgl")) {
    place.textContent = "This view needs WebGL, which this browser does not have.";
    place.style.height = "auto";
    return;
  }
  const grid = { gridcolor: colour("line"), zerolinecolor: colour("line"), showbackground: false };
  const scene = Object.fromEntries(Object.entries({ x: "latency", y: "energy", z: "accuracy" }).map(([axis, name]) => [`${axis}axis`, { ...grid, ...axisOf(name) }]));
  draw("front-3d", frontTraces(shown, { x: "latency", y: "energy", z: "accuracy" }, "scatter3d"),
    baseLayout({ margin: { l: 0, r: 0, t: 0, b: 0 }, scene: { ...scene, camera: { eye: { x: 1.5, y: -1.6, z: 0.7 } } }, uirevision: "kept" }));
}

const COORDINATES = [
  ["accuracy, %", (n) => n.accuracy], ["latency, ms", (n) => Math.log(n.latency), Math.exp], ["energy, mJ", (n) => Math.log(n.energy), Math.exp],
  ["resolution", (n) => n.backbone.resolution], ["blocks", (n) => n.backbone.depth.reduce((a, b) => a + b, 0)], ["exits", (n) => n.exits.length],
  ["core, MHz", (n) => n.clocks.core], ["memory, MHz", (n) => n.clocks.memory], ["host, MHz", (n) => n.clocks.host], ["dissimilarity", (n) => n.dissimilarity],
];

function drawParallel(shown) {
  const axes = COORDINATES.map(([label, of, back = (v) => v]) => {
    const values = networks.map(of);
    return { label, of, back, low: Math.min(...values), high: Math.max(...values) };
  }).filter((axis) => axis.high > axis.low);
  const heights = (network) => axes.map((axis) => (axis.of(network) - axis.low) / (axis.high - axis.low));
  const line = (members, more) => ({
    type: "scatter", mode: "lines+markers", hoverinfo: "text", x: members.flatMap(() => [...axes.keys(), null]), y: members.flatMap((network) => [...heights(network), null]),
    customdata: members.flatMap((network) => [...axes.map(() => network.id), null]), text: members.flatMap((network) => [...axes.map(() => hover(network)), null]), ...more });
  const traces = groups(shown).map((members) => line(members, { opacity: 0.4, line: { width: 1, color: colour(`series-${seriesOf(members[0])}`) }, marker: { size: 4 } }));
  traces.push(line([chosen], { line: { width: 3, color: colour("text") }, marker: { size: 7 } }));
  const annotations = axes.flatMap((axis, x) => [[1, axis.high, "bottom"], [0, axis.low, "top"]].map(([y, value, yanchor]) => (
    { x, y, yanchor, text: number(axis.back(value), 4), showarrow: false, font: { color: colour("quiet"), size: 11 } })));
  draw("parallel", traces, baseLayout({
    margin: { l: 36, r: 36, t: 14, b: 46 }, annotations,
    xaxis: { tickvals: [...axes.keys()], ticktext: axes.map((axis) => axis.label), range: [-0.3, axes.length - 0.7], showgrid: true },
    yaxis: { visible: false, range: [-0.09, 1.09] } }));
}

const VARIANTS = [["static + DVFS", "", 7], ["exits", "deployable", 3], ["exits + clocks", "deployable", 2], ["as accurate", "deployable", 6], ["exits", "ideal", 4], ["exits + clocks", "ideal", 1]];

function drawGains() {
  const of = document.getElementById("saved-of").value;
  const against = document.getElementById("saved-against").value;
  const saved = (row) => row[`${of}_saved${against}`];
  const runs = content.runs.filter((run, r) => filters.runs.has(r));
  const traces = VARIANTS.map(([network, policy, series]) => {
    const rows = runs.flatMap((run) => run.levels.filter((row) => row.network === network && row.policy === policy).map((row) => ({ ...row, run: run.name })));
    const name = policy ? `${network}, ${policy}` : network;
    const difference = (row) => `${signed(row.accuracy_difference)} points [${signed(row.accuracy_difference_low)}, ${signed(row.accuracy_difference_high)}] of accuracy against static`;
    return {
      type: "bar", name, x: [rows.map((row) => row.run), rows.map((row) => `≥ ${number(row.level, 4)} %`)], y: rows.map(saved),
      marker: { color: colour(`series-${series}`), pattern: { shape: rows.map((row) => (row.verdict.startsWith("not") ? "/" : "")), solidity: 0.35, fgcolor: colour("card"), fillmode: "overlay" } },
      hoverinfo: "text", textposition: "none",
      text: rows.map((row) => `${name}<br>${number(saved(row))} % of ${of} saved<br>${number(row.accuracy, 4)} % · ${number(row.latency)} ms · ${number(row.energy)} mJ<br>${difference(row)}<br>${row.verdict}`),
    };
  }).filter((trace) => trace.y.length && (against === "" || trace.name !== "static + DVFS"));
  draw("gains", traces, baseLayout({ showlegend: true, barmode: "group", yaxis: { title: { text: `${of} saved, %` } } }));
}

// A mix of two colours given as rgb(...).
function mix(from, to, share) {
  const parts = [from, to].map((text) => text.match(/[\d.]+/g).map(Number));
  return `rgb(${[0, 1, 2].map((c) => Math.round(parts[0][c] + (parts[1][c] - parts[0][c]) * share)).join(",")})`;
}

function drawUsage(shown) {
  const own = shown.filter((network) => network.run === chosen.run && network.policy === "deployable").sort((a, b) => a.energy - b.energy);
  document.getElementById("usage-words").textContent = `Deployable networks of ${chosen.runName}, from the least energy on the left to the most.`;
  const blocks = [...new Set(own.flatMap((network) => network.exits))].sort((a, b) => a - b);
  const traces = [...blocks, null].map((block, i) => {
    const shares = own.map((network) => (block === null ? network.shares.at(-1) : network.shares[network.exits.indexOf(block)] ?? 0));
    const name = block === null ? "classifier" : `block ${block}`;
    return { type: "bar", name, x: [...own.keys()], y: shares.map((share) => 100 * share), customdata: own.map((network) => network.id), hoverinfo: "text", textposition: "none",
      text: own.map((network, n) => `${name}: ${number(100 * shares[n])} %<br>${describe(network)}`),
      marker: { color: block === null ? colour("series-7") : mix(colour("high"), colour("low"), blocks.length > 1 ? i / (blocks.length - 1) : 0), line: { width: 0 } } };
  });
  const at = own.indexOf(chosen);
  draw("usage", traces, baseLayout({ showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" }, barmode: "stack", bargap: 0.08, xaxis: { showticklabels: false }, yaxis: { title: { text: "samples, %" }, range: [0, 100] },
    annotations: at < 0 ? [] : [{ x: at, y: 0, yshift: -9, text: "▲", showarrow: false, font: { color: colour("text") } }] }));
}

function drawClocks() {
  const grid = content.runs[chosen.run].clock_grid;
  const { curves } = chosen;
  const words = document.getElementById("clocks-words");
  if (!grid || !curves) {
    words.textContent = `The device model of ${chosen.runName} is not at hand.`;
    for (const name of ["energy", "latency"]) draw(`clocks-${name}`, [], baseLayout());
    return;
  }
  words.textContent = `The chosen network as deployed, by the device model, at a host clock of ${number(chosen.clocks.host, 5)} MHz. One line for each memory clock; the ring is the design's own.`;
  const [core, memory] = curves.at;
  for (const name of ["energy", "latency"]) {
    const traces = curves.memory.map((m, line) => ({
      type: "scatter", mode: "lines+markers", name: `memory ${number(grid.memory[m], 5)} MHz`, x: grid.core, y: curves[name][line], marker: { size: 4 },
      line: { width: m === memory ? 3 : 1.5, color: mix(colour("high"), colour("low"), 0.85 * (curves.memory.length > 1 ? 1 - line / (curves.memory.length - 1) : 0)) },
      hovertemplate: `core %{x:,.5~g} MHz<br>%{y:.4~g} ${name === "energy" ? "mJ" : "ms"}` }));
    traces.push({ type: "scatter", mode: "markers", showlegend: false, hoverinfo: "skip", x: [grid.core[core]], y: [curves[name][curves.memory.indexOf(memory)][core]],
      marker: { symbol: "circle-open", size: 16, color: colour("series-2"), line: { width: 3 } } });
    draw(`clocks-${name}`, traces, baseLayout({ showlegend: true, xaxis: { title: { text: "core clock, MHz" } }, yaxis: axisOf(name, curves[name].flat()) }));
  }
}

const METRICS = {
  hypervolume: "hypervolume", lowest_error: "lowest error", loss: "loss", train_loss: "loss in training", accuracy: "accuracy",
  train_accuracy: "accuracy in training", images_per_s: "images/s of the network so far", energy_j: "energy of the network so far, J",
};

// Metrics of a stage that say something: those with a finite value other than 0, the most telling first.
function metricsOf(stage) {
  const curves = content.runs.map((run) => run.curves[stage] ?? {});
  const found = new Set(curves.flatMap((own) => Object.keys(own).filter((name) => own[name].values.some((value) => value))));
  if (stage === "search") found.delete("evaluated"); // the horizontal axis
  return [...Object.keys(METRICS).filter((name) => found.has(name)), ...[...found].filter((name) => !(name in METRICS))];
}

function drawProgress() {
  const stage = document.getElementById("progress-of").value;
  const place = document.getElementById("progress");
  const metrics = metricsOf(stage);
  while (place.children.length < metrics.length) place.append(element("div", { class: "chart", id: `progress-${place.children.length}` }));
  [...place.children].forEach((chart, k) => { chart.hidden = k >= metrics.length; });
  metrics.forEach((metric, k) => {
    const traces = content.runs.flatMap((run, r) => {
      const curve = run.curves[stage]?.[metric];
      const evaluated = stage === "search" ? run.curves.search?.evaluated?.values : null;
      return curve ? [{ type: "scatter", mode: "lines+markers", name: run.name, x: evaluated ?? curve.steps, y: curve.values, marker: { size: 4 },
        line: { color: colour(`series-${r + 1}`), width: 2 }, hovertemplate: "%{x:,}<br>%{y:.6~g}" }] : [];
    });
    draw(`progress-${k}`, traces, baseLayout({ margin: { l: 50, r: 14, t: 30, b: 40 }, title: { text: METRICS[metric] ?? metric.replaceAll("_", " "), x: 0.02, y: 0.98, yanchor: "top", font: { size: 13 } },
      xaxis: { title: { text: stage === "search" ? "backbones evaluated" : "steps" } } }));
  });
}

function drawCheck() {
  const symbols = ["circle", "square", "diamond", "triangle-up", "cross"];
  const checked = content.runs.flatMap((run, r) => (run.check ? [[run, r]] : []));
  const traces = checked.flatMap(([run, r]) => [...new Set(run.check.points.map((point) => point.exit))].map((exit, e) => {
    const points = run.check.points.filter((point) => point.exit === exit);
    return { type: "scatter", mode: "markers", name: `${run.name}: ${exit === null ? "expected" : `exit ${exit}`}`, x: points.map((point) => point.measured), y: points.map((point) => point.predicted), text: points.map((point) => point.network),
      marker: { color: colour(`series-${checked.length > 1 ? r + 1 : (e % 8) + 1}`), symbol: exit === null ? "star" : symbols[e % symbols.length], size: 8 }, hovertemplate: "%{text}<br>measured %{x:.4~g} ms<br>predicted %{y:.4~g} ms" };
  }));
  const values = traces.flatMap((trace) => [...trace.x, ...trace.y]);
  const ends = [Math.min(...values) * 0.8, Math.max(...values) * 1.25];
  traces.push({ type: "scatter", mode: "lines", name: "equal", x: ends, y: ends, line: { color: colour("series-8"), width: 1 }, hoverinfo: "skip" });
  draw("check", traces, baseLayout({ showlegend: true, xaxis: { type: "log", title: { text: "measured latency, ms" } }, yaxis: { type: "log", title: { text: "predicted latency, ms" } } }));
}

function drawExits() {
  const dashes = ["solid", "dot", "dash", "dashdot"];
  const traces = content.runs.flatMap((run, r) => Object.entries(run.exits).map(([backbone, curve], b) => (
    { type: "scatter", mode: "lines+markers", name: `${run.name}: ${backbone}`, x: curve.blocks, y: curve.accuracies, line: { color: colour(`series-${r + 1}`), dash: dashes[b % 4], width: 2 }, hovertemplate: "block %{x}<br>%{y:.4~g} %" })));
  draw("exits", traces, baseLayout({ showlegend: true, xaxis: { title: { text: "block that the exit follows" }, dtick: 1 }, yaxis: { title: { text: "accuracy, %" } } }));
}
