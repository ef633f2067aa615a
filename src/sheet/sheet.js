const sheet = page.data("sheet");
const one = id => document.getElementById(id);
const scripts = name => [...document.querySelectorAll(`script.${name}`)];

// What is known of all images; their pictures are read a script at a time, when they are seen.
const images = scripts("rows").flatMap(script => JSON.parse(script.textContent));
images.forEach((image, order) => { image.order = order; image.lower = image.name.toLowerCase(); });
const pictureScripts = scripts("pictures"), read = new Map();
const pictureOf = image => {
  const chunk = Math.floor(image.order / sheet.chunk);
  if (!read.has(chunk)) {
    // So many are kept as are on a screen, and some more.
    if (read.size > 24) read.delete(read.keys().next().value);
    read.set(chunk, JSON.parse(pictureScripts[chunk].textContent));
  }
  return read.get(chunk)[image.order % sheet.chunk];
};
// The maps of an image: of each class, float32 row by row.
const mapsOf = image => {
  const { size: [rows, columns], maps } = pictureOf(image);
  const values = new Float32Array(Uint8Array.from(atob(maps), c => c.charCodeAt(0)).buffer);
  return image.top.map((_, rank) => ({ rows, columns, values: values.subarray(rank * rows * columns, (rank + 1) * rows * columns) }));
};
const first = label => label.split(",")[0];
const className = index => sheet.classes[index]?.[1] ?? `class ${index}`;
// Two classes of ImageNet are a "crane": the index tells them apart.
const classId = index => sheet.classes[index]?.[0] ? `${sheet.classes[index][0]}, ${index}` : String(index);
const text = (name, content, className = "") => page.element(name, { textContent: content, className });
const width = probability => `${Math.max(0, Math.min(100, 100 * probability))}%`;

one("failed-place").append(one("failed").content);

// Filters and order.
const form = one("sieve"), grid = one("grid");
const counts = new Map();
for (const image of images) if (image.top.length) counts.set(image.top[0][0], (counts.get(image.top[0][0]) ?? 0) + 1);
const byCount = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
const listed = new Set(images.flatMap(image => image.top.map(([index]) => index)));
for (const index of [...listed].sort((a, b) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0) || a - b)) {
  one("class").append(new Option(`${first(className(index))} (${classId(index)}): ${page.thousands(counts.get(index) ?? 0)}`, index));
}
for (const [index, count] of byCount) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "bar", title: `${className(index)} (${classId(index)})` });
  const bar = document.createElement("i"), fill = document.createElement("u");
  fill.style.width = width(count / byCount[0][1]);
  bar.append(fill);
  button.append(text("span", first(className(index))), bar, text("em", page.thousands(count)));
  button.addEventListener("click", () => { one("class").value = index; sift(); });
  one("classes").append(button);
}
one("counts").open = byCount.length <= 12;
one("counts").querySelector("summary").textContent = `Images of each class (${page.thousands(byCount.length)} ${byCount.length === 1 ? "class" : "classes"})`;
one("summary").textContent = `${page.thousands(images.length)} ${images.length === 1 ? "image" : "images"}.`;

// The class of an image that is looked for, or its first: index, probability and logit.
const wanted = image => {
  const index = one("class").value;
  if (index === "") return image.top[0];
  return one("any").checked ? image.top.find(top => top[0] === Number(index)) : image.top[0]?.[0] === Number(index) ? image.top[0] : undefined;
};
const orders = {
  order: (a, b) => a.order - b.order,
  name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
  probability: (a, b) => (wanted(b)?.[1] ?? 0) - (wanted(a)?.[1] ?? 0),
  class: (a, b) => (a.top[0]?.[0] ?? 0) - (b.top[0]?.[0] ?? 0) || b.top[0][1] - a.top[0][1],
};
let shown = images, selected = 0;
const sift = () => {
  const words = one("path").value.toLowerCase().split(/\s+/).filter(word => word);
  const [low, high] = ["from", "to"].map(id => one(id).value === "" ? NaN : Number(one(id).value) / 100);
  const current = shown[selected];
  shown = images.filter(image => {
    const top = wanted(image);
    return top && words.every(word => image.lower.includes(word)) && !(top[1] < low) && !(top[1] > high) && (!one("warned").checked || image.warning);
  }).sort((a, b) => orders[one("sort").value](a, b) || a.order - b.order);
  if (one("reverse").checked) shown.reverse();
  selected = Math.max(0, shown.indexOf(current));
  one("count").textContent = `${page.thousands(shown.length)} of ${page.thousands(images.length)} images`;
  cells.forEach(cell => cell.remove());
  cells.clear();
  layOut();
};
form.addEventListener("input", sift);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(sift));
one("path").addEventListener("keydown", event => {
  if (event.key === "Escape") form.reset();
  else if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); grid.focus(); }
});

