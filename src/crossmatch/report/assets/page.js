"use strict";
(() => {
  const view = JSON.parse(document.getElementById("view").textContent);
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
  const draw = () => {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const spec = view.charts[place.dataset.chart];
      vegaEmbed(place, { ...spec, autosize: { type: "fit-x", contains: "padding" } }, { actions: false, renderer: "svg", config: theme() })
        .then((result) => { place.dataset.drawn = "yes"; link(result.view); });
    }
  };
  // What is picked in one chart is picked in all: a tensor, by its name.
  const linked = new Set();
  const link = (chart) => {
    if (!("picked_store" in (chart.getState({ data: (name) => name === "picked_store" }).data || {}))) return;
    linked.add(chart);
    chart.addSignalListener("picked", (_, value) => {
      const name = value && value.name ? value.name[0] : null;
      const store = name === null ? [] : [{ unit: "", fields: [{ type: "E", field: "name" }], values: [name] }];
      for (const other of linked) {
        if (other !== chart && other.__picked !== name) {
          other.__picked = name;
          other.data("picked_store", store).runAsync();
        }
      }
      chart.__picked = name;
    });
  };
  draw();
  dark.addEventListener("change", draw);

  // One condition at a time, where there are several; without scripts all are shown.
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    // A chart that was hidden had no width.
    draw();
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

  if (!view.samples) return;
  const at = (id) => document.getElementById(id);
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const variants = view.samples.variants, reference = variants.indexOf(view.reference);
  const PAGE = 6;
  let shown = PAGE, only = null;
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
    box.append(element("h4", "", row.question), element("p", "gold", "Reference: " + row.reference));
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
    at("rows").replaceChildren(...rows.slice(0, shown).map(card));
    at("count").textContent = rows.length + " of " + total;
    at("more").hidden = rows.length <= shown;
  };
  const restart = () => { shown = PAGE; at("all").hidden = !only; list(); };
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
  at("more").addEventListener("click", () => { shown += PAGE; list(); });
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
})();
