// A map to drag and zoom: pictures above each other, outlines of regions, a scale, and the place
// under the pointer. It asks the network for nothing.
function warteMap(root, data) {
  const canvas = root.querySelector("canvas"), pen = canvas.getContext("2d");
  const readout = root.querySelector(".readout"), legend = root.querySelector(".legend");
  const layers = data.layers.map((layer) => ({ ...layer, image: null, pixels: null }));
  const paths = data.regions.map((region) => ({ ...region, path: new Path2D(region.path) }));
  // The view: screen = scale * picture + offset, in CSS pixels.
  const view = { scale: 1, x: 0, y: 0 };
  let fitted = 1, chosen = -1, outlines = true, due = false;

  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const toPicture = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];

  function fit() {
    const [width, height] = size();
    fitted = Math.min(width / data.columns, height / data.rows);
    Object.assign(view, {
      scale: fitted, x: (width - fitted * data.columns) / 2, y: (height - fitted * data.rows) / 2,
    });
    draw();
  }

  function show(x0, y0, x1, y1) {
    const [width, height] = size(), pad = 0.35 * Math.max(x1 - x0, y1 - y0) + 12;
    const scale = Math.min(width / (x1 - x0 + 2 * pad), height / (y1 - y0 + 2 * pad), 32);
    Object.assign(view, {
      scale, x: width / 2 - (scale * (x0 + x1)) / 2, y: height / 2 - (scale * (y0 + y1)) / 2,
    });
    draw();
  }

  function zoom(factor, x, y) {
    const scale = Math.min(64, Math.max(fitted / 2, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    draw();
  }

  function draw() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; paint(); });
  }

  function paint() {
    const [width, height] = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
    for (const layer of layers) {
      if (!layer.visible || !layer.image) continue;
      pen.globalAlpha = layer.opacity;
      pen.imageSmoothingEnabled = view.scale * layer.step < 2;
      pen.drawImage(layer.image, 0, 0, data.columns, data.rows);
    }
    pen.globalAlpha = 1;
    if (outlines) paths.forEach((region, at) => {
      pen.lineWidth = (at === chosen ? 3.5 : 1.6) / view.scale;
      pen.strokeStyle = region.colour;
      pen.stroke(region.path);
    });
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (data.metres > 0) bar(width, height);
  }

  // A scale bar of 1, 2 or 5 times a power of ten metres.
  function bar(width, height) {
    const most = (data.metres / view.scale) * Math.min(160, width / 3);
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * ([5, 2, 1].find((step) => step * power <= most) || 1);
    const pixels = (length / data.metres) * view.scale;
    pen.fillStyle = "rgba(0,0,0,.55)";
    pen.fillRect(10, height - 34, pixels + 20, 24);
    pen.strokeStyle = pen.fillStyle = "#fff";
    pen.lineWidth = 2;
    pen.strokeRect(20, height - 18, pixels, 0.01);
    pen.font = "12px system-ui, sans-serif";
    pen.fillText(length >= 1000 ? `${length / 1000} km` : `${length} m`, 20, height - 21);
  }

  function lonlat(column, row) {
    const grid = data.lonlat;
    if (!grid) return "";
    const down = Math.min(Math.max(row / data.rows, 0), 1) * (grid.length - 1);
    const along = Math.min(Math.max(column / data.columns, 0), 1) * (grid[0].length - 1);
    const i = Math.min(Math.floor(down), grid.length - 2), u = down - i;
    const j = Math.min(Math.floor(along), grid[0].length - 2), v = along - j;
    const mix = (k) =>
      (1 - u) * ((1 - v) * grid[i][j][k] + v * grid[i][j + 1][k]) +
      u * ((1 - v) * grid[i + 1][j][k] + v * grid[i + 1][j + 1][k]);
    const east = mix(0), north = mix(1);
    return `${Math.abs(north).toFixed(5)}° ${north < 0 ? "S" : "N"}, ` +
      `${Math.abs(east).toFixed(5)}° ${east < 0 ? "W" : "E"}`;
  }

  // What the legend calls the colour of a class layer at a place.
  function named(layer, column, row) {
    if (!layer.visible || !layer.legend.length || !layer.pixels) return "";
    const { width, height } = layer.image;
    const x = Math.floor((column / data.columns) * width);
    const y = Math.floor((row / data.rows) * height);
    const [red, green, blue, alpha] = layer.pixels.getImageData(x, y, 1, 1).data;
    if (alpha < 128) return "";
    const entry = layer.legend.find(([, rgb]) =>
      rgb[0] === red && rgb[1] === green && rgb[2] === blue);
    return entry ? entry[0] : "";
  }

  function tell(x, y) {
    const [column, row] = toPicture(x, y);
    if (column < 0 || row < 0 || column >= data.columns || row >= data.rows) {
      readout.textContent = data.hint;
      return;
    }
    const parts = [`row ${Math.floor(row)}, column ${Math.floor(column)}`, lonlat(column, row)];
    for (const layer of layers) parts.push(named(layer, column, row));
    const at = region(column, row);
    if (at >= 0) parts.push(paths[at].label);
    readout.textContent = parts.filter(Boolean).join(" · ");
  }

  function region(column, row) {
    if (!outlines) return -1;
    for (let at = paths.length - 1; at >= 0; at--) {
      const [x0, y0, x1, y1] = paths[at].box;
      if (column < x0 || column > x1 || row < y0 || row > y1) continue;
      pen.setTransform(1, 0, 0, 1, 0, 0);
      if (pen.isPointInPath(paths[at].path, column, row, "evenodd")) return at;
    }
    return -1;
  }

  const pointers = new Map();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    if (!pointers.has(event.pointerId)) return tell(...now);
    const before = pointers.get(event.pointerId);
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(apart(now) / Math.max(apart(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      view.x += now[0] - before[0];
      view.y += now[1] - before[1];
      draw();
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2, ...place(event)));
  canvas.addEventListener("keydown", (event) => {
    const [width, height] = size(), step = 60;
    const moves = {
      ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step],
    };
    if (event.key in moves) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      draw();
    } else if (event.key === "+" || event.key === "=") zoom(1.5, width / 2, height / 2);
    else if (event.key === "-") zoom(1 / 1.5, width / 2, height / 2);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  root.querySelector(".in").addEventListener("click", () => zoom(1.6, ...size().map((n) => n / 2)));
  root.querySelector(".out").addEventListener("click", () => zoom(1 / 1.6, ...size().map((n) => n / 2)));
  root.querySelector(".all").addEventListener("click", fit);

  function key() {
    legend.replaceChildren();
    for (const layer of layers) {
      if (!layer.visible) continue;
      for (const [name, rgb] of layer.legend) {
        const entry = document.createElement("span"), dot = document.createElement("span");
        dot.className = "dot";
        dot.style.background = `rgb(${rgb.join()})`;
        entry.append(dot, name);
        legend.append(entry);
      }
    }
  }

  root.querySelectorAll("[data-layer]").forEach((row) => {
    const layer = layers[Number(row.dataset.layer)];
    const [box, slider] = row.querySelectorAll("input");
    box.addEventListener("change", () => { layer.visible = box.checked; key(); draw(); });
    slider.addEventListener("input", () => { layer.opacity = Number(slider.value); draw(); });
  });
  const lines = root.querySelector("[data-outlines]");
  if (lines) lines.addEventListener("change", () => { outlines = lines.checked; draw(); });

  // A link #region-N elsewhere in the page leads to that region.
  function follow() {
    const found = /^#region-(\d+)$/.exec(location.hash);
    const at = found ? paths.findIndex((region) => region.number === Number(found[1])) : -1;
    if (at < 0) return;
    chosen = at;
    show(...paths[at].box);
    readout.textContent = paths[at].label;
    root.scrollIntoView({ block: "nearest" });
  }
  window.addEventListener("hashchange", follow);
  new ResizeObserver(() => draw()).observe(canvas);

  for (const layer of layers) {
    const image = new Image();
    image.onload = () => {
      layer.image = image;
      if (layer.legend.length) {
        const store = document.createElement("canvas");
        store.width = image.width;
        store.height = image.height;
        layer.pixels = store.getContext("2d", { willReadFrequently: true });
        layer.pixels.drawImage(image, 0, 0);
      }
      draw();
    };
    image.src = layer.source;
  }
  key();
  fit();
  readout.textContent = data.hint;
  follow();
}
