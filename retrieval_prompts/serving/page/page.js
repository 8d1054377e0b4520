// Asks /prompts and /search of the server that the page came from. Whatever a server says becomes text, never markup.
"use strict";

const at = (id) => document.getElementById(id);
const made = (kind, name, text) => {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
const FROZEN = "frozen";
let token = "", prompts = new Map(), frozen = true, asked = 0, stop = null;
let turned = {}; // what sliders were moved to: without, a search has what the prompt has, which a slider would round

function say(text, wrong) {
  at("said").textContent = text;
  at("said").className = wrong ? "wrong" : "";
}

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body), signal };
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (answer.status === 401) {
    at("locked").hidden = false;
    at("token").focus();
  }
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

async function start() {
  try {
    const found = await ask("prompts");
    at("locked").hidden = true;
    say("");
    frozen = found.frozen;
    prompts = new Map(found.prompts.map((each) => [each.name, each]));
    const names = [...prompts.keys(), ...(frozen ? [FROZEN] : [])];
    const before = at("prompt").value;
    at("prompt").replaceChildren(...names.map((name) => {
      const option = made("option", "", name === FROZEN ? "none (frozen model)" : name);
      option.value = name;
      return option;
    }));
    if (names.includes(before)) at("prompt").value = before;
    at("facts").textContent = `${found.documents.toLocaleString("en")} documents, ${found.model}`;
    at("words").hidden = !found.words;
    choose();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

function choose() {
  const chosen = prompts.get(at("prompt").value);
  at("strength").disabled = !chosen || chosen.sides.includes("document");
  delete turned.strength;
  numbers();
}

function numbers() {
  const chosen = prompts.get(at("prompt").value);
  const values = { strength: chosen?.strength ?? 0, weight: chosen?.bm25_weight ?? 0.75, ...turned };
  for (const [name, value] of Object.entries(values)) {
    at(name).value = value;
    at(`${name}-value`).textContent = value.toFixed(2);
    at(name).setAttribute("aria-valuetext", value.toFixed(2));
  }
}

async function search() {
  const query = at("query").value;
  if (!query.trim() || !prompts.size && !frozen) return;
  const number = ++asked;
  if (stop) stop.abort();
  stop = new AbortController();
  const name = at("prompt").value, body = { query, k: Number(at("k").value), text: true };
  if (name !== FROZEN) {
    body.prompt = name;
    body.frozen = frozen;
    body.strength = turned.strength;
  }
  body.bm25_weight = turned.weight;
  try {
    const found = await ask("search", body, stop.signal);
    if (number === asked) show(found, name);
  } catch (error) {
    if (number === asked && error.name !== "AbortError") say(error.message, true);
  }
}

function show(found, name) {
  const both = found.frozen !== undefined;
  const before = new Map((found.frozen ?? []).map((hit, place) => [hit.id, place]));
  const after = new Map(found.hits.map((hit, place) => [hit.id, place]));
  at("found").hidden = false;
  at("found").className = both ? "" : "alone";
  at("frozen-side").hidden = !both;
  at("chosen-name").textContent = name === FROZEN ? "Frozen model" : `Prompt ${name}`;
  at("chosen").replaceChildren(...found.hits.map((hit, place) => card(hit, place, both ? moved(before, hit.id, place) : null)));
  at("frozen").replaceChildren(...(found.frozen ?? []).map((hit, place) => card(hit, place, after.has(hit.id) ? null : "lost")));
  if (!found.hits.length) return say("Nothing was found.");
  const other = found.hits.filter((hit, place) => before.get(hit.id) !== place).length;
  const fresh = found.hits.filter((hit) => !before.has(hit.id)).length;
  say(both ? `${other} of ${found.hits.length} places differ from the frozen model's, ${fresh} of them new.` : `${found.hits.length} documents.`);
}

function moved(before, id, place) {
  return before.has(id) ? before.get(id) - place : "new";
}

function card(hit, place, change) {
  const item = made("li", typeof change === "string" ? change : ""), head = made("div", "head");
  head.append(made("span", "rank", `${place + 1}.`), made("span", "", hit.score.toFixed(3)));
  if (change === "new") head.append(made("span", "moved up", "new"));
  else if (change === "lost") head.append(made("span", "moved down", "gone with the prompt"));
  else if (change !== null) {
    const sign = made("span", change > 0 ? "moved up" : change < 0 ? "moved down" : "moved", change ? `${change > 0 ? "▲" : "▼"} ${Math.abs(change)}` : "=");
    sign.setAttribute("aria-label", change ? `${change > 0 ? "up" : "down"} ${Math.abs(change)}` : "same place");
    sign.setAttribute("role", "img");
    head.append(sign);
  }
  head.append(made("span", "id", hit.id));
  item.append(head, made("h3", "", hit.title || hit.id));
  if (hit.text) {
    const details = made("details");
    details.append(made("summary", "", "Text"), made("p", "", hit.text));
    item.append(details);
  }
  return item;
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!at("locked").hidden) token = at("token").value;
  if ((!at("locked").hidden || !at("prompt").options.length) && !await start()) return;
  search();
});
at("prompt").addEventListener("change", () => { choose(); search(); });
for (const name of ["strength", "weight"]) {
  let later = 0;
  at(name).addEventListener("input", () => {
    turned[name] = Number(at(name).value);
    numbers();
    clearTimeout(later);
    later = setTimeout(search, 120);
  });
}
at("k").addEventListener("change", search);
start();
