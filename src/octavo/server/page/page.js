// A chat with the server that this page came from, over its /v1/chat/completions.
// What a model or a server says becomes text nodes, never HTML. Settings and key stay in the tab.

const $ = (id) => document.getElementById(id);
const [log, box, fields] = [$("log"), $("box"), $("fields")];
const NO_SERVER = "There is no connection to the server. Send again once it is back.";
const WHY = {
  "cold": "nothing was cached yet",
  "evicted": "the rest was cached once, and its memory was needed",
  "disabled": "the cache is off",
  "salt": "the first request under this key",
  "window": "the rest has left the model's window",
};

let turns = []; // what the API gets: {role, content, reasoning_content?}
let running = null; // the AbortController of the answer on its way
let isKnown = false; // whether the server answered since it was last out of reach

class KeyNeeded extends Error {}

// ---- the server

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : outOfReach();
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const why = told?.error?.message ?? `The server answered with status ${response.status}.`;
  throw response.status === 401 ? new KeyNeeded(key ? why : "") : new Error(why);
}

function outOfReach() {
  isKnown = false;
  return new Error(NO_SERVER);
}

async function meet() {
  try {
    const { data: [model] } = await (await call("v1/models")).json();
    const seen = (model.sliding_context ?? model.max_model_len).toLocaleString("en");
    const slides = model.sliding_context === null ? "" : " that slides";
    $("model").textContent = `${model.id}, ${seen} tokens of context${slides}`;
    isKnown = true;
    say("");
  } catch (error) {
    tell(error);
  }
  return isKnown;
}

// The data of each event. Throws where the stream does not come to its end.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : outOfReach();
    });
    if (done) throw outOfReach();
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      if (!frame.startsWith("data: ")) continue; // a ping
      if (frame === "data: [DONE]") return;
      const data = JSON.parse(frame.slice(6));
      if (data.error) throw new Error(data.error.message);
      yield data;
    }
  }
}

// ---- a question and its answer

async function send() {
  const text = box.value.trim();
  if (!text || running || !fields.reportValidity()) return;
  if (!isKnown && !(await meet())) return;
  box.value = "";
  turns.push({ role: "user", content: text });
  log.append(made("article", "user", text));
  await answer(null);
}

async function regenerate() {
  const old = log.lastElementChild;
  if (running || (!isKnown && !(await meet()))) return;
  old.remove();
  await answer({ turn: turns.pop(), view: old });
}

// `before` is the answer that this one replaces, if it comes to anything.
async function answer(before) {
  const view = new AnswerView();
  const asked = new AbortController();
  running = asked;
  showRunning();
  say("Reading the prompt");
  try {
    const response = await call("v1/chat/completions", {
      method: "POST", body: JSON.stringify(question()), signal: asked.signal,
    });
    for await (const chunk of events(response)) view.take(chunk);
    view.end("");
    say("The answer is there");
  } catch (error) {
    view.end(asked.signal.aborted ? "stopped" : "broken off");
    if (asked.signal.aborted) say("Stopped");
    else tell(error);
  }
  if (!view.root.isConnected) {
    // a new chat has begun meanwhile
  } else if (!view.brokenBy || view.text || view.thought) {
    const reasoning = view.thought && { reasoning_content: view.thought };
    turns.push({ role: "assistant", content: view.text, ...reasoning });
  } else if (before) {
    turns.push(before.turn);
    view.root.replaceWith(before.view);
  } else {
    view.root.remove();
    takeBack();
  }
  running = null;
  showRunning();
}

// A question that got no answer goes back to where it was written.
function takeBack() {
  log.lastElementChild?.remove();
  box.value = [turns.pop()?.content, box.value].filter(Boolean).join("\n\n");
}

function question() {
  const { system, ...given } = Object.fromEntries(new FormData(fields));
  const numbers = Object.entries(given).filter(([, value]) => value !== "");
  return {
    messages: [...(system.trim() ? [{ role: "system", content: system }] : []), ...turns],
    ...Object.fromEntries(numbers.map(([name, value]) => [name, Number(value)])),
    stream: true,
    return_progress: true,
    stream_options: { include_usage: true, include_cache: true },
  };
}

// ---- what is seen

class AnswerView {
  text = "";
  thought = "";
  isOver = false;
  brokenBy = ""; // what ended it early
  #asked = performance.now();
  #first = null; // when the first and the last text came
  #last = null;
  #told = {}; // usage, cache and prompt_progress
  #finish = null;
  #drawing = 0;

  constructor() {
    this.root = made("article", "answer");
    this.waits = made("div", "waits");
    this.bar = made("progress");
    this.bar.setAttribute("aria-label", "Reading the prompt");
    this.waits.append(this.bar, made("span", "", "Reading the prompt"));
    this.root.append(this.waits);
    log.append(this.root);
    toEnd();
  }