// The grid holds the cells that are in view and few more, however many images there are.
const GAP = 8, TEXT = 62, LEAST = 132;
const cells = new Map();
let room = 0, columns = 1, side = LEAST, step = LEAST;
const layOut = () => {
  room = grid.clientWidth;
  columns = Math.max(2, Math.floor((room + GAP) / (LEAST + GAP)));
  side = Math.floor((room + GAP) / columns) - GAP;
  step = side + TEXT + GAP;
  grid.style.height = `${Math.max(1, Math.ceil(shown.length / columns)) * step}px`;
  cells.forEach((cell, place) => position(cell, place));
  draw();
};
const position = (cell, place) => Object.assign(cell.style, {
  left: `${place % columns * (side + GAP)}px`, top: `${Math.floor(place / columns) * step}px`, width: `${side}px`, height: `${step - GAP}px`,
});
const draw = () => {
  const top = -grid.getBoundingClientRect().top, beyond = window.innerHeight / 2;
  const from = Math.max(0, Math.floor((top - beyond) / step)) * columns;
  const to = Math.min(shown.length, Math.ceil((top + window.innerHeight + beyond) / step) * columns);
  for (const [place, cell] of cells) if (place < from || place >= to) { cell.remove(); cells.delete(place); }
  for (let place = from; place < to; place++) {
    if (!cells.has(place)) {
      const cell = cellOf(shown[place], place);
      cells.set(place, cell);
      grid.append(cell);
    }
    cells.get(place).setAttribute("aria-selected", place === selected);
  }
  if (cells.has(selected)) grid.setAttribute("aria-activedescendant", `cell-${selected}`);
  else grid.removeAttribute("aria-activedescendant");
};
const cellOf = (image, place) => {
  const cell = document.createElement("div");
  cell.className = "cell";
  cell.id = `cell-${place}`;
  cell.setAttribute("role", "option");
  const top = wanted(image), { address } = pictureOf(image);
  const picture = address ? Object.assign(document.createElement("img"), { src: address, alt: "", decoding: "async" }) : text("div", "no picture", "missing");
  cell.append(picture, text("b", first(className(top[0]))), text("span", page.percent(top[1]), "p"), text("span", image.name.split(/[\\/]/).pop(), "file"));
  if (image.warning) cell.append(text("span", "!", "mark"));
  cell.title = `${image.name}\n${className(top[0])} (${classId(top[0])})${image.warning ? `\n${image.warning}` : ""}`;
  position(cell, place);
  cell.addEventListener("click", () => { select(place); open(); });
  return cell;
};
const select = place => {
  if (!shown.length) return;
  selected = Math.max(0, Math.min(shown.length - 1, place));
  const top = grid.getBoundingClientRect().top + Math.floor(selected / columns) * step, bar = form.getBoundingClientRect().bottom;
  const above = getComputedStyle(form).position === "sticky" ? Math.max(0, bar) : 0;
  if (top < above) window.scrollBy(0, top - above - GAP);
  else if (top + step > window.innerHeight) window.scrollBy(0, top + step - window.innerHeight);
  draw();
};
window.addEventListener("scroll", draw, { passive: true });
// Later, and not for a change of height, which laying out makes itself.
new ResizeObserver(() => requestAnimationFrame(() => { if (grid.clientWidth !== room) layOut(); })).observe(grid);
grid.addEventListener("keydown", event => {
  const page = Math.max(1, Math.floor(window.innerHeight / step) - 1) * columns;
  const way = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page, Home: -shown.length, End: shown.length }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (way) select(selected + way);
  else if (event.key === "Enter" || event.key === " ") open();
  else if (event.key === "Escape") form.reset();
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || detail.open || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  one("path").focus();
});

