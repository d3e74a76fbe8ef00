// The filters: kinds of networks, runs, and ranges of accuracy, latency and energy.
const STEPS = 1000;
const SHAPES = {
  circle: (paint) => `<circle cx="7" cy="7" r="5" fill="${paint}"/>`,
  "circle-open": (paint) => `<circle cx="7" cy="7" r="4.5" fill="none" stroke="${paint}" stroke-width="2"/>`,
  diamond: (paint) => `<path d="M7 1l6 6-6 6-6-6z" fill="${paint}"/>`,
  "triangle-up": (paint) => `<path d="M7 1.5l6 11H1z" fill="${paint}"/>`,
  "triangle-up-open": (paint) => `<path d="M7 3l4.6 8.5H2.4z" fill="none" stroke="${paint}" stroke-width="1.6"/>`,
};

function symbol(shape, paint) {
  const holder = element("span");
  holder.innerHTML = `<svg width="14" height="14" aria-hidden="true">${SHAPES[shape](paint)}</svg>`;
  return holder.firstChild;
}

function checkbox(name, mark, label, chosenOnes, value) {
  const box = element("input", { type: "checkbox", name, value: String(value) });
  box.checked = true;
  box.addEventListener("change", () => {
    if (box.checked) chosenOnes.add(value);
    else chosenOnes.delete(value);
    update();
  });
  return element("label", {}, box, mark, label);
}

function rangeFilter(name) {
  const { label, digits, log } = QUANTITIES[name];
  const values = networks.map((network) => network[name]);
  const ends = [Math.min(...values), Math.max(...values)];
  const at = (step) => {
    if (step <= 0 || step >= STEPS) return ends[step <= 0 ? 0 : 1];
    const share = step / STEPS;
    return log ? ends[0] * (ends[1] / ends[0]) ** share : ends[0] + (ends[1] - ends[0]) * share;
  };
  const output = element("output");
  const sliders = [["at least", 0], ["at most", STEPS]].map(([word, value]) =>
    element("input", { type: "range", min: 0, max: STEPS, value, "aria-label": `${label} ${word}`, id: `${name}-${word.slice(3)}` }));
  const read = () => {
    const [low, high] = sliders.map((slider) => Number(slider.value)).sort((a, b) => a - b).map(at);
    filters.ranges[name] = [low, high];
    output.textContent = `${number(low, digits)} – ${number(high, digits)}`;
  };
  for (const slider of sliders) slider.addEventListener("input", () => { read(); update(); });
  read();
  const box = element("div", { class: "range" }, element("div", { class: "ends" }, label, output), element("div", { class: "slider" }, ...sliders));
  box.reset = () => { sliders[0].value = 0; sliders[1].value = STEPS; read(); };
  return box;
}

function buildFilters() {
  const isOverlay = searched.length > 1;
  const kinds = document.getElementById("kinds");
  for (const [kind, { label, symbol: shape, series }] of Object.entries(KINDS)) {
    const mark = symbol(shape, isOverlay ? "currentColor" : `var(--series-${series})`);
    if (networks.some((network) => network.kind === kind)) kinds.append(checkbox("kind", mark, label, filters.kinds, kind));
  }
  const runs = document.getElementById("runs");
  runs.hidden = !isOverlay;
  for (const r of searched) {
    runs.append(checkbox("run", symbol("circle", `var(--series-${r + 1})`), content.runs[r].name, filters.runs, r));
  }
  const ranges = document.getElementById("ranges");
  ranges.append(...Object.keys(QUANTITIES).map(rangeFilter));
  document.getElementById("reset").addEventListener("click", () => {
    for (const box of document.querySelectorAll("#filters input[type=checkbox]")) if (!box.checked) box.click();
    for (const box of ranges.children) box.reset();
    update();
  });
}

function countShown(shown) {
  document.getElementById("count").textContent = `${shown.length} of ${networks.length} networks`;
}
