// What is shown and chosen: networks of all runs, filters, the chosen network, colours.
const content = JSON.parse(document.getElementById("content").textContent);
const networks = content.runs.flatMap((run, r) =>
  run.networks.map((network, n) => ({ ...network, run: r, runName: run.name, id: `${r}.${n}` })));
const byId = new Map(networks.map((network) => [network.id, network]));
const searched = content.runs.map((run, r) => r).filter((r) => content.runs[r].networks.length);

const KINDS = {
  deployable: { label: "deployable", symbol: "circle", series: 2 },
  ideal: { label: "ideal", symbol: "circle-open", series: 1 },
  exits: { label: "exits only", symbol: "diamond", series: 3 },
  static: { label: "static", symbol: "triangle-up", series: 8 },
  "static + DVFS": { label: "static + DVFS", symbol: "triangle-up-open", series: 8 },
};
const QUANTITIES = {
  accuracy: { label: "accuracy, %", digits: 4, log: false },
  latency: { label: "latency, ms", digits: 3, log: true },
  energy: { label: "energy, mJ", digits: 3, log: true },
};
const filters = { kinds: new Set(Object.keys(KINDS)), runs: new Set(searched), ranges: {} };
let chosen = null;

const number = (value, digits = 3) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 6 });

function isShown(network) {
  return filters.kinds.has(network.kind) && filters.runs.has(network.run) &&
    Object.entries(filters.ranges).every(([name, [low, high]]) => network[name] >= low && network[name] <= high);
}

const shownNetworks = () => networks.filter(isShown);

function describe(network) {
  const kind = KINDS[network.kind].label + (network.kind === "exits" ? `, ${network.policy}` : "");
  return `${kind} · ${number(network.accuracy, 4)} % · ${number(network.latency)} ms · ${number(network.energy)} mJ`;
}

// Colours of the theme as Plotly takes them.
function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const seriesOf = (network) => (searched.length > 1 ? network.run + 1 : KINDS[network.kind].series);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
