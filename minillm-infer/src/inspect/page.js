"use strict";
(() => {
  // The numbers of the page, and what is chosen of them.
  const data = JSON.parse(document.getElementById("data").textContent);
  const { ids, labels, attention, lens, norms, rope } = data;
  const T = ids.length;
  const L = attention.length;
  const H = attention[0].length;
  const state = { layer: L - 1, head: 0, position: T - 1, depth: L, held: false };
  const views = []; // drawn again when something else is chosen
  const paints = []; // drawn again when the colours change, too

  const $ = (id) => document.getElementById(id);
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text; // never as HTML: tokens may hold anything
    return made;
  };
  const label = (id) => labels[id];
  const quoted = (t) => `“${label(ids[t])}”`;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  const choose = (change) => {
    if (Object.keys(change).every((key) => state[key] === change[key])) return;
    Object.assign(state, change);
    views.forEach((view) => view());
  };

  const superscript = (number) => [...String(number)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
  const scientific = (value) => {
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits}×10${superscript(Number(power))}`;
  };
  const percent = (p) => {
    if (p === 0) return "0 %";
    if (p < 0.0001) return `${scientific(100 * p)} %`;
    return `${(100 * p).toFixed(p >= 0.1 ? 1 : 2)} %`;
  };
  const four = (value) => (value === 0 ? "0" : value >= 1e5 || value < 1e-3 ? scientific(value) : Number(value.toPrecision(4)).toString());
  const ordinal = (n) => {
    const last = n % 100;
    const end = last >= 11 && last <= 13 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[n % 10] || "th";
    return `${n.toLocaleString("en")}${end}`;
  };

  // Colours of the style sheet, as numbers.
  const colour = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
    const whole = hex.length === 3 ? [...hex].map((c) => c + c).join("") : hex;
    return [0, 2, 4].map((at) => parseInt(whole.slice(at, at + 2), 16));
  };
  // Fills a canvas pixel by pixel; `shade(column, row)` gives a share of a colour over the paper, or null for nothing.
  const paint = (canvas, width, height, shade) => {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const [paper, accent, warm] = ["--paper", "--accent", "--warm"].map(colour);
    for (let row = 0, at = 0; row < height; row++) {
      for (let column = 0; column < width; column++, at += 4) {
        const share = shade(column, row);
        if (share === null) continue;
        const ink = share < 0 ? warm : accent;
        for (let c = 0; c < 3; c++) image.data[at + c] = paper[c] + (ink[c] - paper[c]) * Math.abs(share);
        image.data[at + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  };

  // Choosing by pointing, clicking and arrow keys. `find(event)` says what is chosen at a place, or null.
  const follow = (box, find) => {
    box.addEventListener("pointermove", (event) => {
      const found = event.pointerType === "mouse" && !state.held ? find(event) : null;
      if (found) choose(found);
    });
    box.addEventListener("click", (event) => {
      const found = find(event);
      if (!found) return;
      const same = Object.keys(found).every((key) => state[key] === found[key]);
      choose({ ...found, held: !(same && state.held) });
    });
  };
  const keys = (box, last) => {
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose({ position: clamp(state.position + step, 0, last), held: true });
    });
  };
  const strip = (box, withEnd) => {
    const spans = ids.map((id, t) => {
      const span = element("span", "token", label(id));
      span.dataset.t = t;
      span.setAttribute("role", "option");
      box.append(span);
      if (label(id).includes("↵")) box.append(element("br"));
      return span;
    });
    if (withEnd) {
      const span = element("span", "token end", "…?");
      span.dataset.t = T;
      span.setAttribute("role", "option");
      box.append(span);
      spans.push(span);
    }
    follow(box, (event) => {
      const span = event.target.closest(".token");
      return span && { position: Number(span.dataset.t) };
    });
    keys(box, spans.length - 1);
    return spans;
  };
  // Scrolls a box, not the page, to what was chosen elsewhere.
  const reveal = (box, node) => {
    const [outer, inner] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
    if (inner.bottom < outer.top || inner.top > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 2;
    if (inner.right < outer.left || inner.left > outer.right) box.scrollLeft += inner.left - outer.left - outer.width / 2;
  };
  const mark = (spans) => {
    const at = Math.min(state.position, spans.length - 1);
    reveal(spans[at].parentElement, spans[at]);
    spans.forEach((span, t) => {
      const chosen = t === at;
      span.classList.toggle("chosen", chosen);
      span.classList.toggle("held", chosen && state.held);
      span.setAttribute("aria-selected", chosen);
    });
  };

  // Rows of [name, share, is the real one].
  const bars = (rows) => {
    const box = element("div", "bars");
    const most = Math.max(...rows.map(([, share]) => share), 1e-12);
    for (const [name, share, real] of rows) {
      const bar = element("i", real ? "real" : "");
      bar.style.width = `${(100 * share) / most}%`;
      box.append(element("code", real ? "real" : "", name), bar, element("span", real ? "real" : "", percent(share)));
    }
    return box;
  };
  const alternatives = (prediction, next) => {
    const rows = prediction.top.map(([id, p]) => [label(id), p, id === next]);
    if (next !== undefined && !rows.some(([, , real]) => real)) rows.push([label(next), prediction.next[0], true]);
    return bars(rows);
  };
  const show = (panel, text, ...rest) => panel.replaceChildren(element("p", "", text), ...rest);

  // The text, coloured by surprise.
  const bits = (t) => (t === 0 ? 0 : -Math.log2(lens[L][t - 1].next[0]));
  const textSpans = strip($("text-strip"), true);
  textSpans.slice(0, T).forEach((span, t) => {
    span.classList.add("warm");
    span.style.setProperty("--share", clamp(bits(t) / Math.log2(data.vocabulary), 0, 1).toFixed(3));
  });
  views.push(() => {
    const t = Math.min(state.position, T);
    mark(textSpans);
    if (t === 0) {
      show($("text-panel"), `Token 0, ${quoted(0)}, was given: nothing stands before it to predict it from.`);
    } else if (t === T) {
      show($("text-panel"), "What may come after the text:", alternatives(lens[L][T - 1]));
    } else {
      const [p, rank] = lens[L][t - 1].next;
      const rated = `Token ${t}, ${quoted(t)}, had ${percent(p)}: ${bits(t).toFixed(2)} bits, the ${ordinal(rank)} choice of the model.`;
      show($("text-panel"), rated, alternatives(lens[L][t - 1], ids[t]));
    }
  });

  // Attention: all heads small, one large, and the text as the chosen token sees it.
  const weight = (query, key) => attention[state.layer][state.head][query][key] / 10000;
  const drawHead = (canvas, layer, head) => {
    const rows = attention[layer][head];
    paint(canvas, T, T, (key, query) => (key > query ? null : Math.sqrt(rows[query][key] / 10000)));
  };
  const buttons = attention.map((heads, layer) => {
    const row = element("div");
    row.append(element("span", "", `block ${layer + 1}`));
    const made = heads.map((_, head) => {
      const button = element("button");
      button.type = "button";
      button.title = `block ${layer + 1}, head ${head + 1}`;
      button.setAttribute("aria-label", button.title);
      const canvas = element("canvas");
      button.append(canvas);
      button.addEventListener("click", () => choose({ layer, head }));
      paints.push(() => drawHead(canvas, layer, head));
      row.append(button);
      return button;
    });
    $("heads").append(row);
    return made;
  });
  for (const [select, count, key] of [[$("layer"), L, "layer"], [$("head"), H, "head"]]) {
    for (let index = 0; index < count; index++) {
      const option = element("option", "", String(index + 1));
      option.value = index;
      select.append(option);
    }
    select.addEventListener("change", () => choose({ [key]: Number(select.value) }));
    views.push(() => (select.value = state[key]));
  }
  const lookSpans = strip($("attention-strip"), false);
  const map = $("map");
  const drawMap = () => drawHead(map.querySelector("canvas"), state.layer, state.head);
  paints.push(drawMap);
  const cell = (box, event, columns, rows) => {
    const frame = box.getBoundingClientRect();
    const at = (share, count) => clamp(Math.floor(share * count), 0, count - 1);
    return [at((event.clientX - frame.left) / frame.width, columns), at((event.clientY - frame.top) / frame.height, rows)];
  };
  const mapHint = "Point at the map to read a weight.";
  $("map-note").textContent = mapHint;
  map.addEventListener("pointermove", (event) => {
    const [key, query] = cell(map, event, T, T);
    $("map-note").textContent =
      key > query
        ? `Token ${query}, ${quoted(query)}, cannot see token ${key}, ${quoted(key)}: it comes later.`
        : `Token ${query}, ${quoted(query)}, looks at token ${key}, ${quoted(key)}: ${percent(weight(query, key))}`;
  });
  map.addEventListener("pointerleave", () => ($("map-note").textContent = mapHint));
  follow(map, (event) => ({ position: cell(map, event, T, T)[1] }));
  let drawn = "";
  views.push(() => {
    const query = Math.min(state.position, T - 1);
    const { layer, head } = state;
    if (drawn !== `${layer} ${head}`) {
      drawn = `${layer} ${head}`;
      drawMap();
      buttons.flat().forEach((button) => button.setAttribute("aria-pressed", button === buttons[layer][head]));
    }
    const notes = [];
    if (data.group > 1) notes.push(`reads key/value head ${Math.floor(head / data.group) + 1}`);
    if (data.windows[layer]) notes.push(`window of ${data.windows[layer]} tokens`);
    $("head-note").textContent = notes.join(", ");
    const line = map.querySelector(".mark");
    line.style.top = `${(100 * query) / T}%`;
    line.style.height = `${100 / T}%`;
    mark(lookSpans);
    lookSpans.forEach((span, key) => {
      span.classList.toggle("later", key > query);
      span.style.setProperty("--share", key > query ? 0 : Math.sqrt(weight(query, key)).toFixed(3));
    });
    $("looks-title").textContent = `Where token ${query}, ${quoted(query)}, looks`;
    const best = attention[layer][head][query].map((share, key) => [key, share / 10000]);
    best.sort((a, b) => b[1] - a[1]);
    const seen = best.slice(0, 8).filter(([, share]) => share > 0);
    const title = `Block ${layer + 1}, head ${head + 1}:`;
    show($("attention-panel"), title, bars(seen.map(([key, share]) => [`${key} ${label(ids[key])}`, share, false])));
  });

  // The logit lens: a column for each token, the model's own prediction on top.
  const depthName = (depth) => (depth === 0 ? "embedding" : `block ${depth}`);
  const table = $("lens");
  const headRow = table.insertRow();
  headRow.append(element("th", "", "after"));
  const columns = ids.map((id, t) => {
    const th = element("th", "", label(id));
    th.dataset.t = t;
    th.title = `token ${t}`;
    headRow.append(th);
    return th;
  });
  const cells = [];
  for (let depth = L; depth >= 0; depth--) {
    const row = table.insertRow();
    row.append(element("th", "", depthName(depth)));
    cells[depth] = lens[depth].map((prediction, t) => {
      const [id, p] = prediction.top[0];
      const td = element("td", t + 1 < T && id === ids[t + 1] ? "hit" : "", label(id));
      td.dataset.t = t;
      td.dataset.depth = depth;
      td.style.setProperty("--share", p.toFixed(3));
      row.append(td);
      return td;
    });
  }
  follow(table, (event) => {
    const found = event.target.closest("[data-t]");
    if (!found) return null;
    const position = Number(found.dataset.t);
    return found.dataset.depth === undefined ? { position } : { position, depth: Number(found.dataset.depth) };
  });
  let lit = [];
  views.push(() => {
    const t = Math.min(state.position, T - 1);
    lit.forEach((node) => node.classList.remove("chosen"));
    lit = [cells[state.depth][t], columns[t]];
    lit.forEach((node) => node.classList.add("chosen"));
    reveal(table.parentElement, columns[t]);
    const prediction = lens[state.depth][t];
    const place = state.depth === 0 ? "Of the embedding alone" : `After block ${state.depth}${state.depth === L ? ", the last" : ""}`;
    const next = prediction.next ? ` What follows, ${quoted(t + 1)}, has ${percent(prediction.next[0])} and is the ${ordinal(prediction.next[1])} choice.` : "";
    const text = `${place}, token ${t}, ${quoted(t)}, would be followed by:`;
    show($("lens-panel"), text, alternatives(prediction, ids[t + 1]), element("p", "soft", next));
  });

  // Norms of the residual stream: a column for each token, the last block on top.
  const all = norms.flat().filter((norm) => norm > 0);
  const [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [1, 1];
  const scale = (norm) => (norm <= 0 ? 0 : high === low ? 0.5 : 0.06 + (0.94 * Math.log(norm / low)) / Math.log(high / low));
  $("norm-low").textContent = four(low);
  $("norm-high").textContent = four(high);
  const normMap = $("norms");
  const every = Math.ceil((L + 1) / 16);
  const height = clamp(480 / (L + 1), 14, 30);
  normMap.querySelector("canvas").style.height = `${height * (L + 1)}px`;
  for (let depth = L; depth >= 0; depth--) {
    $("norm-names").append(element("span", "", depth % every === 0 || depth === L ? depthName(depth) : ""));
  }
  paints.push(() => paint(normMap.querySelector("canvas"), T, L + 1, (t, row) => scale(norms[L - row][t])));
  follow(normMap, (event) => {
    const [position, row] = cell(normMap, event, T, L + 1);
    return { position, depth: L - row };
  });
  views.push(() => {
    const t = Math.min(state.position, T - 1);
    const line = normMap.querySelector(".mark");
    line.style.left = `${(100 * t) / T}%`;
    line.style.width = `${100 / T}%`;
    const place = state.depth === 0 ? "as embedded" : `after block ${state.depth}`;
    $("norm-note").textContent = `Token ${t}, ${quoted(t)}, ${place}: ${four(norms[state.depth][t])}`;
  });

  // Rotary positions: hands of clocks.
  if (rope) {
    const { frequencies, context } = rope;
    const [key, distance] = [$("key"), $("distance")];
    const across = Math.min(context, 512);
    const angles = $("angles");
    angles.querySelector("canvas").style.height = `${clamp(10 * frequencies.length, 120, 320)}px`;
    paints.push(() => paint(angles.querySelector("canvas"), across, frequencies.length, (p, pair) => Math.cos(p * frequencies[pair])));
    const degrees = (angle) => ((((angle * 180) / Math.PI) % 360) + 360) % 360;
    const turn = () => {
      const n = Number(key.value);
      const d = clamp(Number(distance.value), 0, context - 1 - n);
      $("key-out").textContent = n.toLocaleString("en");
      $("distance-out").textContent = d.toLocaleString("en");
      for (const dial of document.querySelectorAll(".dial")) {
        const frequency = frequencies[dial.dataset.pair];
        const [from, by] = [degrees(n * frequency), degrees(d * frequency)];
        // SVG turns clockwise; angles here grow the other way, as in the formula.
        dial.querySelector(".key").setAttribute("transform", `rotate(${-from})`);
        dial.querySelector(".query").setAttribute("transform", `rotate(${-from - by})`);
        const point = (angle) => [0.6 * Math.cos((angle * Math.PI) / 180), -0.6 * Math.sin((angle * Math.PI) / 180)].map((x) => x.toFixed(4)).join(" ");
        const arc = `M 0 0 L ${point(from)} A .6 .6 0 ${by > 180 ? 1 : 0} 0 ${point(from + by)} Z`;
        dial.querySelector(".arc").setAttribute("d", arc);
        dial.querySelector("b").textContent = `${by.toFixed(1)}°`;
      }
      [n, n + d].forEach((p, index) => {
        const line = angles.querySelectorAll(".mark")[index];
        line.style.left = `${(100 * p) / across}%`;
        line.style.width = `${100 / across}%`;
      });
    };
    for (const slider of [key, distance]) slider.addEventListener("input", turn);
    const angleHint = `Positions 0 to ${across - 1} from left to right, pairs 0 to ${frequencies.length - 1} from top to bottom; blue is 1, orange −1.`;
    $("angle-note").textContent = angleHint;
    angles.addEventListener("pointermove", (event) => {
      const [p, pair] = cell(angles, event, across, frequencies.length);
      const angle = p * frequencies[pair];
      $("angle-note").textContent = `Position ${p}, pair ${pair}: ${four(angle)} radians, cos ${Math.cos(angle).toFixed(3)}`;
    });
    angles.addEventListener("pointerleave", () => ($("angle-note").textContent = angleHint));
    turn();
  }

  paints.forEach((draw) => draw());
  views.forEach((view) => view());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paints.forEach((draw) => draw()));
})();
