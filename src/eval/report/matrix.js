// Draws the confusions of all classes, from far or near.
for (const section of document.querySelectorAll(".scripted")) section.hidden = false;
const canvas = document.getElementById("matrix");
if (canvas) {
  const says = document.getElementById("matrix-says");
  const orders = {
    index: (a, b) => a.index - b.index,
    name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
    top1: (a, b) => b.top1 - a.top1 || a.index - b.index,
  };
  const count = data.classes.length, context = canvas.getContext("2d");
  const FONT = "11px system-ui, sans-serif", NEAREST = 4, NAMED = 12, NUMBERED = 26;
  // The classes in their order, their places by index, and the pairs by places: row, column, how often.
  let order = [], places = new Map(), cells = [], byCell = new Map();
  // Pixels of a cell; what of the matrix is at the left and the top, in pixels; the cell in question.
  let scale = 1, left = 0, top_ = 0, cursor = null;
  // Pixels of the matrix, and of the names beside and above it.
  let side = 1, beside = 1, above = 1;

  const arrange = () => {
    const chosen = cursor && [order[cursor.row], order[cursor.column]];
    order = [...data.classes].sort(orders[document.getElementById("matrix-order").value]);
    places = new Map(order.map((entry, place) => [entry.index, place]));
    cells = data.pairs.map(([label, predicted, times]) => ({ row: places.get(label), column: places.get(predicted), times }));
    // What is right is drawn last: from far, its neighbours must not hide it.
    cells.sort((a, b) => (a.row === a.column) - (b.row === b.column));
    byCell = new Map(cells.map(cell => [cell.row * count + cell.column, cell]));
    cursor = chosen && { row: places.get(chosen[0].index), column: places.get(chosen[1].index) };
  };

  const whole = () => side / count;
  const clamp = () => {
    scale = Math.min(Math.max(scale, whole()), Math.max(whole(), 60));
    const most = Math.max(0, scale * count - side);
    left = Math.min(Math.max(left, 0), most);
    top_ = Math.min(Math.max(top_, 0), most);
  };
  // Zooms so that the point of the matrix at x, y stays there.
  const zoom = (factor, x = side / 2, y = side / 2) => {
    const [column, row] = [(left + x) / scale, (top_ + y) / scale];
    scale *= factor;
    clamp();
    left = column * scale - x;
    top_ = row * scale - y;
    clamp();
    draw();
  };

  const measure = () => {
    const width = canvas.parentElement.clientWidth;
    context.font = FONT;
    const longest = Math.max(...order.map(entry => context.measureText(entry.name).width)) + 12;
    beside = Math.min(Math.max(longest, 70), 0.28 * width, 150);
    above = Math.min(Math.max(longest, 38), 110);
    const before = side;
    side = Math.max(Math.min(width - beside, 680), 40);
    [scale, left, top_] = [scale, left, top_].map(value => value * side / before);
    const ratio = devicePixelRatio || 1;
    canvas.style.width = `${beside + side}px`;
    canvas.style.height = `${above + side}px`;
    canvas.width = Math.round((beside + side) * ratio);
    canvas.height = Math.round((above + side) * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    clamp();
    draw();
  };

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["card", "ink", "soft", "line", "fill", "wrong"].map(
      name => [name, style.getPropertyValue(`--${name}`).trim()]));
  };

  const drawCells = colour => {
    const size = Math.max(scale - (scale > 8 ? 1 : 0), 1.5);
    for (const { row, column, times } of cells) {
      const [x, y] = [column * scale - left, row * scale - top_];
      if (x < -scale || y < -scale || x > side || y > side) continue;
      const strength = Math.sqrt(times / order[row].images);
      // Small ones have to be seen.
      const least = scale < NEAREST ? 0.4 : 0.18;
      context.globalAlpha = least + (1 - least) * strength;
      context.fillStyle = row === column ? colour.fill : colour.wrong;
      context.fillRect(x, y, size, size);
      context.globalAlpha = 1;
      if (scale >= NUMBERED) {
        context.fillStyle = strength > 0.6 ? colour.card : colour.ink;
        context.textAlign = "center";
        context.fillText(page.thousands(times), x + scale / 2, y + scale / 2, scale - 2);
      }
    }
  };

  // Names of rows and columns where there is room for them, else some of the indices.
  const drawNames = colour => {
    context.fillStyle = colour.soft;
    const first = Math.max(0, Math.floor(Math.min(left, top_) / scale));
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 1e6];
    const step = scale >= NAMED ? 1 : steps.find(step => step * scale >= 30);
    const sorted = document.getElementById("matrix-order").value === "index";
    let last = -Infinity;
    for (let place = first; place < count; place++) {
      const entry = order[place];
      if (scale < NAMED && (!sorted || entry.index % step !== 0 || (place - last) * scale < 14)) continue;
      last = place;
      const text = scale < NAMED ? page.thousands(entry.index) : entry.name;
      const [x, y] = [(place + 0.5) * scale - left, (place + 0.5) * scale - top_];
      if (y > 0 && y < side) {
        context.textAlign = "right";
        context.fillText(text, beside - 5, above + y, beside - 8);
      }
      if (x > 0 && x < side) {
        context.save();
        context.translate(beside + x, above - 5);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(text, 0, 0, above - 8);
        context.restore();
      }
    }
    context.textAlign = "left";
    context.fillText("taken for \u2192", 4, 12, beside - 6);
    context.fillText("labelled \u2193", 4, 28, beside - 6);
  };

  const draw = () => {
    const colour = colours();
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.font = FONT;
    context.textBaseline = "middle";
    drawNames(colour);
    context.save();
    context.translate(beside, above);
    context.beginPath();
    context.rect(0, 0, side, side);
    context.clip();
    context.fillStyle = colour.card;
    context.fillRect(0, 0, side, side);
    if (scale >= 14) {
      context.strokeStyle = colour.line;
      context.beginPath();
      for (let place = 0; place <= count; place++) {
        const [x, y] = [place * scale - left - 0.5, place * scale - top_ - 0.5];
        context.moveTo(x, 0); context.lineTo(x, side);
        context.moveTo(0, y); context.lineTo(side, y);
      }
      context.stroke();
    }
    drawCells(colour);
    if (cursor) {
      const size = Math.max(scale, 6), middle = (scale - size) / 2;
      context.strokeStyle = colour.ink;
      context.lineWidth = 1.5;
      context.strokeRect(cursor.column * scale - left + middle, cursor.row * scale - top_ + middle, size, size);
      context.lineWidth = 1;
    }
    context.restore();
    context.strokeStyle = colour.line;
    context.strokeRect(beside - 0.5, above - 0.5, side + 0.5, side + 0.5);
  };

  const say = cell => {
    cursor = cell;
    if (cell) {
      const [label, predicted] = [order[cell.row], order[cell.column]];
      const times = byCell.get(cell.row * count + cell.column)?.times ?? 0;
      const share = label.images > 0 ? ` (${page.percent(times / label.images)})` : "";
      const what = cell.row === cell.column ? "found" : `taken for ${predicted.name}`;
      says.textContent = `${label.name} ${what}: ${page.thousands(times)} of ${page.thousands(label.images)} images${share}`;
    }
    draw();
  };
  const reveal = () => {
    const [x, y] = [cursor.column * scale, cursor.row * scale];
    left = Math.min(Math.max(left, x + scale - side), x);
    top_ = Math.min(Math.max(top_, y + scale - side), y);
    clamp();
  };

  // The cell at a point of the matrix; where cells are small, one near it that is not empty.
  const at = (x, y) => {
    if (x < 0 || y < 0 || x >= side || y >= side) return null;
    const [column, row] = [Math.floor((left + x) / scale), Math.floor((top_ + y) / scale)];
    const reach = scale < NEAREST ? Math.ceil(NEAREST / scale) : 0;
    let best = null, distance = Infinity;
    for (let r = row - reach; r <= row + reach; r++) {
      for (let c = column - reach; c <= column + reach; c++) {
        const away = (r - row) ** 2 + (c - column) ** 2;
        if (r >= 0 && c >= 0 && c < count && away < distance && byCell.has(r * count + c)) {
          [best, distance] = [{ row: r, column: c }, away];
        }
      }
    }
    return best ?? { row, column };
  };
  const point = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - beside, event.clientY - box.top - above];
  };

  // One pointer drags, two zoom.
  const pointers = new Map();
  canvas.addEventListener("pointerdown", event => {
    pointers.set(event.pointerId, point(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const now = point(event), before = pointers.get(event.pointerId);
    if (!before) {
      say(at(...now) ?? cursor);
      return;
    }
    const others = [...pointers].filter(([id]) => id !== event.pointerId);
    pointers.set(event.pointerId, now);
    if (others.length > 0) {
      const other = others[0][1];
      const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
      zoom(apart(now) / Math.max(apart(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      left -= now[0] - before[0];
      top_ -= now[1] - before[1];
      clamp();
      draw();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, event => {
      if (pointers.delete(event.pointerId) && end === "pointerup") say(at(...point(event)) ?? cursor);
    });
  }
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...point(event));
  }, { passive: false });

  const open_ = cell => { if (cell) location.hash = `#class-${order[cell.row].index}`; };
  canvas.addEventListener("dblclick", event => open_(at(...point(event))));
  // From the cell in question on, the next that is not empty, in that row or column.
  const next = ([down, across]) => {
    let { row, column } = cursor;
    do {
      row += down;
      column += across;
      if (row < 0 || column < 0 || row >= count || column >= count) return cursor;
    } while (!byCell.has(row * count + column));
    return { row, column };
  };
  canvas.addEventListener("keydown", event => {
    const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const way = ways[event.key], centre = () => cursor
      ? [(cursor.column + 0.5) * scale - left, (cursor.row + 0.5) * scale - top_] : [side / 2, side / 2];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (way) {
      cursor ??= { row: 0, column: 0 };
      const inside = value => Math.min(Math.max(value, 0), count - 1);
      const cell = event.shiftKey ? next(way) : { row: inside(cursor.row + way[0]), column: inside(cursor.column + way[1]) };
      cursor = cell;
      reveal();
      say(cell);
    } else if (event.key === "+" || event.key === "=") zoom(1.5, ...centre());
    else if (event.key === "-") zoom(1 / 1.5, ...centre());
    else if (event.key === "0") zoom(0);
    else if (event.key === "Enter") open_(cursor);
    else return;
    event.preventDefault();
  });

  document.getElementById("matrix-order").addEventListener("change", () => { arrange(); draw(); });
  document.getElementById("matrix-in").addEventListener("click", () => zoom(2));
  document.getElementById("matrix-out").addEventListener("click", () => zoom(0.5));
  document.getElementById("matrix-all").addEventListener("click", () => zoom(0));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  arrange();
  side = count;
  measure();
  addEventListener("resize", measure);
}
