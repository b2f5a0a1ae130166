// The episodes: a list of games, and one episode of the chosen game. Everything shown is set as text; nothing from the
// data is ever parsed as markup. `#episode-ID` and `#episode-ID-turn-T` lead to an episode and to a turn of it.
"use strict";
(() => {
  const { episodes, runs } = JSON.parse(document.getElementById("data").textContent);
  if (!episodes.length) return;
  const [browser, list, view, filters] = [".browser", "#list", "#episode", "#filters"].map((s) => document.querySelector(s));
  const SVG = "http://www.w3.org/2000/svg";
  const STOPS = {
    won: "won", step_limit: "step limit", prompt_too_long: "prompt too long", policy_error: "policy failed",
    env_error: "environment failed",
  };
  const phone = matchMedia("(max-width: 46rem)"); // the list and the episode take turns, as in page.css
  const games = group();
  let shown = null; // the episode in view

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
  const unique = (values) => [...new Set(values)];
  const address = (e) => `#episode-${e.id}`;

  function bar(q) {
    const inner = make("i");
    inner.style.width = `${100 * q}%`;
    return make("span", "bar", inner, { "aria-hidden": "true" });
  }

  // Games in the order of the data, each with its episodes.
  function group() {
    const found = new Map();
    for (const e of episodes) {
      const key = JSON.stringify([e.run, e.split, e.game]);
      if (!found.has(key)) found.set(key, { run: e.run, task: e.task, type: e.type, episodes: [] });
      found.get(key).episodes.push(e);
    }
    return [...found.values()];
  }

  // --- choosing a game ------------------------------------------------------------------------------------------

  const selects = {};

  function select(name, label, css = "") {
    selects[name] = make("select");
    selects[name].addEventListener("change", () => (name === "run" ? fillPolicies() : name === "one" || name === "other" ? fillOutcomes() : fillList()));
    filters.append(make("label", css, [label, selects[name]]));
  }

  function fill(name, options, chosen) {
    selects[name].replaceChildren(...options.map(([value, words]) => make("option", "", words, { value })));
    if (options.some(([value]) => value === chosen)) selects[name].value = chosen;
  }

  const same = (values) => values.map((value) => [value, value]);

  function makeFilters() {
    selects.text = make("input", "", [], { type: "search", placeholder: "in tasks, texts, actions", autocomplete: "off" });
    selects.text.addEventListener("input", fillList);
    filters.append(make("label", "whole", ["Search", selects.text]));
    if (runs > 1) select("run", "Run", "whole");
    select("type", "Task");
    select("outcome", "Games");
    select("one", "Compare");
    select("other", "with");
    if (runs > 1) fill("run", same(unique(games.map((g) => g.run))));
    fillPolicies();
  }

  const ofRun = () => games.filter((g) => runs === 1 || g.run === selects.run.value);

  // The first policy alone and the last are compared unless the reader says otherwise.
  function fillPolicies() {
    const of = ofRun().flatMap((g) => g.episodes);
    const policies = unique(of.map((e) => e.policy));
    const alone = unique(of.filter((e) => e.alone).map((e) => e.policy));
    fill("type", [["", "all"], ...same(unique(of.map((e) => e.type)).sort())]);
    fill("one", same(policies), alone[0]);
    fill("other", same(policies), alone.at(-1));
    for (const name of ["one", "other"]) selects[name].parentNode.hidden = policies.length < 2;
    fillOutcomes();
  }

  function fillOutcomes() {
    const [a, b] = [selects.one.value, selects.other.value];
    const two = [
      ["differ", "decided differently"], ["01", `won by ${b}, lost by ${a}`], ["10", `won by ${a}, lost by ${b}`],
      ["11", "won by both"], ["00", "lost by both"],
    ];
    fill("outcome", [["", "all"], ...(a === b ? [["11", "won"], ["00", "lost"]] : two)], selects.outcome.value);
    fillList();
  }

  const compared = () => [selects.one.value, selects.other.value];
  const episodeBy = (game, policy) => game.episodes.find((e) => e.policy === policy);

  // "01": lost by the one policy, won by the other; "" where not both played.
  function decided(game) {
    const of = compared().map((policy) => episodeBy(game, policy));
    return of.every(Boolean) ? of.map((e) => Number(e.won)).join("") : "";
  }

  function text(game) {
    game.text ??= [game.task, game.type, ...game.episodes.flatMap((e) => e.turns.flatMap((t) => [t.o, t.a, t.r]))].join("\n").toLowerCase();
    return game.text;
  }

  function matches(game) {
    const wanted = selects.outcome.value, so = decided(game);
    if (wanted && !(wanted === "differ" ? so === "01" || so === "10" : so === wanted)) return false;
    if (selects.type.value && game.type !== selects.type.value) return false;
    return selects.text.value.toLowerCase().split(/\s+/).every((word) => text(game).includes(word));
  }

  function fillList() {
    const all = ofRun(), found = all.filter(matches);
    document.getElementById("count").textContent = found.length === all.length ? many(all.length, "game") : `${found.length} of ${many(all.length, "game")}`;
    list.replaceChildren(...found.map(entry));
    if (list.firstChild) list.firstChild.tabIndex = 0;
    if (shown) mark();
    if (!found.some((game) => game.episodes.includes(shown)) && found.length && !phone.matches) showEpisode(episodeOf(found[0]));
  }

  function entry(game) {
    const of = unique(compared()).map((policy) => episodeBy(game, policy)).filter(Boolean);
    const ends = of.flatMap((e) => [" · ", `${e.policy} `, make("span", e.won ? "won" : "lost", e.won ? "won" : "lost")]);
    const wins = game.episodes.filter((e) => e.won).length;
    if (game.episodes.length > 2) ends.push(` · won by ${wins} of ${game.episodes.length}`);
    const row = make("li", "", [make("span", "task", game.task), make("span", "who", [game.type, ...ends])], {
      role: "option", tabindex: "-1", "aria-selected": "false",
    });
    row.game = game;
    row.addEventListener("click", () => open(episodeOf(game)));
    return row;
  }

  // The episode of the policy in view, else of the second of the compared, else any.
  const episodeOf = (game) =>
    [shown?.policy, selects.other.value].map((policy) => episodeBy(game, policy)).find(Boolean) ?? game.episodes[0];

  list.addEventListener("keydown", (event) => {
    const rows = [...list.children];
    const at = rows.findIndex((row) => row.tabIndex === 0);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, Enter: at, " ": at }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const row = rows[Math.max(0, Math.min(to, rows.length - 1))];
    for (const other of rows) other.tabIndex = other === row ? 0 : -1;
    row.focus();
    if (!phone.matches || event.key === "Enter" || event.key === " ") open(episodeOf(row.game));
  });

  // Show an episode and put it into the address. A phone's way back is one step of its history.
  function open(e) {
    if (phone.matches && browser.dataset.view !== "episode") {
      history.pushState({ fromList: true }, "", address(e));
    } else {
      history.replaceState(history.state, "", address(e));
    }
    go();
  }

  // To what the address says.
  function go() {
    const [, id, turn] = /^#episode-([0-9a-f]+)(?:-turn-(\d+))?$/.exec(location.hash) ?? [];
    const e = episodes.find((one) => one.id === id);
    if (!e) {
      const from = browser.dataset.view;
      browser.dataset.view = "list";
      const row = list.querySelector("[aria-selected=true]");
      if (from === "episode" && phone.matches && row) {
        row.scrollIntoView({ block: "center" });
        row.focus({ preventScroll: true });
      }
      return;
    }
    const before = browser.dataset.view;
    browser.dataset.view = "episode";
    if (runs > 1 && selects.run.value !== e.run) {
      selects.run.value = e.run;
      fillPolicies();
    }
    if (e !== shown) showEpisode(e);
    else drawCourse(e);
    const place = turn === undefined ? view : document.getElementById(`episode-${id}-turn-${turn}`);
    if (place && (turn !== undefined || phone.matches || before === undefined)) place.scrollIntoView();
  }

  function back() {
    if (history.state?.fromList) {
      history.back();
    } else {
      history.replaceState(null, "", "#episodes");
      go();
    }
  }

  function mark() {
    const rows = [...list.children], at = rows.findIndex((row) => row.game.episodes.includes(shown));
    rows.forEach((row, i) => {
      row.setAttribute("aria-selected", String(i === at));
      row.tabIndex = i === Math.max(at, 0) ? 0 : -1;
    });
    if (at < 0) return;
    const row = rows[at], top = row.offsetTop - list.offsetTop; // as scrollIntoView, for the list alone
    const bottom = top + row.offsetHeight - list.clientHeight;
    list.scrollTop = Math.max(Math.min(list.scrollTop, top), bottom);
  }

  // --- reading an episode ---------------------------------------------------------------------------------------

  function showEpisode(e) {
    shown = e;
    view.className = e.accent;
    const returning = make("button", "back", "← All games", { type: "button" });
    returning.addEventListener("click", back);
    const title = make("h3", "", [e.task, " ", make("a", "link", "link", { href: address(e), title: "the address of this episode" })]);
    const facts = make("p", "facts", [`${e.policy} · ${e.type} · ${e.split} · `, make("span", e.won ? "won" : "lost", outcome(e))]);
    const turns = e.turns.map((turn, t) => showTurn(e, turn, t));
    view.replaceChildren(returning, title, facts, ...sameGame(e), make("div", "course"), make("ol", "turns", turns));
    mark();
    drawCourse(e);
  }

  function sameGame(e) {
    const others = games.find((game) => game.episodes.includes(e)).episodes;
    if (others.length < 2) return [];
    const buttons = others.map((o) => {
      const end = make("span", o.won ? "won" : "lost", o.won ? " won" : " lost");
      const button = make("button", o.accent, [o.policy, end], { type: "button", "aria-pressed": String(o === e) });
      button.addEventListener("click", () => {
        history.replaceState(history.state, "", address(o));
        showEpisode(o);
        view.querySelector(".same [aria-pressed=true]").focus({ preventScroll: true });
      });
      return button;
    });
    return [make("div", "same", [make("span", "", "Same game:"), ...buttons])];
  }

  function showTurn(e, turn, t) {
    const body = [make("p", "observation", turn.o)];
    if (turn.a === undefined) {
      body.push(make("p", `action end ${e.won ? "won" : "lost"}`, `${outcome(e)[0].toUpperCase()}${outcome(e).slice(1)}.`));
    } else {
      if (turn.r) body.push(make("p", "reason", turn.r));
      const action = make("p", "action", make("code", "", turn.a || "(no action)"));
      if (turn.v === false) action.append(make("span", "badge", "not admissible"));
      if (turn.q !== undefined) action.append(make("span", "score", [bar(turn.q), make("span", "q", `${e.q} ${show(turn.q)}`)]));
      body.push(action);
      if (turn.c?.length) body.push(commands(e, turn));
    }
    const id = `episode-${e.id}-turn-${t}`;
    return make("li", "turn", [make("a", "n", String(t), { href: `#${id}` }), make("div", "", body)], { id });
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
      const said = `turn ${t}: ${turn.a}${turn.v === false ? " (not admissible)" : ""}, ${e.q} ${show(turn.q)}`;
      const circle = draw("circle", { cx: x(t), cy: y(turn.q), r: 4.5, class: turn.v === false ? "mark hollow" : "mark" }, [draw("title", {}, [said])]);
      marks.push(draw("a", { href: `${address(e)}-turn-${t}`, "aria-label": said }, [circle]));
    }
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${e.q} along the episode` }, marks);
    box.replaceChildren(svg, make("p", "note", `${e.q} by turn: ● the action taken, ○ one that is not admissible, – the alternatives`));
  }

  addEventListener("resize", () => shown && drawCourse(shown));
  addEventListener("hashchange", go);
  addEventListener("popstate", go);
  browser.hidden = false;
  makeFilters();
  const interesting = ofRun().find((game) => ["01", "10"].includes(decided(game)));
  if (interesting) showEpisode(episodeOf(interesting));
  go();
})();
