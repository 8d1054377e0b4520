"use strict";
// Sorting, searching and rankings for the report. All texts enter the page as text nodes, never as HTML.
(() => {
  const PAGE = 25, COLUMNS = 1200;
  const alphabet = new Intl.Collator("en", { numeric: true });
  const root = document.documentElement;
  root.classList.add("js");
  theme(remembered());

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector(".theme").addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      theme(dark ? "light" : "dark");
      try { localStorage.setItem("retrieval-prompts-theme", root.dataset.theme); } catch { /* the choice is not kept */ }
    });
    for (const hint of document.querySelectorAll(".aside")) watchWidth(hint, hint.nextElementSibling);
    const viewer = makeViewer(document.querySelector("dialog"));
    const lists = {};
    for (const element of document.querySelectorAll(".queries")) {
      const list = makeList(element, viewer);
      lists[list.key] = list;
    }
    // An address such as report.html#s1/q/42 opens query 42 of the first section
    const [key, , id] = location.hash.slice(1).split("/");
    if (id && lists[key]) lists[key].openId(id);
  });

  function theme(name) {
    if (name === "dark" || name === "light") root.dataset.theme = name;
  }

  function remembered() {
    try { return localStorage.getItem("retrieval-prompts-theme"); } catch { return null; }
  }

  // Says that a table has columns which are not in sight, as long as there are some
  function watchWidth(hint, table) {
    const look = () => {
      hint.classList.toggle("on", table.scrollWidth > table.clientWidth + 1);
      table.classList.toggle("more", table.scrollLeft + table.clientWidth < table.scrollWidth - 1);
    };
    new ResizeObserver(look).observe(table);
    table.addEventListener("scroll", look, { passive: true });
  }

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function draw(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function points(value, signed) {
    if (value === null || value === undefined) return "–";
    const text = (100 * Math.abs(value)).toFixed(1);
    if (text === "0.0") return text;
    return (value < 0 ? "−" : signed ? "+" : "") + text;
  }

  function capital(text) { return text.charAt(0).toUpperCase() + text.slice(1); }

  function number(value) { return value.toLocaleString("en-US"); }

  function direction(change) { return change > 0 ? "up" : change < 0 ? "down" : "same"; }

  function image(address, width, height, alt = "") {
    const picture = make("img");
    Object.assign(picture, { src: address, width, height, alt });
    return picture;
  }

  function option(value, text) {
    const element = make("option", "", text);
    element.value = value;
    return element;
  }

  // The list of one section's queries
  function makeList(element, viewer) {
    const data = JSON.parse(element.querySelector("script[type='application/json']").textContent);
    const find = (selector) => element.querySelector(selector);
    const key = element.id.replace(/-queries$/, "");
    const column = new Map(data.systems.map(([name], index) => [name, index]));
    const label = new Map(data.systems);
    const words = data.queries.map((query) => `${query[0]} ${query[1]}`.toLowerCase());
    const paired = Boolean(find(".pair"));
    const body = find("tbody"), head = find("thead tr"), cursor = find(".cursor");
    let baseline = data.baseline, system = data.system, sort = paired ? "size" : "text", order = paired ? -1 : 1;
    let rows = [], page = 0, changes = [], sorted = [];

    const score = (query, name) => query[2][column.get(name)];

    function pairChosen() {
      changes = data.queries.map((query) => (score(query, system) ?? 0) - (score(query, baseline) ?? 0));
      sorted = data.queries.map((_, index) => index).sort((a, b) => changes[b] - changes[a] || a - b);
      if (find(".distribution")) drawDistribution();
      fillSorting();
      filter();
    }

    function drawDistribution() {
      const shown = Math.min(COLUMNS, sorted.length);
      let above = "", below = "";
      for (let start = 0, end; start < shown; start = end) {
        const value = changes[sorted[Math.floor((start * sorted.length) / shown)]];
        end = start + 1;
        while (end < shown && changes[sorted[Math.floor((end * sorted.length) / shown)]] === value) end += 1;
        const bar = `M${((1000 * start) / shown).toFixed(2)} 100V${(100 - 100 * value).toFixed(1)}`
          + `H${((1000 * end) / shown).toFixed(2)}V100Z`;
        if (value > 0) above += bar;
        if (value < 0) below += bar;
      }
      find(".above").setAttribute("d", above);
      find(".below").setAttribute("d", below);
      const helped = changes.filter((change) => change > 0).length;
      const hurt = changes.filter((change) => change < 0).length;
      const same = changes.length - helped - hurt;
      find(".helped").textContent = number(helped);
      find(".hurt").textContent = number(hurt);
      find(".same").textContent = number(same);
      find(".names").textContent = `${label.get(system)} against ${label.get(baseline)}`;
      find(".drawing svg").setAttribute("aria-label", `${helped} ${data.unit[1]} helped, ${same} unchanged, ${hurt} hurt`);
    }

    function fillSorting() {
      const select = find(".sorting");
      const options = [["text:1", "text"]];
      if (paired) options.unshift(["size:-1", "size of the change"], ["change:-1", "most helped"], ["change:1", "most hurt"]);
      data.systems.forEach(([, name], index) => {
        options.push([`${index}:-1`, `${name}, highest first`], [`${index}:1`, `${name}, lowest first`]);
      });
      options.push(["text:-1", "text, backwards"], ["size:1", "smallest change"]);
      select.replaceChildren(...options.filter(([value]) => paired || !value.startsWith("size")).map((each) => option(...each)));
      select.value = `${sort}:${order}`;
    }

    function filter() {
      const wanted = find(".search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const show = find(".show")?.value ?? "all";
      const least = Math.min(100, Math.max(0, Number(find(".least")?.value) || 0)) / 100;
      rows = [];
      for (let index = 0; index < data.queries.length; index += 1) {
        const change = changes[index];
        if (show === "helped" && !(change > 0)) continue;
        if (show === "hurt" && !(change < 0)) continue;
        if (show === "same" && change !== 0) continue;
        if (Math.abs(change) < least - 1e-9) continue;
        if (wanted.every((word) => words[index].includes(word))) rows.push(index);
      }
      const value = {
        size: (index) => Math.abs(changes[index]),
        change: (index) => changes[index],
      }[sort] ?? ((index) => data.queries[index][2][Number(sort)] ?? -1);
      const compare = sort === "text"
        ? (a, b) => alphabet.compare(data.queries[a][1], data.queries[b][1])
        : (a, b) => value(a) - value(b);
      rows.sort((a, b) => order * compare(a, b) || a - b);
      page = 0;
      const of = rows.length === data.queries.length ? "" : ` of ${number(data.queries.length)}`;
      find(".found").textContent = `${number(rows.length)}${of} ${data.unit[data.queries.length === 1 ? 0 : 1]}`;
      turnTo();
    }

    function turnTo() {
      const names = paired ? [baseline, system] : [];
      names.push(...data.systems.map(([name]) => name).filter((name) => !names.includes(name)));
      const header = (text, by, className = "") => {
        const button = make("button", "sort", text);
        button.type = "button";
        button.dataset.by = by;
        const cell = make("th", className, button);
        cell.scope = "col";
        if (by === sort || (by === "change" && sort === "size")) {
          cell.setAttribute("aria-sort", sort === "size" ? "other" : order > 0 ? "ascending" : "descending");
        }
        return cell;
      };
      // Narrow screens leave these columns out, but not the one that the list is sorted by
      const rank = (name) => !paired || String(column.get(name)) === sort ? "" : name === baseline || name === system ? "own" : "extra";
      head.replaceChildren(
        header(capital(data.unit[0]), "text"),
        ...(paired ? [header("Change", "change")] : []),
        ...names.map((name) => header(label.get(name), String(column.get(name)), rank(name))),
      );
      const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
      body.replaceChildren(...shown.map((index, place) => {
        const query = data.queries[index];
        const button = make("button", "open", query[5] ? image(query[5], 56, 42) : null, make("span", "", query[1] || query[0]));
        button.type = "button";
        if (query[1] && query[1] !== query[0]) button.title = query[0];
        button.tabIndex = place ? -1 : 0;
        button.dataset.place = page * PAGE + place;
        const row = make("tr", "", make("td", "text", button));
        if (paired) row.append(make("td", `delta ${direction(changes[index])}`, bar(changes[index]), make("span", "", points(changes[index], true))));
        row.append(...names.map((name) => make("td", rank(name), points(score(query, name)))));
        return row;
      }));
      if (!shown.length) {
        const cell = make("td", "none", `No ${data.unit[0]} fits.`);
        cell.colSpan = 9;
        body.append(make("tr", "", cell));
      }
      const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
      find(".place").textContent = rows.length ? `${number(page * PAGE + 1)}–${number(Math.min(rows.length, (page + 1) * PAGE))} of ${number(rows.length)}` : "";
      find(".back").disabled = page === 0;
      find(".on").disabled = page >= last;
    }

    function bar(change) {
      if (!change) return null;
      const size = 50 * Math.min(1, Math.abs(change));
      return draw("svg", { class: "change", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        draw("path", { class: "zero", d: "M50 0V10" }),
        draw("rect", { class: direction(change), x: change > 0 ? 50 : 50 - size, y: 1.5, width: size, height: 7 }));
    }

    // Focus the query at a place of the list, turning to its page
    function focus(place) {
      if (place < 0 || place >= rows.length) return;
      if (Math.floor(place / PAGE) !== page) {
        page = Math.floor(place / PAGE);
        turnTo();
      }
      for (const button of body.querySelectorAll(".open")) {
        const here = Number(button.dataset.place) === place;
        button.tabIndex = here ? 0 : -1;
        if (here) button.focus();
      }
    }

    function open(indices, place, from) {
      viewer({ key, data, column, label, baseline, system, paired, changes }, indices, place, (left) => {
        if (from === "list") focus(rows.indexOf(indices[left]));
      });
    }

    function turn(step) {
      page += step;
      turnTo();
      element.querySelector(".list").scrollIntoView({ block: "nearest" });
    }

    if (paired) {
      for (const [select, value] of [[find(".system"), system], [find(".baseline"), baseline]]) {
        select.append(...data.systems.map((each) => option(...each)));
        select.value = value;
        select.addEventListener("change", () => {
          [system, baseline] = [find(".system").value, find(".baseline").value];
          pairChosen();
        });
      }
    }
    for (const form of element.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
    for (const control of element.querySelectorAll(".search, .least")) control.addEventListener("input", filter);
    find(".show")?.addEventListener("change", filter);
    find(".sorting").addEventListener("change", (event) => {
      const [by, way] = event.target.value.split(":");
      [sort, order] = [by, Number(way)];
      filter();
    });
    head.addEventListener("click", (event) => {
      const by = event.target.closest("button")?.dataset.by;
      if (!by) return;
      [sort, order] = [by, by === sort ? -order : by === "text" ? 1 : -1];
      find(".sorting").value = `${sort}:${order}`;
      filter();
      head.querySelector(`[data-by="${by}"]`).focus();
    });
    body.addEventListener("click", (event) => {
      const button = event.target.closest("tr")?.querySelector(".open");
      if (button) open(rows, Number(button.dataset.place), "list");
    });
    body.addEventListener("keydown", (event) => {
      const place = Number(event.target.dataset.place);
      const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: rows.length - 1, PageDown: Math.min(place + PAGE, rows.length - 1), PageUp: Math.max(0, place - PAGE) }[event.key];
      if (next === undefined || Number.isNaN(place)) return;
      event.preventDefault();
      focus(next);
    });
    find(".back").addEventListener("click", () => turn(-1));
    find(".on").addEventListener("click", () => turn(1));

    const picture = find(".drawing svg");
    if (picture) {
      const at = (event) => {
        const box = picture.getBoundingClientRect();
        const place = Math.floor(((event.clientX - box.left) / box.width) * sorted.length);
        return Math.min(sorted.length - 1, Math.max(0, place));
      };
      const saying = find(".under-cursor"), silent = saying.textContent;
      picture.addEventListener("pointermove", (event) => {
        const place = at(event), index = sorted[place];
        const x = (1000 * (place + 0.5)) / sorted.length;
        cursor.setAttribute("d", `M${x} 0V200`);
        saying.replaceChildren(make("b", direction(changes[index]), points(changes[index], true)), ` ${data.queries[index][1] || data.queries[index][0]}`);
      });
      picture.addEventListener("pointerleave", () => {
        cursor.setAttribute("d", "");
        saying.textContent = silent;
      });
      picture.addEventListener("click", (event) => open(sorted, at(event), "picture"));
    }
    pairChosen();
    return {
      key,
      openId(id) {
        const place = rows.findIndex((index) => encodeURIComponent(data.queries[index][0]) === id);
        if (place >= 0) open(rows, place, "list");
      },
    };
  }

  // The dialog: one query, its rankings side by side
  function makeViewer(dialog) {
    const find = (selector) => dialog.querySelector(selector);
    let list = null, indices = [], place = 0, closed = null, chosen = {};

    function show() {
      const { data, changes, baseline, system, paired, key } = list;
      const query = data.queries[indices[place]], change = changes[indices[place]];
      const [id, text, scores, relevant, rankings, picture] = query;
      find(".position").textContent = `${capital(data.unit[0])} ${number(place + 1)} of ${number(indices.length)}`;
      find(".earlier").disabled = place === 0;
      find(".later").disabled = place === indices.length - 1;
      find("h2").textContent = text || id;
      find(".asked img")?.remove();
      if (picture) find(".asked").prepend(image(picture, 160, 120, `The ${data.unit[0]}`));
      find(".asked .under").replaceChildren(
        ...(paired ? [make("b", direction(change), points(change, true)), ` points of ${data.metric}, ${list.label.get(system)} against ${list.label.get(baseline)} · `] : []),
        `id ${id}`,
      );
      const names = data.systems.map(([name]) => name);
      const first = [...new Set([baseline, system, ...(names.includes("bm25") ? ["bm25"] : [])])];
      chosen[key] ??= new Set(first);
      if (paired) for (const name of [baseline, system]) chosen[key].add(name);
      find("fieldset").replaceChildren(find("legend"), ...data.systems.map(([name, title], index) => {
        const box = make("input");
        Object.assign(box, { type: "checkbox", checked: chosen[key].has(name) });
        box.addEventListener("change", () => {
          chosen[key][box.checked ? "add" : "delete"](name);
          columns();
        });
        return make("label", "", box, `${title} `, make("b", "", points(scores[index])));
      }));
      find(".relevant").replaceChildren(...(relevant ? [relevantTable(data, relevant)] : []));
      find(".reading").hidden = !rankings;
      find(".reading .note").textContent = paired ? `▲ ▼ places moved against ${list.label.get(baseline)}; new: not among its first 10` : "";
      columns();
      find(".inside").scrollTop = 0;
      try { history.replaceState(null, "", `#${key}/q/${encodeURIComponent(id)}`); } catch { /* the address stays */ }
    }

    function relevantTable(data, relevant) {
      const shown = relevant.filter((each) => each[2]).slice(0, 5);
      const table = make("table", "numbers",
        make("thead", "", make("tr", "", make("th", "", relevant.length === 1 ? "The relevant document" : "Relevant documents"), ...data.systems.map(([, title]) => make("th", "", title)))),
        make("tbody", "", ...shown.map(([document_, , ranks]) => {
          const [id, title, text, picture] = data.documents[document_];
          return make("tr", "", make("th", "", picture ? image(picture, 56, 42) : null, make("span", "", title || text || id)), ...ranks.map((rank) => make("td", rank === null ? "" : "ranked", rank === null ? "–" : String(rank))));
        })));
      const more = relevant.length - shown.length;
      const wide = make("div", "wide", table, more > 0 ? make("p", "note", `and ${more} more`) : null);
      table.prepend(make("caption", "", make("span", "", "Where they stand in each ranking")));
      return wide;
    }

    function columns() {
      const { data, column, label, baseline, system, key } = list;
      const [, , scores, relevant, rankings] = data.queries[indices[place]];
      if (!rankings) {
        find(".rankings").replaceChildren(make("p", "note", `The ranking of this ${data.unit[0]} is not kept: the page holds those of the ${data.unit[1]} with the largest changes.`));
        return;
      }
      const grades = new Map(relevant.map(([document_, grade]) => [document_, grade]));
      const order = [baseline, system, ...data.systems.map(([name]) => name)].filter((name, at, all) => all.indexOf(name) === at && chosen[key].has(name));
      const before = new Map((rankings[column.get(baseline)] ?? []).map(([document_], rank) => [document_, rank]));
      find(".rankings").replaceChildren(...order.map((name) => {
        const hits = rankings[column.get(name)];
        const heading = make("h3", "", `${label.get(name)} `, make("b", "", points(scores[column.get(name)])));
        const items = (hits ?? []).map(([document_, score], rank) =>
          hit(data.documents[document_], score, rank, grades.get(document_), name === baseline ? null : before.has(document_) ? before.get(document_) - rank : "new", document_));
        const pictures = items.length && hits.every(([document_]) => data.documents[document_][3]) ? "pictures" : "";
        return make("section", "", heading, items.length ? make("ol", pictures, ...items) : make("p", "note", hits ? "Nothing was found." : "No ranking is kept of this system."));
      }));
    }

    function hit([id, title, text, picture], score, rank, grade, move, document_) {
      const marks = make("p", "marks");
      if (grade) marks.append(make("span", "mark", grade > 1 ? `✓ relevant, grade ${grade}` : "✓ relevant"));
      if (move === "new") marks.append(make("span", "move", "new"));
      else if (move) marks.append(make("span", `move ${move > 0 ? "up" : "down"}`, move > 0 ? `▲ ${move}` : `▼ ${-move}`));
      const [main, rest] = title ? [title, text] : text ? [text, ""] : [id, ""];
      const item = make("li", grade ? "hit good" : "hit",
        make("span", "rank", String(rank + 1)),
        make("div", "", marks.childNodes.length ? marks : null, picture ? image(picture, 160, 120, main) : null,
          make("p", title ? "title" : "text", main), rest ? make("p", "text", rest) : null, make("p", "id", [main === id ? "" : id, score ?? ""].filter((each) => each !== "").join(" · "))));
      item.dataset.document = document_;
      return item;
    }

    function move(step) {
      if (place + step < 0 || place + step >= indices.length) return;
      place += step;
      show();
    }

    dialog.addEventListener("keydown", (event) => {
      if (event.target.closest("input[type='search'], select") || event.altKey || event.ctrlKey || event.metaKey) return;
      const scrolled = event.target.closest(".rankings");
      if (scrolled && scrolled.scrollWidth > scrolled.clientWidth) return;
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        event.preventDefault();
        move(event.key === "ArrowLeft" ? -1 : 1);
      }
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("close", () => {
      try { history.replaceState(null, "", `#${list.key}-queries`); } catch { /* the address stays */ }
      closed?.(place);
    });
    find(".close").addEventListener("click", () => dialog.close());
    find(".earlier").addEventListener("click", () => move(-1));
    find(".later").addEventListener("click", () => move(1));
    find(".whole input").addEventListener("change", (event) => dialog.classList.toggle("unfolded", event.target.checked));
    const light = (event) => {
      const here = event.target.closest?.(".hit")?.dataset.document;
      for (const item of dialog.querySelectorAll(".hit")) item.classList.toggle("lit", item.dataset.document === here);
    };
    find(".rankings").addEventListener("pointerover", light);
    find(".rankings").addEventListener("pointerleave", light);

    return (from, order, at, done) => {
      [list, indices, place, closed] = [from, order, at, done];
      show();
      dialog.showModal();
      find(".close").focus({ preventScroll: true });
    };
  }
})();
