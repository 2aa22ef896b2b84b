"use strict";
// Draws each view that the server sends. Every text is put in as text, never as HTML.
(() => {
  const SILENCE = 3000; // milliseconds without a view after which the page says that it hears nothing
  const MARKED = 4000; // milliseconds for which a card that has changed is marked
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  let texts = {};
  let last = 0;
  let complete = false;
  const looks = new Map();
  const drawn = new Map();

  const make = (name, kind, ...inside) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    made.append(...inside);
    return made;
  };
  // A text in both languages, of which the stylesheet shows one.
  const both = (said) => {
    const made = make("span", "");
    for (const language of ["en", "ko"]) {
      const one = make("span", "t", said[language]);
      one.lang = language;
      made.append(one);
    }
    return made;
  };
  const word = (name) => both(texts[name]);
  const tag = (kind, ...inside) => make("li", `tag ${kind}`, ...inside);

  const speak = (language) => {
    root.lang = language;
    document.title = root.dataset[language];
    document.querySelectorAll("[data-speak]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.speak === language));
    });
  };

  const servers = (machine) => {
    const head = make("tr", "");
    for (const name of ["server", "state", "open", "sessions"]) {
      const cell = make("th", name === "state" ? "state" : "", word(name));
      cell.scope = "col";
      head.append(cell);
    }
    const rows = machine.servers.map((server) => make("tr", server.up ? "up" : "down",
      make("td", "", server.name), make("td", "state", server.status),
      make("td", "", server.open.toLocaleString("en")), make("td", "", server.sessions.toLocaleString("en"))));
    return make("table", "dated", make("thead", "", head), make("tbody", "", ...rows));
  };

  const tags = (machine) => {
    const made = [];
    if (machine.holds) made.push(tag("held", word("has_address")));
    if (machine.leads) made.push(tag("held", word("leads")));
    if (machine.node) made.push(machine.node.ready ? tag("up", word("ready")) : tag("down", word("not_ready")));
    for (const lease of machine.leases) made.push(tag("", lease.replace("kube-", "")));
    return make("ul", "tags", ...made);
  };

  const member = (found) => make("p", "figures dated",
    make("span", "", word("term"), " ", make("b", "", String(found.term))),
    make("span", "", word("index"), " ", make("b", "", found.index.toLocaleString("en"))));

  const silence = (heard) => {
    if (!heard || !(heard.stale || heard.age)) return [];
    if (!heard.stale) return [make("p", "late", word("late"), ` ${heard.age}`)];
    const said = heard.age === null ? [word("no_answer")]
      : [word("stale"), ` ${Math.round(heard.age)} `, word("seconds")];
    return [make("p", "silent", ...said), ...(heard.problem ? [make("p", "why", heard.problem)] : [])];
  };

  // Whether something differs from what was drawn under that name. An age counts in whole seconds, once it is shown.
  const differs = (name, said) => {
    const text = JSON.stringify(said, (key, value) => (key === "age" && value !== null ? Math.round(value) : value));
    const same = drawn.get(name) === text;
    drawn.set(name, text);
    return !same;
  };

  const draw = (machine) => {
    if (machine.heard && !machine.heard.stale) machine.heard.age = Math.floor(machine.heard.age);
    if (!differs(machine.name, machine)) return;
    const card = document.querySelector(`[data-machine="${machine.name}"]`);
    const stale = Boolean(machine.heard && machine.heard.stale);
    const bad = Boolean(machine.node && !machine.node.ready) || Boolean(machine.haproxy)
      || machine.servers.some((server) => !server.up);
    card.classList.toggle("stale", stale);
    card.classList.toggle("bad", bad);
    card.classList.toggle("has", machine.holds || machine.leads);
    card.querySelector(".body").replaceChildren(
      tags(machine),
      ...silence(machine.heard),
      ...(machine.node && machine.node.reason ? [make("p", "why", machine.node.reason)] : []),
      ...(machine.haproxy ? [make("p", "silent", word("haproxy")), make("p", "why", machine.haproxy)] : []),
      ...(machine.member ? [member(machine.member)] : []),
      ...(machine.servers.length ? [servers(machine)] : []));
    mark(card, machine, stale);
  };

  // A card is marked for a while when more of it has changed than figures that always grow.
  const mark = (card, machine, stale) => {
    const look = JSON.stringify([stale, machine.holds, machine.leads, machine.node && machine.node.ready,
      machine.leases, machine.haproxy === "", machine.servers.map((server) => [server.name, server.up])]);
    const before = looks.get(machine.name);
    if (complete && before && before.look !== look) {
      clearTimeout(before.timer);
      card.classList.add("changed");
      looks.set(machine.name, {look, timer: setTimeout(() => card.classList.remove("changed"), MARKED)});
    } else if (!complete || !before) {
      looks.set(machine.name, {look});
    }
  };

  const show = (view) => {
    find("time").textContent = view.time;
    view.machines.forEach(draw);
    complete = view.complete;
    const asked = [view.nodes, view.leases].filter((heard) => heard.stale);
    if (differs("head", [view.holders, view.etcd, view.leader, asked])) head(view, asked);
    if (differs("leases", view.leases.list)) leases(view.leases.list);
    if (differs("changes", view.changes)) changes(view.changes);
  };

  const head = (view, old) => {
    find("holder").replaceChildren(...(view.holders.length
      ? [word("holder"), " ", make("b", view.holders.length > 1 ? "bad" : "", view.holders.join(" + "))]
      : [make("span", "bad", word("no_holder"))]));
    find("etcd").replaceChildren(both(view.etcd));
    find("etcd").classList.toggle("bad", !view.leader);
    find("old").hidden = !old.length;
    find("old-age").textContent = old.length && old[0].age !== null ? String(Math.round(old[0].age)) : "–";
  };

  const leases = (list) => {
    find("leases").replaceChildren(...list.map((lease) => make("tr", "",
      make("td", "", lease.name.replace("kube-", "")), make("td", "", lease.holder),
      make("td", "", `${Math.round(lease.age)} `, word("ago")))));
  };

  const changes = (list) => {
    find("changes").replaceChildren(...(list.length
      ? list.map((change) => make("li", "", make("time", "", change.time), both(change.what)))
      : [make("li", "", word("nothing"))]));
  };

  const link = () => {
    const lost = Date.now() - last > SILENCE;
    document.body.classList.toggle("lost", lost);
    if (differs("link", lost)) find("link").replaceChildren(word(lost ? "lost" : "live"));
  };

  root.classList.add("scripted");
  const preferred = (navigator.language || "en").toLowerCase().startsWith("ko") ? "ko" : "en";
  root.lang = preferred;
  document.addEventListener("DOMContentLoaded", () => {
    texts = JSON.parse(document.body.dataset.texts);
    speak(preferred);
    document.querySelectorAll("[data-speak]").forEach((button) => {
      button.addEventListener("click", () => speak(button.dataset.speak));
    });
    // The browser connects again by itself when the stream has ended.
    new EventSource("events").addEventListener("message", (event) => {
      last = Date.now();
      show(JSON.parse(event.data));
      link();
    });
    setInterval(link, 500);
  });
})();
