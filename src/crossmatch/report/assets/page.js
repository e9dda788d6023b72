"use strict";
(async () => {
  // The chart library and the data are packed; the browser unpacks them itself.
  const unpack = (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const visible = (node) => node.getClientRects().length > 0;

  // A table that is wider than its place becomes a list of rows, each cell with its column's head.
  const tables = [...document.querySelectorAll("main table")];
  for (const table of tables) {
    table.setAttribute("role", "table");
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.firstChild ? head.firstChild.textContent.trim() : "");
    for (const head of table.querySelectorAll("thead th")) head.setAttribute("role", "columnheader");
    for (const part of table.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
    for (const row of table.querySelectorAll("tr")) {
      row.setAttribute("role", "row");
      [...row.children].forEach((cell, i) => {
        if (cell.tagName === "TH") { if (cell.scope === "row") cell.setAttribute("role", "rowheader"); return; }
        cell.setAttribute("role", "cell");
        cell.dataset.label = heads[i] || "";
        const held = document.createElement("div");
        held.className = "held";
        held.append(...cell.childNodes);
        cell.append(held);
      });
    }
  }
  const fit = () => {
    for (const table of tables) {
      if (!visible(table)) continue;
      table.classList.remove("stacked");
      table.classList.toggle("stacked", table.scrollWidth > table.parentElement.clientWidth + 1);
    }
  };

  // Files are made here, from what is shown.
  const download = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const button = (text, label, act) => {
    const node = document.createElement("button");
    node.type = "button";
    node.textContent = text;
    node.setAttribute("aria-label", label);
    node.addEventListener("click", act);
    return node;
  };
  const saves = (...buttons) => {
    const line = document.createElement("p");
    line.className = "save";
    line.append(...buttons);
    return line;
  };
  const worded = (cell) => {
    const copy = cell.cloneNode(true);
    for (const hidden of copy.querySelectorAll("[hidden], button")) hidden.remove();
    for (const part of copy.querySelectorAll("small, br, .diff, p, div")) part.before("; ");
    return copy.textContent.replace(/\s+/g, " ").replace(/(; )+/g, "; ").replace(/^[; ]+|[; ]+$/g, "");
  };
  const csv = (table) => [...table.querySelectorAll("tr")].map((row) =>
    [...row.children].map((cell) => '"' + worded(cell).replaceAll('"', '""') + '"').join(",")).join("\r\n") + "\r\n";
  tables.forEach((table, i) => {
    const name = table.caption ? table.caption.textContent.trim() : "table";
    const place = table.closest(".table") || table;
    place.after(saves(button("CSV", "Save as CSV: " + name, () =>
      download(new Blob(["\ufeff", csv(table)], { type: "text/csv" }), file(`table-${i + 1}.csv`)))));
  });
  let stem = "report";
  const file = (name) => `${stem}-${name}`;

  fit();
  const view = JSON.parse(await unpack("view"));
  stem = view.name;
  const library = document.createElement("script");
  library.textContent = await unpack("vega");
  document.head.append(library);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // Charts take ink and lines from the page, and are drawn anew when the scheme changes.
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim(), soft = style.getPropertyValue("--soft").trim();
    const line = style.getPropertyValue("--line").trim();
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
      axis: { labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line, titleFontWeight: "normal" },
      legend: { labelColor: soft, titleColor: soft, titleFontWeight: "normal" }, title: { color: ink },
    };
  };
  // Charts are drawn when they are first seen: a hidden one has no width.
  const draw = (again) => {
    for (const place of document.querySelectorAll("[data-chart]")) {
      if (!visible(place) || (place.dataset.drawn && !again)) continue;
      const spec = view.charts[place.dataset.chart];
      place.dataset.drawn = "begun";
      vegaEmbed(place, { ...spec, autosize: { type: "fit-x", contains: "padding" } }, { actions: false, renderer: "svg", config: theme() })
        .then((result) => {
          const first = !place.__chart;
          place.dataset.drawn = "yes";
          place.__chart = result.view;
          link(result.view);
          if (first) savable(place);
        });
    }
  };
  const savable = (place) => {
    const name = place.dataset.chart, label = place.getAttribute("aria-label");
    place.parentElement.append(saves(
      button("SVG", "Save as SVG: " + label, async () =>
        download(new Blob([await place.__chart.toSVG()], { type: "image/svg+xml" }), file(name + ".svg"))),
      button("PNG", "Save as PNG: " + label, async () =>
        (await place.__chart.toCanvas(2)).toBlob((image) => download(image, file(name + ".png")), "image/png"))));
  };
  // What is picked in one chart is picked in all: a tensor, by its name.
  const linked = new Set();
  let picked = null;
  const marking = (name) => name === null ? [] : [{ unit: "", fields: [{ type: "E", field: "name" }], values: [name] }];
  const link = (chart) => {
    if (!("picked_store" in (chart.getState({ data: (name) => name === "picked_store" }).data || {}))) return;
    linked.add(chart);
    // One that is drawn later knows what was picked before.
    if (picked !== null) { chart.__picked = picked; chart.data("picked_store", marking(picked)).runAsync(); }
    chart.addSignalListener("picked", (_, value) => {
      const name = value && value.name ? value.name[0] : null;
      picked = name;
      for (const other of linked) {
        if (other !== chart && other.__picked !== name) {
          other.__picked = name;
          other.data("picked_store", marking(name)).runAsync();
        }
      }
      chart.__picked = name;
    });
  };
  const shown = () => { fit(); draw(); };
  shown();
  dark.addEventListener("change", () => draw(true));
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(shown, 100); });
  const folds = [...document.querySelectorAll("main details")];
  for (const fold of folds) fold.addEventListener("toggle", shown);

  // All parts at once, for searching and for printing; without scripts each opens by itself.
  const unfold = document.getElementById("unfold");
  const openAll = (open) => {
    for (const fold of folds) fold.open = open;
    unfold.setAttribute("aria-pressed", String(open));
    unfold.textContent = open ? "Close parts" : "Open all parts";
    shown();
  };
  unfold.addEventListener("click", () => openAll(unfold.getAttribute("aria-pressed") !== "true"));

  // Where a reader is, in the contents.
  const links = new Map([...document.querySelectorAll(".contents a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const spy = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const a of links.values()) a.removeAttribute("aria-current");
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const section of document.querySelectorAll("main > section")) if (links.has(section.id)) spy.observe(section);

  // One condition at a time, where there are several; without scripts all are shown.
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    shown();
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      open(next);
      next.focus();
    });
  });
  if (tabs.length) open(tabs[0]);

  // Differences from one thing at a time; without scripts all are shown, each with its name.
  const against = document.getElementById("against");
  const compare = () => {
    const key = against.value;
    document.getElementById("measured").classList.toggle("one", key !== "all");
    for (const part of document.querySelectorAll("[data-against]")) part.hidden = key !== "all" && part.dataset.against !== key;
  };
  if (against) {
    against.addEventListener("change", compare);
    compare();
  }
  fit();

  if (!view.samples) { document.documentElement.dataset.ready = "yes"; return; }
  const at = (id) => document.getElementById(id);
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const variants = view.samples.variants, reference = variants.indexOf(view.reference);
  const PAGE = 6;
  let count = PAGE, only = null;
  const chosen = () => view.samples.conditions[at("condition").value][at("suite").value].rows;

  // Answers are text, never markup: marks are put around pieces of text nodes. What is marked is what was counted.
  const marked = (node, answer) => {
    let last = 0;
    for (const [begin, end] of answer.marks || []) {
      node.append(answer.text.slice(last, begin), element("mark", "", answer.text.slice(begin, end)));
      last = end;
    }
    node.append(answer.text.slice(last));
  };
  // A choice may be both scored and written: two texts.
  const texts = (answer) => answer.generated ? [answer, answer.generated] : [answer];
  const told = (answer) => texts(answer).map((a) => a.text).join("\n");
  const differs = (row) => row.answers.some((a, i) => i !== reference && told(a) !== told(row.answers[reference]));
  const traced = (row) => row.answers.flatMap(texts).some((a) => (a.marks || []).length > 0);
  const matching = () => {
    const words = at("search").value.trim().toLowerCase();
    return chosen().filter((row) => (!only || only.has(row.id)) &&
      (!words || [row.question, row.reference, ...row.answers.map(told)].join("\n").toLowerCase().includes(words)) &&
      (!at("differs").checked || differs(row)) && (!at("traced").checked || traced(row)));
  };
  const card = (row) => {
    const box = element("article", "sample");
    box.append(element("h3", "", row.question), element("p", "gold", "Reference: " + row.reference));
    const grid = element("div", "answers");
    row.answers.forEach((answer, i) => {
      const same = i !== reference && told(answer) === told(row.answers[reference]);
      const verdict = answer.right === undefined ? "" : answer.right ? " right" : " wrong";
      const cell = element("div", "answer" + (same ? " same" : "") + verdict);
      cell.append(element("b", "", variants[i] + (same ? " (same as " + view.reference + ")" : "")));
      marked(cell, answer);
      if (answer.generated) {
        const right = answer.generated.right ? " right" : " wrong";
        const text = element("div", "generated" + right);
        text.append(element("b", "", "generated"));
        marked(text, answer.generated);
        cell.append(text);
      }
      grid.append(cell);
    });
    box.append(grid);
    return box;
  };
  const list = () => {
    const rows = matching(), total = chosen().length;
    at("rows").replaceChildren(...rows.slice(0, count).map(card));
    at("count").textContent = rows.length + " of " + total;
    at("more").hidden = rows.length <= count;
  };
  const restart = () => { count = PAGE; at("all").hidden = !only; list(); };
  const fill = (select, names) => select.replaceChildren(...names.map((name) => new Option(name, name)));
  const suites = () => fill(at("suite"), Object.keys(view.samples.conditions[at("condition").value]));
  fill(at("condition"), view.order.filter((name) => view.samples.conditions[name]));
  suites();
  at("condition").addEventListener("change", () => { only = null; suites(); restart(); });
  at("suite").addEventListener("change", () => { only = null; restart(); });
  at("all").addEventListener("click", () => { only = null; restart(); });
  at("search").addEventListener("input", restart);
  at("differs").addEventListener("change", restart);
  at("traced").addEventListener("change", restart);
  at("more").addEventListener("click", () => { count += PAGE; list(); });
  for (const button of document.querySelectorAll("button.items")) {
    button.addEventListener("click", () => {
      const wanted = button.dataset;
      const home = view.samples.conditions[wanted.condition][wanted.suite]
        ? wanted.condition : Object.keys(view.samples.conditions).find((name) => view.samples.conditions[name][wanted.suite]);
      at("condition").value = home;
      suites();
      at("suite").value = wanted.suite;
      only = new Set(JSON.parse(wanted.ids));
      restart();
      at("samples").scrollIntoView();
    });
  }
  list();
  document.documentElement.dataset.ready = "yes";
})();
