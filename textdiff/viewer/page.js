"use strict";
// The first part knows no document; tests run it outside a browser.

const RUN = 4; // numbers of a run: first frame, piece, state, probability of a draw (0: none)

/** The rows of a sample: piece and state of every cell, [frames x L]. */
function expand(sample) {
  const L = sample.runs.length, frames = sample.frames;
  const piece = new Int32Array(frames * L), state = new Uint8Array(frames * L);
  sample.runs.forEach((runs, i) => {
    for (let r = 0; r < runs.length; r += RUN) {
      const end = r + RUN < runs.length ? runs[r + RUN] : frames;
      for (let frame = runs[r]; frame < end; frame++) {
        piece[frame * L + i] = runs[r + 1];
        state[frame * L + i] = runs[r + 2];
      }
    }
  });
  return { L, frames, piece, state };
}

/** What happened to the token of one position, up to and with a frame: its first token, then every draw and change. */
function history(runs, frame) {
  const found = [];
  for (let r = 0; r < runs.length && runs[r] <= frame; r += RUN)
    if (!found.length || runs[r + 3] > 0 || runs[r + 1] !== found.at(-1).piece)
      found.push({ frame: runs[r], piece: runs[r + 1], state: runs[r + 2], probability: runs[r + 3] });
  return found;
}

const ODD = /([\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd]+)/; // control, line breaks, direction, half a character

/** A piece as [text, is it a mark] parts: odd characters become marks, a newline a mark and a break. */
function parts(piece) {
  if (piece === "") return [["∅", true]];
  const split = piece.split(ODD).map((part, k) => (k % 2 ? [Array.from(part, mark).join(""), true] : [part, false]));
  return split.filter(([text]) => text !== "");
}

function mark(character) {
  if (character === "\n") return "↵\n";
  if (character === "\t") return "⇥\t";
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return code === 0x2028 || code === 0x2029 ? "\u2424" : "\ufffd";
}

/** A piece in one line, between quotes. */
const quoted = (piece) => (piece === null ? "[MASK]" : "“" + parts(piece).map(([text]) => text.replace(/[\n\t]/g, "")).join("") + "”");

const percent = (p) => (p >= 0.0995 ? (100 * p).toFixed(0) : (100 * p).toPrecision(2)) + " %";