  take(chunk) {
    const [choice] = chunk.choices;
    if (!choice) this.#told = chunk;
    if (chunk.prompt_progress) this.#showProgress(chunk.prompt_progress);
    this.#finish = choice?.finish_reason ?? this.#finish;
    const { content, reasoning_content: thought } = choice?.delta ?? {};
    if (!content && !thought) return;
    if (this.#first === null) say("Answering");
    this.#last = performance.now();
    this.#first ??= this.#last;
    this.text += content ?? "";
    this.thought += thought ?? "";
    this.#drawing ||= requestAnimationFrame(() => this.#draw());
  }

  end(brokenBy) {
    this.isOver = true;
    this.brokenBy = brokenBy;
    cancelAnimationFrame(this.#drawing);
    this.#draw();
    this.waits.remove();
    const again = made("button", "", "Regenerate");
    again.type = "button";
    again.addEventListener("click", regenerate);
    const end = made("div", "end");
    end.append(made("p", "", this.#figures().join(" · ")), again);
    this.root.append(end);
    toEnd();
  }

  #showProgress({ total, processed, eta_ms }) {
    this.bar.value = processed / total;
    const left = eta_ms >= 1000 ? `, ${Math.round(eta_ms / 1000)} s to go` : "";
    this.waits.lastChild.textContent = `Reading the prompt: ${processed} of ${total} tokens${left}`;
  }

  #draw() {
    this.#drawing = 0;
    const wasAtEnd = isAtEnd();
    if (this.thought && !this.folded) {
      this.folded = made("details", "thought");
      this.folded.append(made("summary"), made("p"));
      this.waits.before(this.folded);
    }
    if (this.folded) {
      this.folded.firstChild.textContent = this.text || this.isOver ? "Reasoning" : "Reasoning, so far";
      this.folded.lastChild.textContent = this.thought;
    }
    if (this.#first !== null) this.waits.hidden = true;
    if (this.text) {
      this.body ??= this.root.insertBefore(made("div", "text"), this.waits);
      drawBlocks(this.body, this.text);
    }
    if (wasAtEnd) toEnd();
  }

  #figures() {
    const { usage, cache, prompt_progress: progress } = this.#told;
    const found = [];
    if (this.#first !== null) found.push(`first token after ${seconds(this.#first - this.#asked)}`);
    if (usage) {
      const [after, ms] = [usage.completion_tokens - 1, this.#last - this.#first];
      if (after > 0 && ms > 0) found.push(`${((after / ms) * 1000).toFixed(1)} tok/s`);
      found.push(`${usage.completion_tokens} tokens`);
      const cached = usage.prompt_tokens_details.cached_tokens;
      const saved = cache?.saved_ms ? `, ${seconds(cache.saved_ms)} saved` : "";
      found.push(`${cached} of ${usage.prompt_tokens} prompt tokens cached${saved}${why(cache)}`);
    }
    if (progress) found.push(`${progress.cache} of ${progress.total} prompt tokens cached`);
    if (this.#finish === "length") found.push("cut at the most tokens");
    if (this.brokenBy) found.push(this.brokenBy);
    return found;
  }
}

function why(cache) {
  if (!cache?.reason) return "";
  if (cache.reason !== "diverged") return `: ${WHY[cache.reason] ?? cache.reason}`;
  return cache.diverged_text ? `, new from ${JSON.stringify(cache.diverged_text)} on` : ", the rest is new";
}

// Draw the blocks of a text; those that stand there as they are stay.
function drawBlocks(parent, text) {
  const blocks = blocksOf(text);
  blocks.forEach((block, index) => {
    const old = parent.children[index];
    if (old?.source === block.text && old.localName === block.kind) return;
    const drawn = made(block.kind);
    drawn.source = block.text;
    drawn.append(...(block.kind === "pre" ? [block.text] : inline(block.text)));
    if (old) old.replaceWith(drawn);
    else parent.append(drawn);
  });
  while (parent.children.length > blocks.length) parent.lastChild.remove();
}

// Of Markdown: fenced code, headings, and paragraphs with their line ends.
function blocksOf(text) {
  const blocks = [];
  let open = null;
  for (const line of text.split("\n")) {
    const fence = /^\s*(`{3,}|~{3,})/.exec(line)?.[1];
    const heading = /^#{1,6} +(.*)/.exec(line)?.[1];
    if (open?.fence) {
      if (line.trim() === open.fence) open = null;
      else open.text += (open.text && "\n") + line;
    } else if (fence) blocks.push((open = { kind: "pre", text: "", fence }));
    else if (heading) open = void blocks.push({ kind: "h3", text: heading });
    else if (!line.trim()) open = null;
    else if (open) open.text += `\n${line}`;
    else blocks.push((open = { kind: "p", text: line }));
  }
  return blocks;
}

function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, index) => {
    if (index % 2 === 0) return part;
    return part[0] === "`" ? made("code", "", part.slice(1, -1)) : made("strong", "", part.slice(2, -2));
  });
}

function made(kind, className = "", text = "") {
  const found = document.createElement(kind);
  if (className) found.className = className;
  found.textContent = text;
  return found;
}

function say(text, isTrouble = false) {
  $("status").textContent = text;
  $("status").classList.toggle("trouble", isTrouble);
}

function tell(error) {
  if (!(error instanceof KeyNeeded)) return say(error.message, true);
  isKnown = false;
  say("");
  $("wrong").textContent = error.message;
  if (!$("door").open) $("door").showModal();
}

function showRunning() {
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  log.setAttribute("aria-busy", running !== null);
}

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
const isAtEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 90;
const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);

// ---- what a person does

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("door").open) return;
  $("settings").open = false;
  running?.abort();
});
document.addEventListener("click", (event) => {
  if (!$("settings").contains(event.target)) $("settings").open = false;
});
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => {
  running?.abort();
  turns = [];
  log.replaceChildren();
  say("");
  box.focus();
});
fields.addEventListener("submit", (event) => event.preventDefault());
fields.addEventListener("input", () => {
  sessionStorage.setItem("settings", JSON.stringify(Object.fromEntries(new FormData(fields))));
});
$("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  $("key").value = "";
  $("door").close();
  if (await meet()) box.focus();
});

const kept = JSON.parse(sessionStorage.getItem("settings") ?? "{}");
for (const [name, value] of Object.entries(kept)) fields.elements[name].value = value;
meet();
