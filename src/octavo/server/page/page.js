// A chat with the server that this page came from, over its /v1/chat/completions. Knows the turns,
// the settings and the key, which stay in the tab; of an answer its text and place, not its looks.
// What a model or a server says becomes text nodes, never HTML.

import { AnswerView, made } from "./answer.js";

const $ = (id) => document.getElementById(id);
const [log, box, fields] = [$("log"), $("box"), $("fields")];
const NO_SERVER = "There is no connection to the server. Send again once it is back.";

let turns = []; // what the API gets: {role, content, reasoning_content?}
let running = null; // the AbortController of the answer on its way
let isKnown = false; // whether the server answered since it was last out of reach

class KeyNeeded extends Error {}

// ---- the server

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const unlocked = key && { authorization: `Bearer ${key}` };
  const headers = { "content-type": "application/json", ...unlocked };
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
  const view = new AnswerView(log, say, regenerate);
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

// ---- what is seen beside the answers

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
