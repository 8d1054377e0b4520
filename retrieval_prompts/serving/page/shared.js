// What the pages of servers share: asking, prompts, sliders, what moved. Whatever a server says becomes text, never markup.
// page.js says what is asked and how it is shown: begin({facts, choose, values, question, show}).
"use strict";

const at = (id) => document.getElementById(id);
const made = (kind, name, text) => {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
const FROZEN = "frozen";
let page, token = "", prompts = new Map(), frozen = true, asked = 0, stop = null;
let turned = {}; // what sliders were moved to: without, a search has what the prompt has, which a slider would round

function say(text, wrong) {
  at("said").textContent = text;
  at("said").className = wrong ? "wrong" : "";
}

const bearer = () => token ? { Authorization: `Bearer ${token}` } : {};

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json", ...bearer() };
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
    at("facts").textContent = page.facts(found);
    choose();
    return true;
  } catch (error) {
    say(error.message, true);
    return false;
  }
}

const chosen = () => prompts.get(at("prompt").value);

function choose() {
  page.choose(chosen());
  delete turned.strength;
  numbers();
}

function numbers() {
  for (const [name, value] of Object.entries({ ...page.values(chosen()), ...turned })) {
    at(name).value = value;
    at(`${name}-value`).textContent = value.toFixed(2);
    at(name).setAttribute("aria-valuetext", value.toFixed(2));
  }
}

// A body with the prompt that is chosen, and the frozen model's answer beside
const prompted = (body) => chosen() ? { ...body, prompt: chosen().name, frozen, strength: turned.strength } : body;

async function search() {
  if (!prompts.size && !frozen) return;
  const name = at("prompt").value, question = page.question();
  if (!question) return;
  const number = ++asked;
  if (stop) stop.abort();
  stop = new AbortController();
  try {
    const found = await ask(question.path, question.body, stop.signal);
    if (number === asked) page.show(found, name);
  } catch (error) {
    if (number === asked && error.name !== "AbortError") say(error.message, true);
  }
}

// The lists of hits, each made by card(hit, place, change); returns what to say
function sides(found, title, card) {
  const both = found.frozen !== undefined;
  const before = new Map((found.frozen ?? []).map((hit, place) => [hit.id, place]));
  const after = new Map(found.hits.map((hit, place) => [hit.id, place]));
  const moved = (id, place) => before.has(id) ? before.get(id) - place : "new";
  at("found").hidden = false;
  at("found").className = both ? "" : "alone";
  at("frozen-side").hidden = !both;
  at("chosen-name").textContent = title;
  at("chosen").replaceChildren(...found.hits.map((hit, place) => card(hit, place, both ? moved(hit.id, place) : null)));
  at("frozen").replaceChildren(...(found.frozen ?? []).map((hit, place) => card(hit, place, after.has(hit.id) ? null : "lost")));
  if (!found.hits.length) return "Nothing was found.";
  const other = found.hits.filter((hit, place) => before.get(hit.id) !== place).length;
  const fresh = found.hits.filter((hit) => !before.has(hit.id)).length;
  return both ? `${other} of ${found.hits.length} places differ from the frozen model's, ${fresh} of them new.` : null;
}

// An item of a list with its line of rank, score, what moved, and id
function listed(hit, place, change) {
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
  item.append(head);
  return item;
}

function begin(own) {
  page = own;
  at("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!at("locked").hidden) token = at("token").value;
    if ((!at("locked").hidden || !at("prompt").options.length) && !await start()) return;
    search();
  });
  at("prompt").addEventListener("change", () => { choose(); search(); });
  for (const slider of document.querySelectorAll("input[type=range]")) {
    let later = 0;
    slider.addEventListener("input", () => {
      turned[slider.id] = Number(slider.value);
      numbers();
      clearTimeout(later);
      later = setTimeout(search, 120);
    });
  }
  at("k").addEventListener("change", search);
  start();
}
