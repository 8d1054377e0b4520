// Pictures: words or a picture to /search, a picture with classes to /classify; frozen model and prompt side by side.
"use strict";

let upload = null; // the picture's file in base64
const classes = () => at("classes").value.split(",").map((name) => name.trim()).filter((name) => name);

begin({
  facts: (found) => `${found.pictures.toLocaleString("en")} pictures, ${found.model}`,
  choose: (prompt) => {
    at("strength").disabled = !prompt;
    at("classes").placeholder = prompt?.classes.length ? `those of ${prompt.name}, ${prompt.classes.length}` : "pictures like it";
  },
  values: (prompt) => ({ strength: prompt?.strength ?? 0 }),
  question() {
    const k = Number(at("k").value), query = at("query").value;
    if (upload === null) return query.trim() ? { path: "search", body: prompted({ query, k }) } : null;
    const names = classes();
    if (!names.length && !chosen()?.classes.length) return { path: "search", body: { image: upload, k } };
    return { path: "classify", body: prompted({ image: upload, k, ...(names.length ? { classes: names } : {}) }) };
  },
  show(found, name) {
    const named = found.prompt === FROZEN ? "Frozen model" : `Prompt ${name}`;
    for (const list of [at("chosen"), at("frozen")]) list.className = found.hits ? "pictures" : "";
    if (found.hits) return say(sides(found, named, card) ?? `${found.hits.length} pictures.`);
    const likely = (each) => ({ id: each.class, score: each.probability });
    const said = { hits: found.classes.map(likely), frozen: found.frozen?.map(likely) };
    sides(said, named, bar);
    const best = said.hits[0];
    say(`${best.id}, ${percent(best.score)}${said.frozen ? `; the frozen model says ${said.frozen[0].id}, ${percent(said.frozen[0].score)}` : ""}.`);
  },
});

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function card(hit, place, change) {
  const item = listed(hit, place, change), shown = made("div", "shown");
  if (hit.picture) picture(shown, hit);
  else shown.textContent = "not shown";
  item.prepend(shown);
  item.append(made("h3", "", hit.title || hit.id));
  if (hit.text) item.append(made("p", "", hit.text));
  item.title = hit.id;
  return item;
}

function bar(hit, place, change) {
  const item = listed(hit, place, change), meter = made("meter");
  item.querySelector(".head").children[1].textContent = percent(hit.score);
  meter.value = hit.score;
  meter.setAttribute("aria-label", `${hit.id}: ${percent(hit.score)}`);
  item.append(meter);
  return item;
}

// A browser sends no token with an image of a page, so with one the picture is asked for as everything else is
async function picture(place, hit) {
  const image = made("img"), missing = () => { place.textContent = "not shown"; };
  image.alt = hit.text || hit.title || hit.id;
  image.loading = "lazy";
  image.addEventListener("error", missing);
  place.append(image);
  if (!token) {
    image.src = hit.picture;
    return;
  }
  try {
    const answer = await fetch(hit.picture, { headers: bearer() });
    if (answer.ok) image.src = await address(await answer.blob());
    else missing();
  } catch {
    missing();
  }
}

function address(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(blob);
  });
}

// A picture as a data address takes the place of the words; null: there is none any more
function give(read) {
  upload = read && read.slice(read.indexOf(",") + 1);
  at("given").hidden = at("naming").hidden = upload === null;
  if (read?.startsWith("data:image/")) at("preview").src = read;
  else at("preview").removeAttribute("src");
  if (upload === null) at("upload").value = "";
  else at("query").value = "";
}

at("upload").addEventListener("change", async () => {
  const file = at("upload").files[0];
  give(file ? await address(file) : null);
  search();
});
at("drop").addEventListener("click", () => { give(null); at("query").focus(); });
at("query").addEventListener("input", () => { if (upload !== null) give(null); });
at("classes").addEventListener("change", search);
