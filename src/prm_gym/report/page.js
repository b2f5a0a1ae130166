// The trajectory browser. Everything shown is set as text; nothing from the data is ever parsed as markup.
"use strict";
(() => {
  const { episodes, runs } = JSON.parse(document.getElementById("data").textContent);
  const list = document.getElementById("list");
  const view = document.getElementById("episode");
  const SVG = "http://www.w3.org/2000/svg";
  const STOPS = {
    won: "won", step_limit: "step limit", prompt_too_long: "prompt too long", policy_error: "policy failed",
    env_error: "environment failed",
  };
  const filters = [
    ["Policy", (e) => (runs > 1 ? `${e.run} · ${e.policy}` : e.policy)],
    ["Task", (e) => e.type],
    ["Outcome", (e) => (e.won ? "won" : "not won")],
  ];
  let chosen = -1;

  // An element with a class, children (strings become text nodes) and attributes.
  function make(tag, css, children = [], attributes = {}) {
    const node = document.createElement(tag);
    if (css) node.className = css;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...[children].flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  function draw(tag, attributes, children = []) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const show = (q) => q.toFixed(3);
  const many = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const outcome = (e) => (e.won ? `won in ${many(e.actions, "action")}` : `${STOPS[e.stop] ?? e.stop}, ${many(e.actions, "action")}`);

  function bar(q) {
    const inner = make("i");
    inner.style.width = `${100 * q}%`;
    return make("span", "bar", inner, { "aria-hidden": "true" });
  }

  // --- choosing an episode --------------------------------------------------------------------------------------

  function makeFilters() {
    for (const [name, of] of filters) {
      const select = make("select", "", make("option", "", "all", { value: "" }));
      for (const value of [...new Set(episodes.map(of))].sort()) select.append(make("option", "", value, { value }));
      select.addEventListener("change", fillList);
      document.getElementById("filters").append(make("label", "", [name, select]));
    }
  }

  function fillList() {
    const wanted = [...document.querySelectorAll("#filters select")].map((select) => select.value);
    const shown = episodes.filter((e) => filters.every(([, of], i) => !wanted[i] || of(e) === wanted[i]));
    document.getElementById("count").textContent = many(shown.length, "episode");
    list.replaceChildren(...shown.map(entry));
    const current = shown.includes(episodes[chosen]) ? chosen : episodes.indexOf(shown[0]);
    if (current >= 0) choose(current);
  }

  function entry(e) {
    const row = make(
      "li", e.accent,
      [
        make("i", "swatch"),
        make("span", "", e.task),
        make("span", e.won ? "won" : "lost", e.won ? "won" : "not won"),
        make("span", "who", `${runs > 1 ? `${e.run} · ` : ""}${e.policy} · ${many(e.actions, "action")}`),
      ],
      { role: "option", tabindex: "-1", "aria-selected": "false", "data-episode": episodes.indexOf(e) },
    );
    row.addEventListener("click", () => choose(episodes.indexOf(e)));
    return row;
  }

  list.addEventListener("keydown", (event) => {
    const rows = [...list.children];
    const at = rows.findIndex((row) => row.tabIndex === 0);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, Enter: at, " ": at }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const row = rows[Math.max(0, Math.min(to, rows.length - 1))];
    choose(Number(row.dataset.episode));
    row.focus();
  });

  function choose(number) {
    chosen = number;
    for (const row of list.children) {
      const here = Number(row.dataset.episode) === number;
      row.setAttribute("aria-selected", String(here));
      row.tabIndex = here ? 0 : -1;
      if (here) keepInSight(row);
    }
    showEpisode(episodes[number]);
  }

  // As scrollIntoView, for the list alone: the page stays where it is.
  function keepInSight(row) {
    const top = row.offsetTop - list.offsetTop;
    if (top < list.scrollTop) list.scrollTop = top;
    const bottom = top + row.offsetHeight - list.clientHeight;
    if (bottom > list.scrollTop) list.scrollTop = bottom;
  }

  // --- reading it -----------------------------------------------------------------------------------------------

  function showEpisode(e) {
    view.className = e.accent;
    const facts = make("p", "facts", [`${e.policy} · ${e.type} · ${e.split} · `, make("span", e.won ? "won" : "lost", outcome(e))]);
    const turns = e.turns.map((turn, t) => showTurn(e, turn, t));
    view.replaceChildren(make("h3", "", e.task), facts, ...sameGame(e), make("div", "course"), make("ol", "turns", turns));
    drawCourse(e);
  }

  function sameGame(e) {
    const others = episodes.filter((o) => o.game === e.game && o.run === e.run);
    if (others.length < 2) return [];
    const buttons = others.map((o) => {
      const end = make("span", o.won ? "won" : "lost", o.won ? " won" : " not won");
      const button = make("button", o.accent, [o.policy, end], { type: "button", "aria-pressed": String(o === e) });
      button.addEventListener("click", () => {
        for (const select of document.querySelectorAll("#filters select")) select.value = "";
        chosen = episodes.indexOf(o);
        fillList();
        view.querySelector(".same [aria-pressed=true]").focus();
      });
      return button;
    });
    return [make("div", "same", ["Same game: ", ...buttons])];
  }

  function showTurn(e, turn, t) {
    const body = [make("p", "observation", turn.o)];
    if (turn.a === undefined) {
      body.push(make("p", `action end ${e.won ? "won" : "lost"}`, `${outcome(e)[0].toUpperCase()}${outcome(e).slice(1)}.`));
    } else {
      if (turn.r) body.push(make("p", "reason", turn.r));
      const action = make("p", "action", make("code", "", turn.a || "(no action)"));
      if (!turn.v) action.append(make("span", "badge", "not admissible"));
      if (turn.q !== undefined) action.append(make("span", "score", [bar(turn.q), make("span", "q", `${e.q} ${show(turn.q)}`)]));
      body.push(action);
      if (turn.c.length) body.push(commands(e, turn));
    }
    return make("li", "turn", [make("span", "n", String(t)), make("div", "", body)], { id: `turn-${t}` });
  }

  // Which rank Q gives the action among what it could have been, and what Q would have done.
  function verdict(e, turn) {
    if (turn.q === undefined) return [];
    const best = turn.cq.indexOf(Math.max(...turn.cq));
    const others = turn.cq.filter((_, i) => turn.c[i] !== turn.a);
    const rank = 1 + others.filter((q) => q > turn.q).length;
    if (rank === 1) return [`; ${e.q} ranks it first of ${others.length + 1}`];
    return [`; ${e.q} ranks it ${rank} of ${others.length + 1}, first `, make("code", "", turn.c[best]), ` ${show(turn.cq[best])}`];
  }

  function commands(e, turn) {
    const order = turn.c.map((_, i) => i);
    if (turn.cq) order.sort((i, j) => turn.cq[j] - turn.cq[i]);
    const rows = order.map((i) => {
      const scored = turn.cq ? [bar(turn.cq[i]), make("span", "q", show(turn.cq[i]))] : [];
      const taken = turn.c[i] === turn.a;
      return make("li", taken ? "taken" : "", [make("code", "", turn.c[i]), ...scored], taken ? { "aria-current": "true" } : {});
    });
    const summary = make("summary", "", [many(turn.c.length, "admissible command"), ...verdict(e, turn)]);
    return make("details", "", [summary, make("ol", turn.cq ? "commands" : "commands unscored", rows)]);
  }

  // Q of the action taken in each turn, over ticks for the alternatives; each mark leads to its turn.
  function drawCourse(e) {
    const box = view.querySelector(".course");
    const scored = e.turns.map((turn, t) => [turn, t]).filter(([turn]) => turn.q !== undefined);
    if (!scored.length) return;
    const width = Math.max(box.clientWidth, 200), height = 132, left = 38, right = 8, top = 12, bottom = 24;
    const x = (t) => left + ((t + 0.5) / Math.max(e.actions, 8)) * (width - left - right);
    const highest = Math.max(...scored.flatMap(([turn]) => [turn.q, ...turn.cq]));
    const limit = [0.1, 0.2, 0.5].find((end) => highest <= end) ?? 1;
    const y = (q) => height - bottom - (q / limit) * (height - top - bottom);
    const half = Math.min(5, ((width - left - right) / Math.max(e.actions, 8)) * 0.3);
    const marks = [];
    for (const q of [0, limit / 2, limit]) {
      marks.push(draw("line", { x1: left, x2: width - right, y1: y(q), y2: y(q), class: "grid" }));
      marks.push(draw("text", { x: left - 7, y: y(q) + 4, "text-anchor": "end" }, [String(q)]));
    }
    for (const [turn, t] of scored) {
      turn.cq.forEach((q, i) => {
        if (turn.c[i] !== turn.a) marks.push(draw("line", { x1: x(t) - half, x2: x(t) + half, y1: y(q), y2: y(q), class: "others" }));
      });
      if (t % 5 === 0) marks.push(draw("text", { x: x(t), y: height - 6, "text-anchor": "middle" }, [String(t)]));
    }
    for (const [turn, t] of scored) {
      const said = `turn ${t}: ${turn.a}${turn.v ? "" : " (not admissible)"}, ${e.q} ${show(turn.q)}`;
      const mark = draw("circle", { cx: x(t), cy: y(turn.q), r: 4.5, class: turn.v ? "mark" : "mark hollow" }, [draw("title", {}, [said])]);
      marks.push(draw("a", { href: `#turn-${t}`, "aria-label": said }, [mark]));
    }
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${e.q} along the episode` }, marks);
    box.replaceChildren(svg, make("p", "note", `${e.q} by turn: ● the action taken, ○ one that is not admissible, – the alternatives`));
  }

  addEventListener("resize", () => chosen >= 0 && drawCourse(episodes[chosen]));
  document.querySelector(".browser").hidden = false;
  makeFilters();
  fillList();
})();
