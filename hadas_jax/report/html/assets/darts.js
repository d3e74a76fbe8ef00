// Alpha of searches by gradient: the share of every operation on every edge.
const relaxed = content.runs.map((run, r) => r).filter((r) => content.runs[r].darts?.alpha);

function drawAlpha() {
  const run = content.runs[Number(document.getElementById("alpha-of").value)];
  const { operations, edges, shares, kept } = run.darts.alpha;
  const names = operations.map((name) => name.replaceAll("_", " "));
  const all = shares.flat(2);
  ["normal", "reduce"].forEach((cell, c) => {
    const chosenOnes = kept[c].map((operation, e) => [operation, e]).filter(([operation]) => operation > 0);
    const map = { type: "heatmap", x: names, y: edges, z: shares[c], zmin: Math.min(...all), zmax: Math.max(...all), xgap: 1, ygap: 1, showscale: cell === "reduce", colorbar: { tickformat: ".1%", thickness: 10, outlinewidth: 0 },
      colorscale: [[0, colour("card")], [1, colour("accent")]], hovertemplate: "%{y}: %{x}<br>%{z:.1%}<extra></extra>" };
    const rings = { type: "scatter", mode: "markers", hoverinfo: "skip", x: chosenOnes.map(([operation]) => names[operation]), y: chosenOnes.map(([, e]) => edges[e]),
      marker: { symbol: "circle-open", size: 13, color: colour("series-2"), line: { width: 2.5 } } };
    draw(`alpha-${cell}`, [map, rings], baseLayout({
      xaxis: { side: "top", tickangle: -30, showgrid: false, fixedrange: true }, margin: { l: 70, r: 30, t: 84, b: 34 },
      yaxis: { title: { text: "input to node" }, range: [edges.length - 0.5, -0.5], fixedrange: true, showgrid: false, dtick: 1 },
      annotations: [{ text: `${cell} cell`, x: 0.5, xref: "paper", y: 0, yref: "paper", yanchor: "top", showarrow: false, yshift: -6 }] }));
  });
}

function listAlpha() {
  const list = document.getElementById("alpha-of");
  list.append(...relaxed.map((r) => element("option", { value: r }, content.runs[r].name)));
  document.getElementById("alpha-label").hidden = relaxed.length < 2;
  list.addEventListener("change", drawAlpha);
}
