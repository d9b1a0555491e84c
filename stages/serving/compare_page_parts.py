"""Style sheet and script of the page of a comparison."""

STYLE = """
:root { color-scheme: light dark; --back: #ffffff; --card: #f4f5f7; --text: #1b1f24; --dim: #57606a;
  --line: #d0d7de; --accent: #0062a3; --on-accent: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171c; --card: #1e232a; --text: #e6e9ee; --dim: #9aa5b1; --line: #3a424d;
    --accent: #5db2ee; --on-accent: #0b1118; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 1rem 0 .4rem; color: var(--dim); }
.dim { color: var(--dim); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: 1rem; }
@media (max-width: 48rem) { .pair { grid-template-columns: 1fr; } }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .25rem 1rem 1rem; }
.buttons { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 1.2rem 0; }
button { font: inherit; padding: .5rem 1.1rem; border-radius: .4rem; border: 1px solid var(--accent);
  background: var(--accent); color: var(--on-accent); cursor: pointer; }
#back, #vote-tie, #download { background: transparent; color: var(--accent); }
button:disabled { opacity: .45; cursor: default; }
button:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
progress { width: 12rem; accent-color: var(--accent); vertical-align: middle; }
details { border-top: 1px solid var(--line); padding: .7rem 0; }
#system-box { border: 0; padding: 0 0 .5rem; }
summary { cursor: pointer; color: var(--dim); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
#all td { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16rem; }
#measures td { white-space: nowrap; }
kbd { border: 1px solid var(--line); border-radius: .25rem; padding: 0 .3rem; font-size: .85em; }
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
let votes = [];                       // of data.pairs, in order: "a", "b" or "tie"
try { votes = JSON.parse(localStorage.getItem(data.key)) || []; } catch (error) { /* no storage: this visit only */ }

function keep() {
  try { localStorage.setItem(data.key, JSON.stringify(votes)); } catch (error) { /* this visit only */ }
}
function vote(choice) {
  if (votes.length < data.pairs.length) { votes.push(choice); keep(); show(); }
}
function back() {
  if (votes.length) { votes.pop(); keep(); show(); }
}
function preferences() {
  const rows = [];
  votes.forEach((choice, number) => {
    if (choice === "tie") return;
    const [at, left, right] = data.pairs[number];
    const [better, worse] = choice === "a" ? [left, right] : [right, left];
    const said = (model) => [{role: "assistant", content: data.prompts[at].answers[model]}];
    rows.push({prompt: data.prompts[at].messages, chosen: said(better), rejected: said(worse),
               chosen_model: data.models[better], rejected_model: data.models[worse]});
  });
  return rows;
}
function download() {
  const text = preferences().map((row) => JSON.stringify(row) + "\\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
  link.download = "preferences.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
}
function result() {
  const tally = data.models.map(() => ({better: 0, worse: 0, equal: 0}));
  votes.forEach((choice, number) => {
    const [, left, right] = data.pairs[number];
    const words = {a: ["better", "worse"], b: ["worse", "better"], tie: ["equal", "equal"]}[choice];
    tally[left][words[0]] += 1;
    tally[right][words[1]] += 1;
  });
  const table = document.createElement("table");
  const add = (cells, kind) => {
    const row = table.insertRow();
    for (const cell of cells) {
      const place = document.createElement(kind);
      place.textContent = cell;
      row.append(place);
    }
  };
  add(["model", "better", "no difference", "worse"], "th");
  data.models.forEach((name, at) => add([name, tally[at].better, tally[at].equal, tally[at].worse], "td"));
  element("result").replaceChildren(table);
}
function show() {
  const finished = votes.length >= data.pairs.length;
  element("progress").max = Math.max(1, data.pairs.length);
  element("progress").value = votes.length;
  element("count").textContent = `${votes.length} of ${data.pairs.length}`;
  const rows = preferences().length;
  element("download").disabled = !rows;
  element("kept").textContent = votes.length ? `${rows} preferences; ${votes.length - rows} without a difference ` +
    "are not in the file" : "";
  element("back").disabled = !votes.length;
  element("vote").hidden = finished;
  element("done").hidden = !finished;
  if (finished) { result(); return; }
  const [at, left, right] = data.pairs[votes.length];
  const messages = data.prompts[at].messages;
  const system = messages.filter((message) => message.role === "system").map((message) => message.content);
  const others = messages.filter((message) => message.role !== "system");
  element("system-box").hidden = !system.length;
  element("system").textContent = system.join("\\n");
  element("prompt").textContent = others.length === 1 ? others[0].content
    : others.map((message) => `${message.role}: ${message.content}`).join("\\n\\n");
  element("a").textContent = data.prompts[at].answers[left] || "(empty)";
  element("b").textContent = data.prompts[at].answers[right] || "(empty)";
}
element("vote-a").onclick = () => vote("a");
element("vote-b").onclick = () => vote("b");
element("vote-tie").onclick = () => vote("tie");
element("back").onclick = back;
element("download").onclick = download;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = {"1": () => vote("a"), "2": () => vote("tie"), "3": () => vote("b"), "Backspace": back}[event.key];
  if (action) { event.preventDefault(); action(); }
});
show();
"""