// One image and its maps. Rank -1 is the image alone.
const detail = one("detail"), canvas = one("picture");
let rank = -1;
const open = () => {
  if (!shown.length) return;
  show();
  if (!detail.open) detail.showModal();
};
const colour = value => {
  const place = 6 * Math.round((Math.max(-1, Math.min(1, value)) + 1) * 128);
  return `#${sheet.colours.slice(place, place + 6)}`;
};
const number = value => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);
let maps = [], largest = 1, drawing = 0;
const show = () => {
  const image = shown[selected];
  maps = mapsOf(image);
  largest = maps.reduce((most, { values }) => values.reduce((most, value) => Math.max(most, Math.abs(value)), most), 0) || 1;
  rank = Math.min(rank, image.top.length - 1);
  one("name").textContent = image.name;
  one("name").title = image.bytes ? `the name's bytes in base64: ${image.bytes}` : "";
  one("link").replaceChildren(...(image.address ? [Object.assign(text("a", "the file"), { href: image.address, target: "_blank", rel: "noopener" })] : []));
  one("warning").textContent = image.warning ?? "";
  const alone = text("div", "the image alone", "top");
  const tops = [alone, ...image.top.map(([index, probability, logit]) => {
    const top = text("div", "", "top"), name = text("div", ""), bar = document.createElement("i"), fill = document.createElement("u");
    name.append(className(index), " ", text("small", `(${classId(index)})`));
    fill.style.width = width(probability);
    bar.append(fill);
    const numbers = text("span", page.percent(probability));
    numbers.append(document.createElement("br"), text("small", `logit ${logit.toFixed(3)}`));
    top.append(name, numbers, bar);
    return top;
  })];
  tops.forEach((top, place) => {
    top.setAttribute("role", "option");
    top.setAttribute("aria-selected", place - 1 === rank);
    top.addEventListener("click", () => { rank = place - 1; show(); });
  });
  one("tops").replaceChildren(...tops);
  one("place").textContent = rank < 0 ? "Choose a class to see where it comes from." : "";
  one("legend").hidden = one("numbers").hidden = rank < 0;
  one("low").textContent = number(-largest);
  one("high").textContent = number(largest);
  tell();
  paint(image);
};
// The numbers of the map, and what they give together.
const tell = () => {
  if (rank < 0) return one("map").replaceChildren();
  const { columns, values } = maps[rank];
  const table = document.createElement("tbody");
  for (let start = 0; start < values.length; start += columns) {
    const row = table.insertRow();
    for (const value of values.subarray(start, start + columns)) Object.assign(row.insertCell(), { textContent: number(value) }).dataset.value = value;
  }
  one("map").replaceChildren(table);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  one("sum").textContent = `The mean of these ${values.length} numbers, ${number(mean)}, is the logit.`;
};
const loaded = address => new Promise(done => {
  if (!address) return done();
  const picture = new Image();
  // Without a picture, the map lies over nothing.
  picture.onload = picture.onerror = () => done(picture);
  picture.src = address;
});
// Not every browser has a filter for it.
const inGrey = (context, side) => {
  const pixels = context.getImageData(0, 0, side, side), { data } = pixels;
  for (let at = 0; at < data.length; at += 4)
    data[at] = data[at + 1] = data[at + 2] = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
  context.putImageData(pixels, 0, 0);
};
const paint = async image => {
  const mine = ++drawing, context = canvas.getContext("2d"), { address } = pictureOf(image);
  const picture = await loaded(address);
  if (mine !== drawing) return;
  const side = canvas.width;
  context.globalAlpha = 1;
  context.clearRect(0, 0, side, side);
  if (picture?.naturalWidth) context.drawImage(picture, 0, 0, side, side);
  if (rank >= 0) {
    inGrey(context, side);
    const { rows, columns, values } = maps[rank];
    context.globalAlpha = sheet.opacity;
    values.forEach((value, place) => {
      const edge = (at, of) => Math.round(at * side / of), column = place % columns, row = Math.floor(place / columns);
      context.fillStyle = colour(value / largest);
      context.fillRect(edge(column, columns), edge(row, rows), edge(column + 1, columns) - edge(column, columns), edge(row + 1, rows) - edge(row, rows));
    });
  }
  canvas.dataset.drawn = `${image.order} ${rank}`;
};
// The legend lies over dark and light, as the map does over the image.
const ramp = one("ramp").getContext("2d"), shade = ramp.createLinearGradient(0, 0, 0, 16);
shade.addColorStop(0, "#000");
shade.addColorStop(1, "#fff");
ramp.fillStyle = shade;
ramp.fillRect(0, 0, 448, 16);
ramp.globalAlpha = sheet.opacity;
for (let x = 0; x < 448; x++) { ramp.fillStyle = colour(2 * x / 447 - 1); ramp.fillRect(x, 0, 1, 16); }
canvas.addEventListener("pointermove", event => {
  if (rank < 0) return;
  const box = canvas.getBoundingClientRect(), { rows, columns, values } = maps[rank];
  const [column, row] = [(event.clientX - box.left) / box.width * columns, (event.clientY - box.top) / box.height * rows].map(Math.floor);
  if (column < 0 || row < 0 || column >= columns || row >= rows) return;
  one("place").textContent = `Row ${row + 1}, column ${column + 1}: ${number(values[row * columns + column])}`;
});
const go = way => { select(selected + way); show(); };
one("back").addEventListener("click", () => go(-1));
one("on").addEventListener("click", () => go(1));
one("close").addEventListener("click", () => detail.close());
detail.addEventListener("close", () => grid.focus({ preventScroll: true }));
detail.addEventListener("click", event => { if (event.target === detail) detail.close(); });
detail.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") go(event.key === "ArrowLeft" ? -1 : 1);
  else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    rank = Math.max(-1, Math.min(maps.length - 1, rank + (event.key === "ArrowUp" ? -1 : 1)));
    show();
  } else return;
  event.preventDefault();
});
sift();
// The keys work at once.
grid.focus({ preventScroll: true });
