{
const data = page.data("data");
const get = id => document.getElementById(id);
const places = data.walks[0].steps.length;
const parts = [...new Set(data.views.map(view => view.part))];
const state = { walk: 0, place: 0, part: parts[parts.length > 2 ? 2 : 0], picture: 0 };

// How it is written.

const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const scientific = value => {
  const [factor, power] = value.toExponential(1).split("e");
  return `${factor} · 10${power.replace(/[+-]/, sign => sign === "-" ? "⁻" : "").replace(/\d/g, digit => digits[digit])}`;
};
// A change relative to something: as a number is infinite where the network overflows, JSON has null there.
const change = value => {
  if (value === null) return "∞";
  if (value === 0) return "0 %";
  return value < 1e-3 ? scientific(value) : Number((100 * value).toPrecision(3)) + " %";
};
const rounded = value => value.toFixed(data.decimals);
const short = value => Number(value.toPrecision(2)).toString();

// The weights' pictures. A film has the differences from one place to the next, of all views that change.

const counts = data.views.map(view => view.rows[0] * view.columns[0]);
const unpack = async id => {
  const packed = Uint8Array.from(atob(get(id).textContent.trim()), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int8Array(await new Response(stream).arrayBuffer());
};
const cut = bytes => {
  let end = 0;
  return counts.map(count => bytes.subarray(end, end += count));
};
let start;
const films = [];
const film = async walk => {
  start ??= cut(await unpack("start"));
  if (films[walk]) return films[walk];
  const bytes = await unpack(`film-${walk}`);
  const views = start.map(() => null);
  let end = 0;
  for (const view of data.walks[walk].changing) {
    views[view] = [];
    for (let place = 0; place < places; place++) {
      const before = place ? views[view][place - 1] : start[view];
      views[view].push(before.map((value, cell) => value + bytes[end + cell]));
      end += counts[view];
    }
  }
  return films[walk] = views;
};

// A byte from -127 to 127 finds its colour at 2 (byte + 127) / 254 of the way through the table.
const table = new Uint32Array(255);
const channels = (red, green, blue) => 0xff000000 | blue << 16 | green << 8 | red;
for (let byte = -127; byte <= 127; byte++) {
  const hex = data.colours.slice(6 * Math.round((byte / 127 + 1) * 128)).slice(0, 6);
  table[byte + 127] = channels(...[0, 2, 4].map(place => parseInt(hex.slice(place, place + 2), 16)));
}
const gradient = `linear-gradient(to right, ${[0, 32, 64, 96, 128, 160, 192, 224, 256].map(
  place => "#" + data.colours.slice(6 * place, 6 * place + 6))})`;

// Side of a cell, gap between kernels, kernels in a row.
const forms = { matrix: [8, 0], kernels: [6, 3], colours: [4, 4], bias: [8, 0] };
const across = view => view.kind === "kernels" ? 16 : view.columns[0] < 147 || view.rows[0] > 16 ? 16 : 8;
const paint = (canvas, view, values) => {
  const [cell, gap] = forms[view.kind], [rows, columns] = [view.rows[0], view.columns[0]];
  const side = view.kind === "colours" ? 7 : 3, kernels = Math.min(across(view), rows);
  const tiled = view.kind === "kernels" || view.kind === "colours", pitch = side * cell + gap;
  const width = tiled ? kernels * pitch - gap : view.kind === "bias" ? rows * cell : columns * cell;
  const height = tiled ? Math.ceil(rows / kernels) * pitch - gap : view.kind === "bias" ? cell : rows * cell;
  const pixels = new Uint32Array(width * height);
  const fill = (x, y, colour) => {
    for (let line = y; line < y + cell; line++) pixels.fill(colour, line * width + x, line * width + x + cell);
  };
  for (let row = 0; row < rows; row++) {
    const [left, top] = [row % kernels * pitch, Math.floor(row / kernels) * pitch];
    const value = column => values[row * columns + column];
    if (view.kind === "colours") {
      for (let place = 0; place < 49; place++) {
        const colour = channels(...[0, 49, 98].map(channel => Math.round(255 * (value(channel + place) + 127) / 254)));
        fill(left + place % 7 * cell, top + Math.floor(place / 7) * cell, colour);
      }
    } else {
      for (let column = 0; column < columns; column++) {
        const [x, y] = view.kind === "kernels" ? [left + column % 3 * cell, top + Math.floor(column / 3) * cell]
          : view.kind === "bias" ? [row * cell, 0] : [column * cell, row * cell];
        fill(x, y, table[value(column) + 127]);
      }
    }
  }
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
};

// Each part and its bias are one plate.
let plates = [];
const shown = ([first, all]) => first === all ? `all ${page.thousands(all)}` : `the first ${first} of ${page.thousands(all)}`;
const legend = view => {
  const scale = short(view.scale);
  if (view.kind === "colours") return [`grey is 0, full colours are ±${scale} and beyond`];
  return [`−${scale}`, page.element("span", { className: "legend", style: `background: ${gradient}` }), `${scale} and beyond`];
};
const lay = () => {
  plates = [];
  get("plates").replaceChildren();
  data.views.forEach((view, index) => {
    if (view.part !== state.part || view.kind === "bias") return;
    const bias = data.views.findIndex((other, place) => place > index && other.kind === "bias");
    const canvases = [index, bias].map(view => page.element("canvas", { className: data.views[view].kind }));
    canvases.forEach((canvas, place) => {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${view.conv}, ${place ? "biases" : view.name}, as colours`);
    });
    const note = page.element("i");
    const what = view.kind === "matrix"
      ? `${view.conv}: ${shown(view.rows)} outputs, below each other, and ${shown(view.columns)} inputs; `
      : `${view.conv}: ${shown(view.rows)}; `;
    const plate = page.element("figure", { className: "plate" + (view.kind === "colours" ? " whole" : "") },
      page.element("h3", {}, page.element("span", { textContent: view.name }), note), ...canvases,
      page.element("figcaption", {}, page.element("span", { className: "scale" }, ...legend(view)), what,
        `biases below, to ±${short(data.views[bias].scale)}`));
    get("plates").append(plate);
    plates.push({ views: [index, bias], canvases, note });
  });
};
const paintPlates = () => {
  const views = films[state.walk];
  if (!views) return;
  for (const { views: [weight, bias], canvases, note } of plates) {
    [weight, bias].forEach((view, place) => paint(canvases[place], data.views[view], views[view]?.[state.place] ?? start[view]));
    note.textContent = views[weight] ? "" : views[bias] ? "only biases move" : "stays on this path";
  }
};

// The answers.

const fillTop = (section, answers, before) => {
  const rows = answers.map(([index, probability, logit], rank) => {
    const first = before[rank] ?? [];
    const number = (value, old) => {
      const text = rounded(value);
      return page.element("td", { className: "n" + (index === first[0] && text === rounded(old) ? "" : " other"), textContent: text });
    };
    const name = page.element("th", { scope: "row", textContent: data.labels[index], title: `${data.labels[index]} (output ${index})` });
    name.classList.toggle("other", index !== first[0]);
    const bar = page.element("u");
    bar.style.width = `${100 * probability}%`;
    return page.element("tr", {}, name, page.element("td", { className: "bar-cell" }, page.element("i", {}, bar)),
      number(100 * probability, 100 * first[1]), number(logit, first[2]));
  });
  const head = page.element("tr", {}, ...["class", "", "%", "output"].map((text, column) =>
    page.element("th", { textContent: text, scope: "col", className: column === 1 ? "bar-cell" : column > 1 ? "n" : "" })));
  section.querySelector("table").replaceChildren(page.element("thead", {}, head), page.element("tbody", {}, ...rows));
  const moved = section.querySelectorAll("td.other").length, all = 2 * before.length;
  const verdict = section.querySelector(".verdict");
  const said = answers.length && data.labels[answers[0][0]], was = data.labels[before[0]?.[0]];
  verdict.className = "verdict " + (moved || !answers.length ? "other" : "same");
  verdict.textContent = !answers.length ? "✗ no answer: the network overflows"
    : !moved ? `✓ all ${all} numbers are those of the start`
    : `✗ ${moved} of ${all} numbers are others` + (said !== was ? `, and it says “${said}”, not “${was}”` : `, and it still says “${said}”`);
};

const answer = () => {
  const walk = data.walks[state.walk], step = walk.steps[state.place];
  const t = step.t.toFixed(3);
  get("place").value = state.place;
  get("place").setAttribute("aria-valuetext", `t = ${t}`);
  get("t").textContent = `t = ${t}`;
  get("weight-change").textContent = change(step.weight_change);
  get("whole").querySelector(".change").textContent = change(step.logit_change);
  get("half").querySelector(".change").textContent = change(step.control_logit_change);
  const before = walk.top[0][state.picture];
  fillTop(get("whole"), walk.top[state.place][state.picture], before);
  fillTop(get("half"), walk.control[state.place][state.picture], before);
};

// The chart: t along, changes upwards by powers of ten.

const svg = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const curves = [
  ["weights", "weight_change", "weights"],
  ["control", "control_logit_change", "outputs, by half of the move"],
  ["logits", "logit_change", "outputs, by the whole move"],
];
const [height, left, bottom] = [300, 62, 34];
let chart;
const plot = () => {
  const width = Math.max(get("chart").clientWidth, 320);
  const steps = data.walks[state.walk].steps, end = steps[places - 1].t;
  const values = steps.flatMap(step => curves.map(([, field]) => step[field])).concat(data.tolerance).filter(value => value > 0);
  const [low, high] = [Math.floor(Math.log10(Math.min(...values))), Math.ceil(Math.log10(Math.max(...values)) + 0.1)];
  const x = t => left + t / end * (width - left - 20);
  const y = value => 10 + (high - Math.log10(value)) / (high - low) * (height - bottom - 10);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "changes along the path" });
  for (let power = low; power <= high; power += high - low > 6 ? 2 : 1) {
    root.append(svg("line", { class: "axis", x1: left, x2: width - 20, y1: y(10 ** power), y2: y(10 ** power) }));
    root.append(svg("text", { x: left - 8, y: y(10 ** power) + 4, "text-anchor": "end" }, scientific(10 ** power).replace("1.0 · ", "")));
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const t = Number((share * end).toPrecision(4));
    root.append(svg("text", { x: x(share * end), y: height - 12, "text-anchor": "middle" }, share ? String(t) : "t = 0"));
  }
  root.append(svg("line", { class: "tolerance", x1: left, x2: width - 20, y1: y(data.tolerance), y2: y(data.tolerance) }));
  root.append(svg("text", { x: left + 8, y: y(data.tolerance) - 6 }, `what rounding may do: ${scientific(data.tolerance)}`));
  const marks = curves.map(([name, field, words]) => {
    const points = steps.filter(step => step[field] > 0).map(step => `${x(step.t)},${y(step[field])}`);
    root.append(svg("polyline", { class: `line ${name}`, points: points.join(" ") }));
    const last = steps[places - 1][field];
    const above = name === "control" && last < steps[places - 1].weight_change ? 20 : -12;
    if (last > 0) root.append(svg("text", { class: name, x: width - 24, y: Math.max(y(last) + above, 14), "text-anchor": "end" }, words));
    const mark = svg("circle", { class: name, r: 5 });
    return { mark, field };
  });
  const here = svg("line", { class: "here", y1: 6, y2: height - bottom });
  root.append(here, ...marks.map(({ mark }) => mark));
  const point = event => {
    const box = root.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - 20);
    go(Math.round(Math.min(Math.max(share, 0), 1) * (places - 1)));
  };
  root.addEventListener("pointerdown", event => { stop(); point(event); });
  root.addEventListener("pointermove", event => { if (event.buttons) point(event); });
  get("chart").replaceChildren(root);
  chart = { x, y, here, marks, width };
};
const mark = () => {
  const step = data.walks[state.walk].steps[state.place], { x, y, here, marks } = chart;
  here.setAttribute("x1", x(step.t));
  here.setAttribute("x2", x(step.t));
  for (const { mark, field } of marks) {
    mark.toggleAttribute("hidden", !(step[field] > 0));
    mark.style.display = step[field] > 0 ? "" : "none";
    if (step[field] > 0) { mark.setAttribute("cx", x(step.t)); mark.setAttribute("cy", y(step[field])); }
  }
};

addEventListener("resize", () => {
  if (get("chart").clientWidth === chart.width) return;
  plot();
  mark();
});

// What is chosen.

const go = place => {
  state.place = Math.min(Math.max(place, 0), places - 1);
  answer();
  mark();
  paintPlates();
};
const moves = part => data.walks[state.walk].changing.some(view => data.views[view].part === part);
const choosePart = part => {
  state.part = part;
  get("parts").querySelectorAll("input").forEach(input => input.checked = input.value === part);
  lay();
  paintPlates();
};
const chooseWalk = async walk => {
  state.walk = walk;
  get("walk").value = walk;
  const { family, words, dimensions } = data.walks[walk];
  get("words").textContent = `${words} ${dimensions} dimensions.`;
  get("parts").querySelectorAll("label").forEach(label => label.classList.toggle("still", !moves(label.textContent)));
  if (!moves(state.part)) choosePart(parts.find(moves) ?? state.part);
  plot();
  go(state.place);
  if (typeof DecompressionStream === "undefined") {
    get("plates-note").textContent = "This browser lacks DecompressionStream, which the pictures of the weights need; the numbers are complete.";
    return;
  }
  await film(walk);
  if (state.walk === walk) paintPlates();
};
const choosePicture = picture => {
  state.picture = picture;
  const { name, address, side } = data.pictures[picture];
  Object.assign(get("picture"), { src: address ?? "", alt: `what the network sees of ${name}` });
  get("picture").style.imageRendering = side < 112 ? "pixelated" : "";
  get("picture-name").textContent = name;
  answer();
};
const choice = (box, name, entries, chosen, choose) => entries.forEach(([value, content]) => {
  const input = page.element("input", { type: "radio", name, value, checked: value === chosen });
  input.addEventListener("change", () => choose(value));
  get(box).append(page.element("label", {}, input, content));
});
choice("parts", "part", parts.map(part => [part, part]), state.part, choosePart);
if (data.pictures.length > 1) {
  choice("pictures", "picture", data.pictures.map(({ name, address }, index) =>
    [index, page.element("img", { src: address ?? "", alt: name, title: name })]), 0, choosePicture);
}

// There and back again.
let timer, way = 1;
const stop = () => {
  clearInterval(timer);
  timer = undefined;
  get("play").textContent = "Play";
  get("play").setAttribute("aria-pressed", "false");
};
const play = () => {
  if (timer) return stop();
  get("play").textContent = "Pause";
  get("play").setAttribute("aria-pressed", "true");
  timer = setInterval(() => {
    if (state.place + way < 0 || state.place + way >= places) way = -way;
    go(state.place + way);
  }, Math.max(60, 4000 / places));
};
get("play").addEventListener("click", play);
get("place").addEventListener("input", event => { stop(); go(Number(event.target.value)); });
get("walk").addEventListener("change", event => chooseWalk(Number(event.target.value)));
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button")) return;
  const keys = {
    " ": play, ArrowLeft: () => { stop(); go(state.place - 1); }, ArrowRight: () => { stop(); go(state.place + 1); },
    Home: () => { stop(); go(0); }, End: () => { stop(); go(places - 1); },
    "[": () => chooseWalk((state.walk + data.walks.length - 1) % data.walks.length),
    "]": () => chooseWalk((state.walk + 1) % data.walks.length),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

// An address such as #walk=1&place=20&part=layer 3 begins there.
const from = new URLSearchParams(location.hash.slice(1));
const chosen = (name, most) => Math.min(Math.max(Math.trunc(Number(from.get(name))) || 0, 0), most);
state.place = chosen("place", places - 1);
if (parts.includes(from.get("part"))) state.part = from.get("part");
choosePart(state.part);
choosePicture(chosen("picture", data.pictures.length - 1));
chooseWalk(chosen("walk", data.walks.length - 1));
}
