"use strict";
(() => {
  const slides = [...document.querySelectorAll("section.slide")];
  const root = document.documentElement;
  root.classList.add("quiet");
  const here = () => {
    const middle = innerHeight / 2;
    return Math.max(0, slides.findIndex((slide) => slide.getBoundingClientRect().bottom > middle));
  };
  const go = (to) => slides[Math.min(slides.length - 1, Math.max(0, to))].scrollIntoView();
  const keys = {
    ArrowRight: () => go(here() + 1), ArrowDown: () => go(here() + 1), PageDown: () => go(here() + 1), " ": () => go(here() + 1),
    ArrowLeft: () => go(here() - 1), ArrowUp: () => go(here() - 1), PageUp: () => go(here() - 1),
    Home: () => go(0), End: () => go(slides.length - 1), n: () => root.classList.toggle("quiet"),
  };
  addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.altKey || event.metaKey ? undefined : keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
})();