/** Milliseconds a frame is shown: a whole sample in about ten seconds. */
const pace = (frames, speed) => Math.min(Math.max(10000 / frames, 30), 500) / speed;

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
  const now = { sample: 0, frame: Infinity, chosen: -1, playing: 0 };
  let cells, tokens, drawn; // of the sample shown; drawn: what each token shows

  const runs = () => data.samples[now.sample].runs;
  const nameOf = (frame) => (frame === 0 ? "noise" : `call ${frame}`);

  function settings() {
    for (const [name, value] of data.settings) {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", value));
      at("settings").append(pair);
    }
    for (const [name, label] of data.states) {
      const item = make("li");
      item.append(make("i", "", name), make("span", label), make("b"));
      at("legend").append(item);
    }
    data.samples.forEach((sample, number) => {
      const last = sample.runs.map((run) => data.pieces[run.at(-RUN + 1)] ?? "▒").join("").replace(/\s+/g, " ").trim();
      at("sample").append(make("option", `${number + 1}: ${Array.from(last).slice(0, 40).join("")}`));
    });
    at("sample").hidden = data.samples.length < 2;
  }

  function open(number) {
    now.sample = Math.min(Math.max(number, 0), data.samples.length - 1);
    cells = expand(data.samples[now.sample]);
    tokens = Array.from({ length: cells.L }, (_, i) => Object.assign(make("span"), { position: i }));
    drawn = new Array(cells.L).fill("");
    at("text").replaceChildren(...tokens);
    at("text").style.minHeight = "";
    at("sample").selectedIndex = now.sample;
    at("slider").max = cells.frames - 1;
    choose(-1);
    Array.from(at("legend").children).forEach((item, state) => { item.hidden = !cells.state.includes(state); });
    paintMap();
    show(Math.min(now.frame, cells.frames - 1));
  }

  function show(frame) {
    now.frame = Math.min(Math.max(frame, 0), cells.frames - 1);
    const counts = new Array(data.states.length).fill(0), offset = now.frame * cells.L;
    for (let i = 0; i < cells.L; i++) {
      const piece = cells.piece[offset + i], state = cells.state[offset + i];
      counts[state]++;
      if (drawn[i] !== `${piece} ${state}`) {
        drawn[i] = `${piece} ${state}`;
        tokens[i].className = data.states[state][0] + (i === now.chosen ? " chosen" : "");
        const text = data.pieces[piece];
        tokens[i].replaceChildren(...(text === null ? [] : parts(text).map(([part, odd]) => (odd ? make("em", part) : part))));
      }
    }
    at("text").style.minHeight = `${at("text").offsetHeight}px`; // so that what is below stays where it is
    at("slider").value = now.frame;
    at("where").textContent = now.frame === 0 ? `noise, ${cells.frames - 1} calls` : `call ${now.frame} of ${cells.frames - 1}`;
    Array.from(at("legend").children).forEach((item, state) => {
      item.lastChild.textContent = counts[state];
      item.className = counts[state] ? "" : "none";
    });
    Object.assign(at("row").style, { top: `${(100 * now.frame) / cells.frames}%`, height: `${100 / cells.frames}%` });
    if (now.chosen >= 0) explain(now.chosen, tokens[now.chosen].getBoundingClientRect());
  }

  function paintMap() {
    const map = at("map"), context = map.getContext("2d");
    map.width = Math.max(cells.L, 1);
    map.height = cells.frames;
    map.style.height = `${Math.min(Math.max(cells.frames * 4, 60), 260)}px`;
    const style = getComputedStyle(document.documentElement);
    const colours = data.states.map(([name]) => style.getPropertyValue(name === "settled" ? "--paper" : `--${name}`).trim());
    const rgba = colours.map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)).concat(255));
    const image = context.createImageData(map.width, map.height);
    cells.state.forEach((state, cell) => image.data.set(rgba[state], 4 * cell));
    context.putImageData(image, 0, 0);
  }

  function explain(i, box) {
    const tip = at("tip"), cell = now.frame * cells.L + i, list = make("ol");
    const steps = history(runs()[i], now.frame);
    const piece = cells.piece[cell];
    tip.replaceChildren(
      make("p", `${quoted(data.pieces[piece])}: ${data.states[cells.state[cell]][1]}`),
      make("p", `position ${i}, id ${data.ids[piece]}`, "soft"),
    );
    for (const step of steps.slice(-8)) {
      const line = make("li", "", step === steps.at(-1) ? "now" : "");
      line.append(make("b", nameOf(step.frame)), make("span", quoted(data.pieces[step.piece])));
      if (step.probability > 0) line.append(make("span", `probability ${percent(step.probability)}`, "soft"));
      list.append(line);
    }
    tip.append(list);
    tip.hidden = false;
    const left = Math.min(Math.max(box.left, 8), innerWidth - tip.offsetWidth - 8);
    const below = box.bottom + 8 + tip.offsetHeight < innerHeight;
    Object.assign(tip.style, { left: `${left}px`, top: `${below ? box.bottom + 8 : Math.max(box.top - tip.offsetHeight - 8, 8)}px` });
  }

  function choose(i) {
    if (now.chosen >= 0) tokens[now.chosen]?.classList.remove("chosen");
    now.chosen = i;
    Object.assign(at("column").style, { display: i < 0 ? "none" : "block", left: `${(100 * i) / cells.L}%`, width: `${100 / cells.L}%` });
    if (i < 0) at("tip").hidden = true;
    else tokens[i].classList.add("chosen");
  }

  function play(on) {
    clearTimeout(now.playing);
    now.playing = 0;
    at("play").textContent = on ? "Pause" : "Play";
    if (!on) return;
    if (now.frame === cells.frames - 1) show(0);
    const step = () => {
      show(now.frame + 1);
      if (now.frame === cells.frames - 1) play(false);
      else now.playing = setTimeout(step, pace(cells.frames, Number(at("speed").value)));
    };
    now.playing = setTimeout(step, pace(cells.frames, Number(at("speed").value)));
  }

  const go = (frame) => { play(false); show(frame); };

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.tagName === "SELECT" && !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    if (event.target.tagName === "BUTTON" && event.key === " ") return; // a button takes its own space
    const far = event.shiftKey ? 10 : 1;
    const act = {
      ArrowLeft: () => go(now.frame - far), ArrowRight: () => go(now.frame + far), Home: () => go(0), End: () => go(cells.frames - 1),
      ArrowUp: () => open(now.sample - 1), ArrowDown: () => open(now.sample + 1), " ": () => play(!now.playing),
      Escape: () => choose(-1), t: theme, T: theme,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  function theme() {
    document.documentElement.classList.toggle("dark");
    paintMap();
  }

  function pointAt(event) {
    const box = at("map").getBoundingClientRect(), last = (n, share) => Math.min(Math.max(Math.floor(n * share), 0), n - 1);
    go(last(cells.frames, (event.clientY - box.top) / box.height));
    if (cells.L) choose(last(cells.L, (event.clientX - box.left) / box.width));
    if (cells.L) explain(now.chosen, { left: event.clientX, top: event.clientY, bottom: event.clientY + 8 });
  }

  function listen() {
    const clicks = { first: () => go(0), previous: () => go(now.frame - 1), next: () => go(now.frame + 1), last: () => go(cells.frames - 1) };
    Object.assign(clicks, { play: () => play(!now.playing), theme });
    for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", act);
    at("slider").addEventListener("input", () => go(Number(at("slider").value)));
    at("sample").addEventListener("change", () => open(at("sample").selectedIndex));
    document.addEventListener("keydown", keys);
    const tokenOf = (event) => event.target.closest("#text > span");
    at("text").addEventListener("mouseover", (event) => {
      const token = tokenOf(event);
      if (token) explain(token.position, token.getBoundingClientRect());
    });
    at("text").addEventListener("mouseleave", () => (now.chosen < 0 ? (at("tip").hidden = true) : show(now.frame)));
    at("text").addEventListener("click", (event) => {
      const token = tokenOf(event);
      choose(!token || token.position === now.chosen ? -1 : token.position);
      if (token) explain(token.position, token.getBoundingClientRect());
    });
    at("overview").addEventListener("pointerdown", (event) => { at("overview").setPointerCapture(event.pointerId); pointAt(event); });
    at("overview").addEventListener("pointermove", (event) => { if (event.buttons) pointAt(event); });
    addEventListener("resize", () => { at("text").style.minHeight = ""; });
    addEventListener("scroll", () => { at("tip").hidden = true; }, { passive: true });
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => { document.documentElement.classList.toggle("dark", dark.matches); if (cells) paintMap(); };
    dark.addEventListener("change", follow);
    follow();
  }

  settings();
  listen();
  open(0);
}

if (typeof document !== "undefined") start();
