// Documents: questions to /search, the hits of the frozen model and of a prompt side by side.
"use strict";

begin({
  facts(found) {
    at("words").hidden = !found.words;
    return `${found.documents.toLocaleString("en")} documents, ${found.model}`;
  },
  choose: (prompt) => { at("strength").disabled = !prompt || prompt.sides.includes("document"); },
  values: (prompt) => ({ strength: prompt?.strength ?? 0, weight: prompt?.bm25_weight ?? 0.75 }),
  question() {
    const query = at("query").value;
    if (!query.trim()) return null;
    return { path: "search", body: prompted({ query, k: Number(at("k").value), text: true, bm25_weight: turned.weight }) };
  },
  show(found, name) {
    const said = sides(found, name === FROZEN ? "Frozen model" : `Prompt ${name}`, card);
    say(said ?? `${found.hits.length} documents.`);
  },
});

function card(hit, place, change) {
  const item = listed(hit, place, change);
  item.append(made("h3", "", hit.title || hit.id));
  if (hit.text) {
    const details = made("details");
    details.append(made("summary", "", "Text"), made("p", "", hit.text));
    item.append(details);
  }
  return item;
}
