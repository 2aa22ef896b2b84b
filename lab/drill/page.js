"use strict";
// Every text stands in the page twice; the language of <html> decides which of the two is shown.
(() => {
  const root = document.documentElement;
  const speak = (language) => {
    root.lang = language;
    document.title = root.dataset[language];
    document.querySelectorAll("[data-speak]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.speak === language));
    });
    // An image is named by its first title and described by its first desc.
    document.querySelectorAll("svg.timeline").forEach((image) => {
      image.querySelectorAll(`desc[lang=${language}], title[lang=${language}]`).forEach((words) => image.prepend(words));
    });
  };
  root.classList.add("scripted");
  const preferred = (navigator.language || "en").toLowerCase().startsWith("ko") ? "ko" : "en";
  root.lang = preferred;
  document.addEventListener("DOMContentLoaded", () => {
    speak(preferred);
    document.querySelectorAll("[data-speak]").forEach((button) => {
      button.addEventListener("click", () => speak(button.dataset.speak));
    });
  });
})();
