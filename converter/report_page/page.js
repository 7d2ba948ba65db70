"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const T = D.tensors, X = D.texts, N = T.name.length;
  const $ = (id) => document.getElementById(id);
  const make = (tag, cls, text) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    if (text !== undefined && text !== null) e.textContent = text;
    return e;
  };
  /* a paragraph whose flags, such as --exclude, no line break cuts in two */
  const prose = (cls, words) => {
    const p = make("p", cls);
    words.split(/(--[a-z-]+)/).forEach((part, n) => p.append(n % 2 ? make("span", "flag", part) : part));
    return p;
  };
  const text = (column, i) => X[T[column][i]];
  const dash = "–";

  /* numbers as people read them */
  const fixed = (x, d) => (x === null || x === undefined ? dash : x.toFixed(d));
  const db = (x) => (x === null || x === undefined ? dash : x >= 199.9 ? "exact" : x.toFixed(1));
  const short = (x) => {
    if (x === null || x === undefined) return dash;
    const a = Math.abs(x);
    if (a === 0) return "0";
    if (a >= 1e5 || a < 1e-3) return x.toExponential(1).replace("e+", "e");
    return String(Number(x.toPrecision(3)));
  };
  /* in the unit that fits `like`, so that two numbers side by side share theirs */
  const count = (x, like = x) => {
    if (x === null || x === undefined) return dash;
    for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) if (Math.abs(like) >= size) return (x / size).toFixed(Math.abs(x) < 10 * size ? 2 : 1) + unit;
    return x.toFixed(0);
  };
  const bytes = (x, like = x) => (like >= 1e6 ? (x / 1e6).toFixed(2) + " MB" : like < 1e3 ? x.toFixed(0) + " B" : (x / 1e3).toFixed(1) + " kB");
  const percent = (x) => {
    if (x === null || x === undefined) return dash;
    if (x === 0) return "0 %";
    return x < 1e-4 ? "< 0.01 %" : (100 * x).toFixed(x < 0.01 ? 2 : 1) + " %";
  };
  const decibels = (x) => db(x) + (x === null || x === undefined || x >= 199.9 ? "" : " dB");
  const tail = (name, most) => (name.length <= most ? name : "…" + name.slice(name.length - most + 1));

  /* colours of error: one scale for the whole page */
  const LEVELS = [[40, "--e0"], [30, "--e1"], [20, "--e2"], [15, "--e3"], [10, "--e4"], [-Infinity, "--e5"]];
  const NAMES = ["40 dB and more", "30 to 40", "20 to 30", "15 to 20", "10 to 15", "below 10"];
  const errorOf = (i) => (T.accumulated[i] !== null ? T.accumulated[i] : T.local[i]);
  const errorColour = (x) => (x === null || x === undefined ? "--none" : LEVELS.find(([least]) => x >= least)[1]);
  const runsColour = { integer: "--integer", float: "--float", "fake-quantized": "--fake" };

  const swatch = (cls, colour, words) => {
    const s = make("span"), c = make("i", "cell " + cls);
    c.style.setProperty("--c", "var(" + colour + ")");
    s.append(c, make("span", "", words));
    return s;
  };

  /* light and dark: what the system says, until somebody chooses */
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (on) => { root.dataset.theme = on ? "dark" : "light"; };
  let chosen = false;
  setTheme(dark.matches);
  dark.addEventListener("change", (e) => { if (!chosen) setTheme(e.matches); });
  $("theme").addEventListener("click", () => { chosen = true; setTheme(root.dataset.theme !== "dark"); });

  /* summary */
  $("title").textContent = D.title;
  $("subtitle").textContent = D.subtitle;
  if (D.eyebrow) $("eyebrow").textContent = D.eyebrow;
  const sentences = (card, list) => list.forEach((s) => card.append(make("p", "", s)));
  const cards = $("cards");
  const gained = make("div", "card");
  gained.append(make("h3", "", "What is gained"));
  const main = D.bars.find((b) => b.unit !== "B") || D.bars[0];
  const share = main ? Math.round((100 * main.after) / main.before) : 0;
  if (main && !(D.eyebrow && share >= 100)) {
    const big = make("div", "big");
    big.append(make("b", "", share + " %"), make("span", "", "of the " + (main.unit === "B" ? "size" : main.name) + (D.eyebrow ? " of " + D.title : " of float")));
    gained.append(big);
  }
  const pairs = make("div", "pairs");
  D.bars.forEach((b) => {
    const pair = make("div", "pair"), what = make("div", "what"), show = b.unit === "B" ? bytes : count;
    const like = Math.max(b.before, b.after), more = b.after > b.before;
    what.append(make("span", "", b.name), make("b", more ? "more" : "", show(b.before, like) + " → " + show(b.after, like)));
    const track = make("div", "track"), fill = make("i", more ? "more" : "");
    fill.style.width = (100 * b.after) / like + "%";
    if (more) track.append(Object.assign(make("span", "mark"), { style: "left:" + (100 * b.before) / like + "%" }));
    track.append(fill);
    pair.append(what, track);
    pairs.append(pair);
  });
  gained.append(pairs);
  sentences(gained, D.both || D.eyebrow ? D.summary.gained : D.summary.gained.slice(D.bars.length));
  const lost = make("div", "card");
  lost.append(make("h3", "", "What is lost"));
  const withDb = D.outputs.filter((o) => o.db !== null);
  if (D.outputs.length) {
    const lowest = withDb.length ? withDb.reduce((a, b) => (b.db < a.db ? b : a)) : null;
    const big = make("div", "big");
    if (lowest) big.append(make("b", "", db(lowest.db) + (lowest.db >= 199.9 ? "" : " dB")), make("span", "", D.outputs.length > 1 ? "SQNR of the worst output" : "SQNR of the output"));
    lost.append(big);
    const box = make("div", "scroll"), table = make("table", "outputs"), head = make("tr");
    ["output", ...(D.both ? ["was"] : []), "SQNR, dB", "agreement"].forEach((h) => head.append(make("th", "", h)));
    table.append(head);
    D.outputs.forEach((o) => {
      const row = make("tr");
      row.append(make("td", "mono", o.name), ...(D.both ? [make("td", "", db(o.before))] : []), make("td", "", db(o.db)), make("td", "", o.agreement === null ? dash : (100 * o.agreement).toFixed(1) + " %"));
      row.firstChild.title = o.name;
      table.append(row);
    });
    box.append(table);
    lost.append(box);
    if (D.eyebrow) sentences(lost, D.summary.lost);
    else lost.append(make("p", "", "30 dB and more is usually invisible in accuracy; below 15 dB check before use." + (D.outputs.some((o) => o.agreement !== null) ? " Agreement: how often the same number of a row is the highest; of integers, how many are equal." : "")));
  } else sentences(lost, D.summary.lost);
  const next = make("div", "card");
  next.append(make("h3", "", "What to do next"), prose("strong", D.summary.next));
  cards.append(gained, lost, next);
  if (D.bytes) {
    const box = $("bytes"), total = D.bytes.parts.reduce((a, b) => a + b, 0), bar = make("div", "parts");
    const said = ["weights in 8 bits", "numbers in float", "scales and biases", "nodes and names"].map((name, i) => name + " " + bytes(D.bytes.parts[i]) + " (" + percent(D.bytes.parts[i] / total) + ")");
    const words = make("div", "legend");
    ["--integer", "--float", "--fake", "--faint"].forEach((colour, i) => {
      const part = make("i");
      part.style.width = (100 * D.bytes.parts[i]) / total + "%";
      part.style.background = "var(" + colour + ")";
      part.title = said[i];
      bar.append(part);
      words.append(swatch("integer", colour, said[i]));
    });
    const list = make("ul");
    D.bytes.largest.forEach(([size, who, why]) => list.append(make("li", "", bytes(size) + " in float: " + who + (why ? ", " + why : ""))));
    const stored = D.bytes.stored ? "Among those in 8 bits " + D.bytes.stored + (D.bytes.stored > 1 ? " weights" : " weight") + " of layers in float." : "";
    box.append(make("b", "", "Where the bytes are"), bar, words);
    if (stored) box.append(make("span", "", stored));
    box.append(list);
    if (D.bytes.advice) box.append(make("span", "", D.bytes.advice + "."));
    box.hidden = false;
  }
  [...D.warnings, ...(D.note ? [D.note] : [])].forEach((w) => $("warnings").append(make("p", "warning", w)));
  D.facts.forEach(([k, v]) => {
    const d = make("div");
    d.append(make("dt", "", k), make("dd", "", v));
    $("facts").append(d);
  });
  $("footer").textContent = [...D.notes.map((n) => n.charAt(0).toUpperCase() + n.slice(1) + "."),
    D.samples ? "Tensors were measured on " + D.samples + (D.samples > 1 ? " samples." : " sample.") : ""].join(" ");

  /* the chain */
  const cellOf = new Map();
  let bridges = 0;
  D.segments.forEach((s) => {
    if (!s.tensors.length) return;
    const box = make("div", "segment" + (s.bridge ? " bridge" : "")), h = make("h3");
    h.append(make(s.bridge ? "b" : "span", "", s.bridge ? "Bridge block " + ++bridges : s.tensors.length + (s.tensors.length > 1 ? " operators" : " operator")));
    const about = [s.bridge, s.size ? s.size[0] + "×" + s.size[1] : ""].filter(Boolean).join(", ");
    if (about) h.append(make("span", "", about));
    const cells = make("div", "cells");
    s.tensors.forEach((i) => {
      const c = make("button", "cell " + text("runs", i));
      c.type = "button";
      c.tabIndex = -1;
      c.dataset.tensor = i;
      const label = text("type", i) + ", " + (text("runs", i) || "not planned") + ", " + decibels(errorOf(i)) + ": " + text("operator", i);
      c.title = label;
      c.setAttribute("aria-label", label);
      cellOf.set(i, c);
      cells.append(c);
    });
    box.append(h, cells);
    $("chain").append(box);
  });
  $("about-bridges").hidden = !bridges;
  const chosenLine = $("chosen");
  const choose = (i) => {
    chosenLine.replaceChildren();
    if (i < 0) return;
    const words = [text("runs", i), "local " + decibels(T.local[i]), "accumulated " + decibels(T.accumulated[i])].filter((w) => w && !w.endsWith(dash));
    if (T.floatCost[i] !== null) words.push(count(T.floatCost[i]) + " " + D.unit + " in float, " + count(T.integerCost[i]) + " in integer");
    const show = make("button", "link", "show its numbers");
    show.type = "button";
    show.addEventListener("click", () => $("tensors").scrollIntoView());
    chosenLine.append(make("b", "", text("type", i) + " "), make("span", "mono", text("operator", i) || T.name[i]), make("span", "", " · " + words.join(" · ") + " · "), show);
  };
  const allCells = [...cellOf.values()];
  if (allCells.length) allCells[0].tabIndex = 0;  /* one stop for the tab key; arrows move on */
  $("chain").addEventListener("click", (e) => { const c = e.target.closest(".cell"); if (c) select(+c.dataset.tensor, true); });
  $("chain").addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key], at = allCells.indexOf(document.activeElement);
    if (!step || at < 0) return;
    e.preventDefault();
    const to = allCells[Math.max(0, Math.min(allCells.length - 1, at + step))];
    document.activeElement.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
    select(+to.dataset.tensor, true);
  });
  const paint = () => {
    const mode = document.querySelector("input[name=colour]:checked").value;
    cellOf.forEach((c, i) => c.style.setProperty("--c", "var(" + (mode === "error" ? errorColour(errorOf(i)) : runsColour[text("runs", i)] || "--none") + ")"));
    const legend = $("legend");
    legend.textContent = "";
    const entry = (cls, colour, words) => legend.append(swatch(cls, colour, words));
    if (mode === "error") {
      legend.append(make("span", "", "SQNR against float:"));
      LEVELS.forEach(([, colour], i) => entry("integer", colour, NAMES[i]));
      entry("integer", "--none", "not known");
    }
    const shape = mode === "error" ? ["--faint", "--faint", "--faint"] : ["--integer", "--float", "--fake"];
    const used = new Set(T.runs.map((r) => X[r]));
    entry("integer", shape[0], "square: integer");
    entry("float", shape[1], "ring: float");
    if (used.has("fake-quantized")) entry("fake-quantized", shape[2], "disc: fake-quantized");
  };
  document.querySelectorAll("input[name=colour]").forEach((r) => r.addEventListener("change", paint));

  /* the worst */
  $("ranking").textContent = D.worst.length ? "The tensors that do most harm, ranked " + D.ranking + ". Local is the SQNR of rounding one tensor alone, accumulated that of the tensor with all before it quantized too; 6 dB less is twice the error." + (D.ranking.includes("loss") ? " Keeping a tensor float gains no more than its share of the loss." : "") : "No tensor is rounded.";
  const added = T.sensitivity.reduce((sum, x) => sum + Math.max(x || 0, 0), 0);
  D.worst.forEach((w) => {
    const li = make("li"), b = make("button", "mono", T.name[w.tensor]);
    b.type = "button";
    b.addEventListener("click", () => { select(w.tensor, true); $("tensors").scrollIntoView(); });
    const nums = [text("type", w.tensor), text("kind", w.tensor), "local " + decibels(T.local[w.tensor])];
    if (T.accumulated[w.tensor] !== null) nums.push("accumulated " + decibels(T.accumulated[w.tensor]));
    if (T.sensitivity[w.tensor] !== null) nums.push("adds " + short(T.sensitivity[w.tensor]) + " to the loss, " + percent(T.sensitivity[w.tensor] / added) + " of what all add");
    const line = make("div", "nums");
    nums.forEach((n) => line.append(make("span", "", n), " "));
    li.append(b);
    if (!T.name[w.tensor].includes(text("operator", w.tensor))) li.append(make("div", "of mono", text("operator", w.tensor)));
    li.append(line);
    w.found.forEach((s) => li.append(make("p", "", s)));
    li.append(prose("do", w.do));
    $("worst").append(li);
  });

  /* the table: only what is seen is drawn */
  const range = (i) => short(T.low[i]) + " … " + short(T.high[i]);
  const grid = (i) => (T.bits[i] === null ? dash : (T.signed[i] ? "int" : "uint") + T.bits[i]);
  const steps = (i) => (T.bits[i] === null ? dash : T.channels[i] ? T.channels[i] + " scales" : short(T.scale[i]));
  const signed = (x) => (x === null ? dash : (x > 0 ? "+" : "") + x.toFixed(1));
  const LONGEST = innerWidth > 720 ? 36 : 28;  /* characters of a name */
  const COLUMNS = [
    ["tensor", (i) => tail(T.name[i], LONGEST), (i) => T.name[i].toLowerCase(), "mono"],
    ["operator", (i) => text("type", i), (i) => text("type", i), ""],
    ["kind", (i) => text("kind", i), (i) => text("kind", i), ""],
    ["range", range, (i) => T.high[i] - T.low[i], "num"],
    ["codes", grid, grid, "", "type and width of the integers"],
    ["step", steps, (i) => T.scale[i], "num", "the scale: distance between two codes"],
    ["local", (i) => db(T.local[i]), (i) => T.local[i], "num", "SQNR of rounding this tensor alone, in dB"],
    ["accum.", (i) => db(T.accumulated[i]), (i) => T.accumulated[i], "num", "accumulated SQNR, with all before it quantized, in dB"],
    ...(T.before ? [
      ["was", (i) => db(T.before[i]), (i) => T.before[i], "num", "accumulated SQNR in " + D.before + ", in dB"],
      ["change", (i) => signed(T.change[i]), (i) => T.change[i], "num", "of the accumulated SQNR, in dB"],
    ] : []),
    ["sensitiv.", (i) => short(T.sensitivity[i]), (i) => T.sensitivity[i], "num", "sensitivity: what its rounding adds to the loss"],
    ["in float", (i) => count(T.floatCost[i]), (i) => T.floatCost[i], "num", "cost: " + D.unit + " of its operator in float"],
    ["in int", (i) => count(T.integerCost[i]), (i) => T.integerCost[i], "num", "cost: " + D.unit + " of its operator in integer"],
    ["runs", (i) => text("runs", i) || dash, (i) => text("runs", i), ""],
    ["reason", (i) => text("reason", i), (i) => text("reason", i), ""],
  ];
  const WIDTHS = { tensor: Math.ceil(7.2 * LONGEST) + 22, operator: 132, kind: 94, range: 150, codes: 62, step: 98, sensitiv: 80, runs: 82, change: 84, reason: 200 };
  const widths = COLUMNS.map(([name]) => WIDTHS[name.replace(".", "")] || 70);
  $("grid").style.setProperty("--cols", widths.map((w, c) => (c === widths.length - 1 ? "minmax(" + w + "px, 1fr)" : w + "px")).join(" "));
  $("grid").style.setProperty("--wide", widths.reduce((a, b) => a + b) + "px");
  const ROW = 30, state = { sort: -1, down: false, rows: [], selected: -1 };
  const head = $("head"), body = $("body"), view = $("grid");
  COLUMNS.forEach(([name, , , cls, hint], c) => {
    const cell = make("div", cls === "num" ? "num" : ""), b = make("button", "", name);
    cell.setAttribute("role", "columnheader");
    cell.setAttribute("aria-sort", "none");
    b.type = "button";
    b.title = hint || "Sort by " + name;
    b.addEventListener("click", () => {
      state.down = state.sort === c ? !state.down : cls === "num" && !/local|accum|was|change/.test(name);
      state.sort = c;
      order();
    });
    cell.append(b);
    head.append(cell);
  });
  view.setAttribute("aria-colcount", COLUMNS.length);
  const fillSelect = (id, all, values, label) => {
    const s = $(id);
    s.append(new Option(all, ""));
    values.forEach((v) => s.append(new Option(label ? label(v) : v || "(none)", v)));
    s.addEventListener("change", filter);
  };
  const distinct = (column) => [...new Set(T[column])].map((n) => X[n]).filter(Boolean).sort();
  const lowered = T.name.map((n, i) => (n + " " + text("operator", i) + " " + text("reason", i)).toLowerCase());
  function filter() {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, type, runs, segment] = ["f-kind", "f-type", "f-runs", "f-segment"].map((id) => $(id).value);
    const rows = [];
    for (let i = 0; i < N; i++) {
      if (kind && text("kind", i) !== kind) continue;
      if (type && text("type", i) !== type) continue;
      if (runs && text("runs", i) !== runs) continue;
      if (segment === "bridge" && !(T.segment[i] !== null && D.segments[T.segment[i]].bridge)) continue;
      if (segment && segment !== "bridge" && String(T.segment[i]) !== segment) continue;
      if (!words.every((w) => lowered[i].includes(w))) continue;
      rows.push(i);
    }
    state.rows = rows;
    $("count").textContent = rows.length === N ? N + " tensors" : rows.length + " of " + N + " tensors";
    order();
  }
  function order() {
    [...head.children].forEach((cell, c) => cell.setAttribute("aria-sort", c !== state.sort ? "none" : state.down ? "descending" : "ascending"));
    if (state.sort >= 0) {
      const key = COLUMNS[state.sort][2], way = state.down ? -1 : 1;
      const known = (v) => v !== null && v !== undefined && v !== "" && !Number.isNaN(v);
      const keys = new Map(state.rows.map((i) => [i, key(i)]));
      state.rows.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (!known(x) || !known(y)) return known(x) ? -1 : known(y) ? 1 : a - b;
        return (x < y ? -way : x > y ? way : 0) || a - b;
      });
    } else state.rows.sort((a, b) => a - b);
    body.style.height = state.rows.length * ROW + "px";
    view.setAttribute("aria-rowcount", state.rows.length + 1);
    draw();
  }
  function draw() {
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - 8);
    const last = Math.min(state.rows.length, first + Math.ceil(view.clientHeight / ROW) + 18);
    const piece = document.createDocumentFragment();
    for (let r = first; r < last; r++) {
      const i = state.rows[r], line = make("div", "line" + (i === state.selected ? " on" : ""));
      line.setAttribute("role", "row");
      line.setAttribute("aria-rowindex", r + 2);
      line.setAttribute("aria-selected", i === state.selected);
      line.id = "row-" + i;
      line.dataset.tensor = i;
      line.style.top = r * ROW + "px";
      COLUMNS.forEach(([name, show, , cls], c) => {
        const words = show(i), cell = make("div", cls + (words === dash ? " dim" : ""), words);
        cell.setAttribute("role", "gridcell");
        if (c === 0 || name === "reason" || name === "operator") cell.title = c === 0 ? T.name[i] : name === "operator" ? text("operator", i) : words;
        if (name === "runs") cell.className += " " + text("runs", i);
        line.append(cell);
      });
      piece.append(line);
    }
    if (!state.rows.length) piece.append(make("div", "empty", "No tensor fits these filters."));
    body.replaceChildren(piece);
    if (state.selected >= 0 && $("row-" + state.selected)) view.setAttribute("aria-activedescendant", "row-" + state.selected);
    else view.removeAttribute("aria-activedescendant");
  }
  let waiting = false;
  view.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  body.addEventListener("click", (e) => { const line = e.target.closest(".line"); if (line) select(+line.dataset.tensor, false); });
  const clear = () => {
    $("search").value = "";
    ["f-kind", "f-type", "f-runs", "f-segment"].forEach((id) => { $(id).value = ""; });
    filter();
  };
  $("clear").addEventListener("click", clear);
  $("search").addEventListener("input", filter);
  view.addEventListener("keydown", (e) => {
    if (e.target !== view) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }, step = steps[e.key];
    if (step === undefined || !state.rows.length) return;
    e.preventDefault();
    const at = state.rows.indexOf(state.selected);
    const to = Math.max(0, Math.min(state.rows.length - 1, (at < 0 ? (step > 0 ? -1 : 0) : at) + step));
    select(state.rows[to], false);
  });
  document.addEventListener("keydown", (e) => {
    const typing = /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName);
    if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey) { e.preventDefault(); $("search").focus(); }
    if (e.key === "Escape" && (typing || document.activeElement === view)) { clear(); view.focus(); }
  });
  function reveal(i) {
    const at = state.rows.indexOf(i);
    if (at < 0) return;
    const top = at * ROW, room = view.clientHeight - head.offsetHeight;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW > view.scrollTop + room) view.scrollTop = top + ROW - room + 14;
  }
  function select(i, seek) {
    if (seek && !state.rows.includes(i)) clear();
    const before = cellOf.get(state.selected);
    if (before) before.classList.remove("on");
    state.selected = i;
    const now = cellOf.get(i);
    if (now) now.classList.add("on");
    reveal(i);
    draw();
    detail();
    choose(i);
  }

  /* the selected tensor */
  let logarithmic = true;
  const NS = "http://www.w3.org/2000/svg";
  const svg = (tag, attributes, words) => {
    const e = document.createElementNS(NS, tag);
    Object.entries(attributes).forEach(([k, v]) => e.setAttribute(k, v));
    if (words !== undefined) e.textContent = words;
    return e;
  };
  const nice = (span, most) => {
    const raw = span / most, size = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((m) => m * size).find((s) => s >= raw);
  };
  function chart(i, box) {
    const [low, high, , , counts] = T.histogram[i], w = Math.max(240, box.clientWidth), h = 230;
    const left = 4, right = w - 4, base = h - 48, top = 6, x = (v) => left + ((v - low) / (high - low)) * (right - left);
    const most = Math.max(...counts, 1), tall = (c) => (c === 0 ? 0 : logarithmic ? (0.04 + 0.96 * (Math.log1p(c) / Math.log1p(most))) : c / most) * (base - top);
    const picture = svg("svg", { viewBox: "0 0 " + w + " " + h, role: "img", "aria-label": "Histogram of " + T.name[i] });
    const scale = T.scale[i], levels = T.bits[i] === null ? 0 : 2 ** T.bits[i];
    const qmin = levels && T.signed[i] ? -levels / 2 : 0, first = (qmin - T.zero[i]) * scale, last = first + (levels - 1) * scale;
    if (scale) {
      const ends = [Math.max(left, Math.min(right, x(first - scale / 2))), Math.max(left, Math.min(right, x(last + scale / 2)))];
      if (ends[0] - left > 0.5) picture.append(svg("rect", { x: left, y: top, width: ends[0] - left, height: base - top, fill: "var(--clip)" }));
      if (right - ends[1] > 0.5) picture.append(svg("rect", { x: ends[1], y: top, width: right - ends[1], height: base - top, fill: "var(--clip)" }));
    }
    const step = (right - left) / counts.length;
    let path = "M" + left + " " + base;
    counts.forEach((c, b) => { const y = (base - tall(c)).toFixed(1); path += "V" + y + "H" + (left + (b + 1) * step).toFixed(1); });
    picture.append(svg("path", { d: path + "V" + base + "Z", fill: "var(--bar)" }));
    let every = 0;
    if (scale) {
      const gap = x(low + scale) - x(low);
      every = 1;
      while (gap * every < 3) every *= 2;
      let ticks = "", strong = "";
      for (let q = 0; q < levels; q += every) {
        const at = x(first + q * scale);
        if (at < left - 0.5 || at > right + 0.5) continue;
        ticks += "M" + at.toFixed(1) + " " + (base + 1) + "v7";
        if (q % (16 * every) === 0) strong += "M" + at.toFixed(1) + " " + top + "V" + (base + 11);
      }
      picture.append(svg("path", { d: strong, stroke: "var(--step)", "stroke-width": 1, opacity: 0.22 }));
      picture.append(svg("path", { d: ticks, stroke: "var(--step)", "stroke-width": 1, opacity: 0.75 }));
      [first, last].forEach((v) => {
        if (x(v) >= left - 1 && x(v) <= right + 1) picture.append(svg("path", { d: "M" + x(v).toFixed(1) + " " + top + "V" + (base + 12), stroke: "var(--bad)", "stroke-width": 1.2, "stroke-dasharray": "3 3" }));
      });
    }
    picture.append(svg("path", { d: "M" + left + " " + base + "H" + right, stroke: "var(--faint)", "stroke-width": 1 }));
    const unit = nice(high - low, Math.max(3, Math.floor(w / 58)));
    for (let v = Math.ceil(low / unit) * unit; v <= high + 1e-9 * unit; v += unit) {
      const words = short(Math.abs(v) < unit / 1e6 ? 0 : v), at = x(v), anchor = at < 16 ? "start" : at > w - 16 ? "end" : "middle";
      picture.append(svg("text", { x: at.toFixed(1), y: base + 27, "text-anchor": anchor }, words));
    }
    if (scale) picture.append(svg("text", { x: left, y: base + 44 }, every === 1 ? "ticks: every quantization step" : "ticks: every " + every + (every === 2 ? "nd" : "th") + " of " + levels + " steps"));
    box.replaceChildren(picture);
  }
  function detail() {
    const i = state.selected, box = $("detail");
    box.textContent = "";
    if (i < 0) { box.append(make("p", "lead", "Choose a tensor to see its numbers.")); return; }
    const title = make("div", "about"), left = make("div", "picture"), right = make("div");
    title.append(make("div", "name mono", T.name[i]), make("div", "sub", [text("operator", i) === "" ? "input of the model" : text("type", i) + " " + text("operator", i), text("shape", i)].join(" · ")));
    box.append(title, left, right);
    if (T.histogram[i]) {
      const tools = make("div", "tools"), label = make("label"), check = make("input");
      check.type = "checkbox";
      check.checked = logarithmic;
      label.append(check, " logarithmic counts");
      tools.append(make("span", "", "How often numbers occur"), label);
      const room = make("div");
      left.append(tools, room);
      chart(i, room);
      check.addEventListener("change", () => { logarithmic = check.checked; chart(i, room); });
      const [, , below, above] = T.histogram[i], caption = make("p", "caption");
      if (T.clipped[i] !== null) {
        caption.append(make("span", T.clipped[i] > 0 ? "clip" : "", T.clipped[i] > 0 ? percent(T.clipped[i]) + " clipped" : "Nothing is clipped"));
        caption.append(T.scale[i] ? ", step " + short(T.scale[i]) + "." : ", one scale for each of " + T.channels[i] + " channels.");
      } else caption.append("Not quantized: no steps.");
      if (below + above) caption.append(" " + (below + above) + " numbers lie beyond the picture.");
      left.append(caption);
    } else left.append(make("p", "lead", "It was not measured."));
    const list = make("dl", "figures"), fact = (k, v) => { if (v !== null && v !== undefined && v !== "") list.append(make("dt", "", k), make("dd", "", v)); };
    const unit = (v) => (v === null ? null : v >= 199.9 ? "exact" : v.toFixed(1) + " dB");
    fact("kind", text("kind", i) + (T.bits[i] === null ? "" : ", " + grid(i)));
    if (T.scale[i]) {
      const lowest = T.signed[i] ? -(2 ** (T.bits[i] - 1)) : 0, end = (q) => short((q - T.zero[i]) * T.scale[i]);
      fact("scale, zero point", short(T.scale[i]) + ", " + T.zero[i]);
      fact("codes reach", end(lowest) + " … " + end(lowest + 2 ** T.bits[i] - 1));
    } else if (T.channels[i]) fact("scales", T.channels[i] + ", one for each channel");
    fact(text("kind", i) === "weight" ? "range" : "range in calibration", range(i));
    fact(text("kind", i) === "weight" ? "SQNR of the integers" : "local SQNR", unit(T.local[i]));
    fact("accumulated SQNR", unit(T.accumulated[i]));
    if (T.before) fact("accumulated SQNR, was", unit(T.before[i]));
    fact("adds to the loss", T.sensitivity[i] === null ? null : short(T.sensitivity[i]));
    if (T.widest[i]) fact("widest channel", T.widest[i][0] + " of " + T.widest[i][2] + (T.widest[i][1] === null ? "" : ", " + short(T.widest[i][1]) + " × median"));
    if (T.floatCost[i] !== null) fact("cost float / integer", count(T.floatCost[i]) + " / " + count(T.integerCost[i]));
    fact("operator runs in", text("runs", i));
    right.append(list);
    if (text("reason", i)) right.append(make("p", "reason", "Why float: " + text("reason", i) + "."));
  }
  /* the accuracy budget: measured drops against predicted cost, the limit, and what was taken */
  function budget() {
    const B = D.budget, box = $("curve"), seen = B.points.filter((p) => p.drop !== null);
    $("budget-lead").textContent = B.lead;
    if (!seen.length) return;
    const w = Math.max(260, box.clientWidth), h = 240, left = 46, right = w - 12, top = 10, base = h - 40;
    const costs = seen.map((p) => p.cost), drops = [...seen.map((p) => p.drop), B.limit, 0];
    const ends = (values, room) => { const a = Math.min(...values), b = Math.max(...values), more = room * (b - a || Math.abs(b) || 1); return [a - more, b + more]; };
    const [c0, c1] = ends(costs, 0.08), [d0, d1] = ends(drops, 0.08);
    const x = (c) => left + ((c - c0) / (c1 - c0)) * (right - left), y = (d) => base - ((d - d0) / (d1 - d0)) * (base - top);
    const picture = svg("svg", { viewBox: "0 0 " + w + " " + h, role: "img", "aria-label": "Drop of the score against predicted cost" });
    const line = (d, colour, dash) => picture.append(svg("path", { d, fill: "none", stroke: colour, "stroke-width": 1.2, ...(dash ? { "stroke-dasharray": dash } : {}) }));
    line("M" + left + " " + top + "V" + base + "H" + right, "var(--faint)");
    line("M" + left + " " + y(B.limit).toFixed(1) + "H" + right, "var(--bad)", "4 3");
    picture.append(svg("text", { x: right, y: (y(B.limit) - 5).toFixed(1), "text-anchor": "end" }, "allowed: " + short(B.limit)));
    line(seen.map((p, i) => (i ? "L" : "M") + x(p.cost).toFixed(1) + " " + y(p.drop).toFixed(1)).join(""), "var(--bar)");
    seen.forEach((p) => picture.append(svg("circle", { cx: x(p.cost).toFixed(1), cy: y(p.drop).toFixed(1), r: p.taken ? 6 : 3.5, fill: p.taken ? "var(--accent)" : "var(--integer)" })));
    const across = nice(c1 - c0, 6), up = nice(d1 - d0, 5);
    for (let v = Math.ceil(c0 / across) * across; v <= c1; v += across) picture.append(svg("text", { x: x(v).toFixed(1), y: base + 16, "text-anchor": "middle" }, short(Math.round(v / across) * across)));
    for (let v = Math.ceil(d0 / up) * up; v <= d1; v += up) picture.append(svg("text", { x: left - 6, y: (y(v) + 4).toFixed(1), "text-anchor": "end" }, short(Math.round(v / up) * up)));
    picture.append(svg("text", { x: (left + right) / 2, y: h - 6, "text-anchor": "middle" }, "predicted cost, of float; upwards: drop"));
    box.replaceChildren(picture);
    const head = make("tr"), table = $("points");
    ["placement", "cost of float", "drop", "score", "in integer"].forEach((title) => head.append(make("th", "", title)));
    table.replaceChildren(head);
    seen.forEach((p) => {
      const row = make("tr", p.taken ? "taken" : "");
      row.append(make("td", "", p.label + (p.taken ? ", taken" : "")), make("td", "", fixed(p.cost, 3)), make("td", "", short(p.drop)), make("td", "", short(p.score)), make("td", "", p.integer));
      table.append(row);
    });
  }
  if (D.budget) { $("budget").hidden = false; budget(); }
  let resizing = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(() => { draw(); detail(); if (D.budget) budget(); }); });

  fillSelect("f-kind", "all kinds", distinct("kind"));
  fillSelect("f-type", "all operators", distinct("type"));
  fillSelect("f-runs", "integer and float", distinct("runs"));
  let nth = 0;
  const blocks = D.segments.map((s, i) => [s, i]).filter(([s]) => s.bridge).map(([, i]) => [String(i), "bridge block " + ++nth]);
  const titles = new Map([["bridge", "all bridge blocks"], ...blocks]);
  fillSelect("f-segment", "whole network", blocks.length ? [...titles.keys()] : [], (v) => titles.get(v));
  paint();
  filter();
  select(D.worst.length ? D.worst[0].tensor : 0, false);
  view.scrollTop = Math.max(0, state.rows.indexOf(state.selected) * ROW - 120);
  root.dataset.ready = "true";
})();
