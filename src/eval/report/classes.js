// Shows a class and its pictures where the address ends in #class-134.
const data = page.data("data");
const classes = new Map(data.classes.map(entry => [entry.index, entry]));

{
  const MOST = 40;
  const dialog = document.getElementById("class");
  const { element } = page;

  const picture = number => {
    const example = data.examples[number];
    const text = `${example.path}, ${page.percent(example.confidence)} sure`;
    const shown = example.picture
      ? element("img", { src: example.picture, alt: text, title: text, loading: "lazy" })
      : element("span", { className: "path", title: text }, example.path.split("/").at(-1));
    return example.link ? element("a", { href: example.link }, shown) : shown;
  };

  const link = index => element("a", { className: "class", href: `#class-${index}`, title: classes.get(index).title },
    classes.get(index).name);

  // Pairs of a class and another: what the other is, how often, and the pictures.
  const list = (heading, pairs, other, of) => {
    if (pairs.length === 0) return "";
    pairs.sort((one, two) => two[2] - one[2]);
    const rows = pairs.slice(0, MOST).map(pair => element("li", {},
      element("div", {}, link(other(pair)), " ", element("small", {}, `${page.thousands(pair[2])} of ${page.thousands(of(pair))}`)),
      element("div", { className: "strip small" }, ...pair[3].map(picture))));
    const more = pairs.length - rows.length;
    return element("div", {}, element("h3", {}, heading), element("ul", { className: "pairs" }, ...rows),
      more > 0 ? element("p", { className: "note" }, `and ${page.thousands(more)} more classes`) : "");
  };

  const step = (index, by) => {
    const place = data.classes.findIndex(entry => entry.index === index);
    const next = data.classes[(place + by + data.classes.length) % data.classes.length];
    location.hash = `#class-${next.index}`;
  };

  const show = () => {
    const index = Number(/^#class-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
    const entry = classes.get(index);
    if (!entry) {
      dialog.close();
      return;
    }
    const facts = entry.facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    const button = (text, label, click) => {
      const made = element("button", { type: "button", "aria-label": label, title: label }, text);
      made.addEventListener("click", click);
      return made;
    };
    const lost = data.pairs.filter(pair => pair[0] === index && pair[1] !== index);
    const won = data.pairs.filter(pair => pair[1] === index && pair[0] !== index);
    const lists = [
      list("Its images are taken for", lost, pair => pair[1], () => entry.images),
      list("Taken for it are images of", won, pair => pair[0], pair => classes.get(pair[0]).images),
    ];
    dialog.replaceChildren(
      element("header", {}, element("h2", {}, entry.title),
        element("nav", {}, button("\u2190", "previous class", () => step(index, -1)),
          button("\u2192", "next class", () => step(index, 1)), button("\u00d7", "close", () => dialog.close()))),
      element("dl", { className: "class-facts" }, ...facts),
      element("div", { className: "columns" }, ...lists),
      lost.length + won.length === 0 ? element("p", {}, "No mistakes: neither of its images, nor of others taken for it.") : "");
    dialog.setAttribute("aria-label", entry.title);
    dialog.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
  };

  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#class-")) history.replaceState(null, "", "#");
  });
  dialog.addEventListener("click", event => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", event => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const index = Number(location.hash.slice("#class-".length));
    if (by && !event.altKey && classes.has(index)) step(index, by);
  });
  addEventListener("hashchange", show);
  if (location.hash) show();
}
