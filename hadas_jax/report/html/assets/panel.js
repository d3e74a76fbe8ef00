// The chosen network in words and small bars.
function bar(label, share, value) {
  const fill = element("div", { class: "fill", style: `width: ${Math.max(0, Math.min(100, 100 * share))}%` });
  return element("div", { class: "bar" }, element("span", {}, label), element("div", { class: "track" }, fill), element("span", { class: "value" }, value));
}

function heading(text) {
  return element("h3", {}, text);
}

function metricsTable(network) {
  const head = element("tr", {}, ...["", "accuracy", "ms", "mJ"].map((text) => element("th", { class: "number" }, text)));
  const rows = Object.entries(network.metrics).map(([name, found]) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...[`${number(found.accuracy, 4)} %`, number(found.latency), number(found.energy)]
      .map((text) => element("td", { class: "number" }, text))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

// The latencies that shares of the test samples keep when deployed.
function percentileWords({ percentiles }) {
  if (!percentiles.deployable) return [];
  const { p50, p95, p99, longest } = percentiles.deployable;
  return [element("p", { class: "quiet" }, `Latency when deployed: half of the samples keep ${number(p50)} ms, 95 % ${number(p95)} ms, 99 % ${number(p99)} ms, `
    + `and the classifier takes ${number(longest)} ms.`)];
}

function sizeWords({ sizes }) {
  if (!sizes) return [];
  return [element("p", { class: "quiet" }, `Exits included, activations take ${number(sizes.memory, 4)} kB at their peak and weights ${number(sizes.weights, 4)} kB.`)];
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;

// What the chosen network saves when deployed, beside what that does to its accuracy.
function savingWords({ against }) {
  const [low, high] = ["low", "high"].map((end) => signed(against[`accuracy_difference_${end}`]));
  return element("p", { class: "quiet" }, `Deployed, it saves ${number(against.energy_saved, 2)} % of the energy of its backbone without exits at the `
    + `default clocks, ${number(against.energy_saved_dvfs, 2)} % at its best clocks, at a test accuracy that differs by ${signed(against.accuracy_difference)} points `
    + `(95 % interval ${low} to ${high}): ${against.verdict}.`);
}

function backboneDrawing(network) {
  const { width, depth, kernel, expand } = network.backbone;
  const widest = Math.max(...width);
  const height = (channels) => `height: ${Math.max(6, 60 * Math.sqrt(channels / widest))}px`;
  const stages = [element("div", { class: "stage" }, element("div", { class: "row" }, element("div", { class: "block", style: height(width[0]) })), "stem", element("br"), String(width[0]))];
  let first = 0;
  depth.forEach((count, s) => {
    const blocks = [...Array(count).keys()].map((b) => {
      const exits = network.exits.includes(first + b);
      return element("div", { class: exits ? "block ends" : "block", style: height(width[s + 1]), title: `block ${first + b}${exits ? ", an exit follows" : ""}` });
    });
    first += count;
    stages.push(element("div", { class: "stage" }, element("div", { class: "row" }, ...blocks), `k${kernel[s]} e${expand[s]}`, element("br"), String(width[s + 1])));
  });
  stages.push(element("div", { class: "stage" }, element("div", { class: "row" }, element("div", { class: "block", style: height(width.at(-1)) })), "last", element("br"), String(width.at(-1))));
  return element("div", { class: "blocks" }, ...stages);
}

function exitBars(network) {
  return network.shares.map((share, e) => {
    const label = e < network.exits.length ? `block ${network.exits[e]}` : "classifier";
    const row = bar(label, share, `${number(100 * share)} %`);
    row.title = e < network.exits.length ? `threshold ${network.thresholds[e] === null ? "never stops" : number(network.thresholds[e], 4)}` : "";
    return row;
  });
}

function thresholdBars(network) {
  return network.exits.map((block, e) => {
    const threshold = network.thresholds[e];
    return bar(`block ${block}`, threshold ?? 1, threshold === null ? "never" : number(threshold, 3));
  });
}

// What the score of each exit is worth.
function qualityBars(network, values) {
  return values.map((value, e) => bar(`block ${network.exits[e]}`, value ?? 0, value === null ? "-" : number(value, 3)));
}

function clockBars(network) {
  const grid = content.runs[network.run].clock_grid;
  return Object.entries(network.clocks).map(([name, mhz]) => bar(name, mhz / (grid ? grid[name].at(-1) : mhz), `${number(mhz, 5)} MHz`));
}

function showDetails() {
  const details = document.getElementById("details");
  const chips = element("div", { class: "chips" }, ...[chosen.runName, KINDS[chosen.kind].label, `${chosen.backbone.resolution} pixels`,
    `${chosen.backbone.depth.reduce((a, b) => a + b, 0)} blocks`, `${chosen.exits.length} exits`].map((text) => element("span", {}, text)));
  details.replaceChildren(
    chips, metricsTable(chosen), ...percentileWords(chosen), ...sizeWords(chosen), ...(chosen.exits.length ? [savingWords(chosen)] : []),
    heading("Backbone: kernel, expansion, width; an exit follows dark blocks"), backboneDrawing(chosen),
    heading("Test samples that stop, when deployed"), ...exitBars(chosen),
    ...(chosen.exits.length ? [heading("Thresholds"), ...thresholdBars(chosen)] : []),
    ...(chosen.aurocs.length ? [heading("AUROC of the scores: right or wrong (0.5 is chance)"), ...qualityBars(chosen, chosen.aurocs)] : []),
    ...(chosen.eces.length ? [heading("Expected calibration error of the scores (15 bins; 0 is calibrated)"), ...qualityBars(chosen, chosen.eces)] : []),
    heading("Clocks, against the highest"), ...clockBars(chosen),
    heading("Genome"), element("code", {}, chosen.genome.join(" ")));
}

function listChoices(shown) {
  const options = shown.includes(chosen) ? shown : [chosen, ...shown];
  const ordered = [...options].sort((a, b) => a.run - b.run || a.kind.localeCompare(b.kind) || a.energy - b.energy);
  const list = document.getElementById("choice");
  list.replaceChildren(...content.runs.map((run, r) => {
    const own = ordered.filter((network) => network.run === r);
    return own.length ? element("optgroup", { label: run.name }, ...own.map((network) => element("option", { value: network.id }, describe(network)))) : "";
  }));
  list.value = chosen.id;
}
