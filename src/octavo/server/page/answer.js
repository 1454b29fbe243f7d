// An answer as it is seen, from the first chunk to its figures. Knows the chunks of
// /v1/chat/completions and the log that it stands in; not the server, the turns or the settings.
// What a model says becomes text nodes, never HTML.

const WHY = {
  "cold": "nothing was cached yet",
  "evicted": "the rest was cached once, and its memory was needed",
  "disabled": "the cache is off",
  "salt": "the first request under this key",
  "window": "the rest has left the model's window",
};

export class AnswerView {
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
  #say;
  #regenerate;

  // `say` tells a status; `regenerate` asks for another answer in place of this one.
  constructor(log, say, regenerate) {
    this.#say = say;
    this.#regenerate = regenerate;
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
    if (this.#first === null) this.#say("Answering");
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
    again.addEventListener("click", this.#regenerate);
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
      const isWhole = this.text || this.isOver;
      this.folded.firstChild.textContent = isWhole ? "Reasoning" : "Reasoning, so far";
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
  if (!cache.diverged_text) return ", the rest is new";
  return `, new from ${JSON.stringify(cache.diverged_text)} on`;
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
    if (part[0] === "`") return made("code", "", part.slice(1, -1));
    return made("strong", "", part.slice(2, -2));
  });
}

export function made(kind, className = "", text = "") {
  const found = document.createElement(kind);
  if (className) found.className = className;
  found.textContent = text;
  return found;
}

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
const isAtEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 90;
const toEnd = () => scrollTo(0, document.documentElement.scrollHeight);
