"use strict";
// Draws live: every token of a sequence is a cell, in the order of the text.

const $ = (id) => document.getElementById(id);
const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g; // control, direction
const visible = (text) => text.replace(ODD, "\ufffd");
let known = { samplers: {}, hyperschedules: {} };
let running = [];

/** Server-sent events of a response, one [type, data] after the other. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      let type = "message", data = "";
      for (const line of rest.slice(0, end).split("\n"))
        if (line.startsWith("event: ")) type = line.slice(7);
        else if (line.startsWith("data: ")) data += line.slice(6);
      if (data && data !== "[DONE]") yield [type, JSON.parse(data)];
    }
  }
}

/** One setting: its fields, its text, and what is told of it. */
class Pane {
  constructor(name, settings) {
    this.node = $("pane").content.cloneNode(true).firstElementChild;
    this.node.querySelector("legend").textContent = name;
    this.text = this.node.querySelector(".text");
    this.told = this.node.querySelector(".told");
    for (const field of ["hyperschedule", "sampler"]) {
      this.field(field).value = settings[field];
      this.field(field).addEventListener("input", () => this.showLaw());
    }
    $("panes").append(this.node);
    this.showLaw();
  }

  field(name) { return this.node.querySelector("." + name); }

  /** The laws of what is chosen, in the words of the library. */
  showLaw() {
    const said = [["hyperschedule", "hyperschedules"], ["sampler", "samplers"]].map(([field, all]) => {
      const name = this.field(field).value.split("(")[0].trim();
      return known[all][name] ?? (name ? `${name}: not known here.` : "");
    });
    this.node.querySelector(".law").textContent = said.filter(Boolean).join(" ");
  }

  tell(text, bad = false) {
    this.told.textContent = text;
    this.told.classList.toggle("bad", bad);
  }

  cell(position) {
    while (this.cells.length <= position) {
      const cell = document.createElement("span");
      this.cells.push(cell);
      this.text.append(cell);
    }
    return this.cells[position];
  }

  put(event, kind) {
    event.position.forEach((position, i) => {
      const cell = this.cell(position), text = event.text[i], sure = event.confidence?.[i];
      if (cell.className === "given") return; // a window may hold given tokens: they stay
      cell.className = text === null ? "masked" : kind;
      cell.textContent = text === null ? "" : visible(text);
      cell.style.setProperty("--sure", sure == null ? 0.5 : 0.15 + 0.85 * sure);
      if (sure != null) cell.title = `probability ${sure.toPrecision(3)}`;
    });
    this.nfe = event.nfe;
    if (kind === "settled") this.drawn += event.position.length;
    this.tell(`${this.drawn} tokens, ${this.nfe} calls, ${(this.drawn / Math.max(this.nfe, 1)).toFixed(2)} tokens per call`);
  }

  async draw(body, headers, signal) {
    this.text.replaceChildren();
    Object.assign(this, { cells: [], drawn: 0, nfe: 0 });
    this.tell("waiting …");
    const law = { temperature: this.field("temperature").valueAsNumber };
    for (const name of ["hyperschedule", "sampler"]) if (this.field(name).value.trim()) law[name] = this.field(name).value.trim();
    const response = await fetch("v1/completions", { method: "POST", headers, signal, body: JSON.stringify({ ...body, ...law }) });
    if (!response.ok) throw new Error((await response.json()).error.message);
    let reason = null, seed = body.seed;
    for await (const [type, data] of eventsOf(response)) {
      if (data.error) throw new Error(data.error.message);
      if (type === "given") this.put({ ...data, nfe: 0 }, "given");
      else if (type === "provisional") this.put(data, "open");
      else if (type === "committed") this.put(data, "settled");
      else if (data.choices?.[0]?.finish_reason) reason = data.choices[0].finish_reason;
      seed = data.seed ?? seed;
    }
    if (reason === null) throw new Error("the connection ended before the text did");
    for (const cell of this.cells) if (cell.className === "masked" || cell.className === "open") cell.remove();
    this.tell(`${this.told.textContent} · ended by ${reason} · seed ${seed}`);
  }
}

let panes = [];

async function draw() {
  stop();
  const abort = new AbortController();
  running.push(abort);
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  const body = {
    model: known.id, prompt: $("prompt").value, max_tokens: $("tokens").valueAsNumber, fill_mask: $("fill").checked,
    stream: true, stream_options: { include_provisional: true },
  };
  if ($("suffix").value) body.suffix = $("suffix").value;
  if ($("seed").value) body.seed = Number($("seed").value);
  $("stop").disabled = false;
  await Promise.all(panes.filter((pane) => !pane.node.hidden).map((pane) =>
    pane.draw(body, headers, abort.signal).catch((error) =>
      pane.tell(error.name === "AbortError" ? `stopped · ${pane.told.textContent}` : error.message, error.name !== "AbortError"))));
  running = running.filter((one) => one !== abort);
  $("stop").disabled = running.length > 0;
  if (!running.length) $("stop").disabled = true;
}

function stop() {
  for (const abort of running.splice(0)) abort.abort();
  $("stop").disabled = true;
}

function fill(list, all) {
  for (const [name, law] of Object.entries(all)) {
    const option = document.createElement("option");
    option.value = name;
    option.label = law.slice(0, 80);
    list.append(option);
  }
}

async function begin() {
  const headers = $("key").value ? { Authorization: "Bearer " + $("key").value } : {};
  const response = await fetch("v1/models", { headers });
  if (!response.ok) {
    $("about").textContent = (await response.json()).error.message;
    return;
  }
  known = (await response.json()).data[0];
  $("model").textContent = known.id;
  $("about").textContent = `${known.process}, trained under ${known.hyperschedule} on ${known.length} tokens`;
  fill($("hyperschedules"), known.hyperschedules);
  fill($("samplers"), known.samplers);
  $("panes").replaceChildren();
  panes = [new Pane("A", known), new Pane("B", known)];
  panes[1].node.hidden = !$("two").checked;
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
$("stop").addEventListener("click", stop);
$("two").addEventListener("change", () => { if (panes[1]) panes[1].node.hidden = !$("two").checked; });
$("key").addEventListener("change", begin);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && event.ctrlKey) $("form").requestSubmit();
});
begin();
