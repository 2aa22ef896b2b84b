"use strict";
// One of two ways through is shown; the address says which, before the place in the page: #hand/chapter-3. Nothing is stored.
(() => {
  const root = document.documentElement;
  const ways = ["watch", "hand"];
  const read = () => {
    const [first, ...rest] = location.hash.slice(1).split("/");
    return ways.includes(first) ? [first, rest.join("/")] : [root.dataset.way || ways[0], first];
  };
  const show = (way) => {
    root.dataset.way = way;
    document.querySelectorAll("[data-choose]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.choose === way));
    });
    document.querySelectorAll("a[data-place]").forEach((link) => { link.hash = `${way}/${link.dataset.place}`; });
  };
  const follow = () => {
    const [way, place] = read();
    show(way);
    const target = place && document.getElementById(place);
    if (target) target.scrollIntoView();
  };
  // What is at the top of the screen stays there when content above it is shown or hidden.
  const choose = (way) => {
    const seen = [...document.querySelectorAll("main h2, main h3, main p, main figure")].find(
      (each) => each.offsetParent && each.getBoundingClientRect().bottom > 64 && !each.closest(".way"));
    const before = seen ? seen.getBoundingClientRect().top : 0;
    const [, place] = read();
    show(way);
    history.replaceState(null, "", `#${way}${place ? `/${place}` : ""}`);
    if (seen) window.scrollBy({ top: seen.getBoundingClientRect().top - before, behavior: "instant" });
  };
  const select = (code) => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  // navigator.clipboard is missing where a page came by plain http, and may refuse in a file.
  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return "copied";
    } catch {
      select(code);
      return document.execCommand("copy") ? "copied" : "select";
    }
  };
  root.classList.add("scripted");
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("main a[href^='#'], header a[href^='#'], nav a[href^='#']").forEach((link) => {
      link.dataset.place = link.getAttribute("href").slice(1);
    });
    document.querySelectorAll("[data-choose]").forEach((button) => {
      button.addEventListener("click", () => choose(button.dataset.choose));
    });
    document.querySelectorAll(".copy").forEach((button) => {
      const label = button.textContent;
      button.addEventListener("click", async () => {
        const code = button.closest("figure").querySelector("pre code");
        button.textContent = root.dataset[await copy(code)];
        setTimeout(() => { button.textContent = label; }, 2000);
      });
    });
    addEventListener("hashchange", follow);
    follow();
  });
})();
