// Puts the page together: unpacks Plotly, listens, draws.
async function loadPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", {}, await new Response(stream).text()));
}

function update() {
  if (networks.length) {
    const shown = shownNetworks();
    countShown(shown);
    listChoices(shown);
    drawFronts(shown);
    drawParallel(shown);
    drawUsage(shown);
    drawGains();
  }
}

function choose(id, scroll = false) {
  chosen = byId.get(id);
  showDetails();
  drawClocks();
  update();
  const panel = document.getElementById("panel");
  if (scroll && panel.getBoundingClientRect().top > window.innerHeight * 0.8) panel.scrollIntoView({ behavior: "smooth" });
}

function drawAll() {
  if (networks.length) choose(chosen.id);
  if (relaxed.length) drawAlpha();
  if (document.getElementById("progress")) drawProgress();
  if (document.getElementById("exits")) drawExits();
  if (document.getElementById("check")) drawCheck();
}

function listProgress() {
  const list = document.getElementById("progress-of");
  const names = new Set(content.runs.flatMap((run) => Object.keys(run.curves)));
  list.append(...[...names].map((name) => element("option", {}, name)));
  list.value = ["search", "architecture", "supernet"].find((name) => names.has(name)) ?? [...names][0];
  list.addEventListener("change", drawProgress);
}

async function start() {
  await loadPlotly();
  for (const button of document.querySelectorAll("#theme input")) {
    button.addEventListener("change", () => { document.documentElement.dataset.theme = button.value; drawAll(); });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  if (networks.length) {
    buildFilters();
    chosen = byId.get(content.start) ?? networks[0];
    document.getElementById("choice").addEventListener("change", (event) => choose(event.target.value));
    for (const id of ["saved-of", "saved-against"]) document.getElementById(id).addEventListener("change", drawGains);
  }
  if (relaxed.length) listAlpha();
  if (document.getElementById("progress-of")) listProgress();
  drawAll();
  document.documentElement.dataset.ready = "yes";
}

start();
