"use strict";
// Every text is in the page twice; the language of <html> decides which of the two is visible.
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
      image.prepend(image.querySelector(`title[lang=${language}]`), image.querySelector(`desc[lang=${language}]`));
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
