// Parts of a page that refresh themselves: the page is asked again with ?fragment, and what has changed is put in place.
// Without this script they show how it was when the page was loaded.
"use strict";

function refreshParts(root) {
  const parts = root.querySelector("[data-live-parts]");
  const status = root.querySelector("[data-live-status]");
  const pause = root.querySelector("[data-live-pause]");
  const pauseText = pause.textContent;
  let timer = 0;
  let asking = false;
  let paused = false;
  let trouble = "";
  let said = saying();
  const wholeEvery = Number(root.dataset.liveWhole || 1); // between two whole answers come those of the recent parts
  let count = 1;

  function saying() {
    return parts.querySelector("[data-live-say]")?.dataset.liveSay;
  }

  function isOver() { // nothing will change here
    return parts.querySelector("[data-live-over]") !== null;
  }

  function tell(kind) {
    if (kind === trouble) return; // a screen reader hears of it once
    status.classList.remove("visually-hidden");
    status.textContent = kind ? status.dataset[kind] : status.dataset.back;
    root.classList.toggle("sticky-stale", Boolean(kind));
    trouble = kind;
  }

  async function ask() {
    const url = new URL(location.href);
    const mark = parts.querySelector("[data-live-mark]");
    const isWhole = count % wholeEvery === 0;
    count += 1;
    url.searchParams.set("fragment", isWhole ? "1" : "recent");
    if (mark) url.searchParams.set("mark", mark.dataset.liveMark);
    const answer = await fetch(url, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (answer.ok || answer.status === 404) {
      if (isWhole) put(parts, await answer.text());
      else if (!update(parts, await answer.text())) count = 0; // there is more than before: ask for all of it next
      if (said !== saying()) {
        status.textContent = said = saying();
        status.classList.add("visually-hidden"); // it can be seen below
      }
      return "";
    }
    if (answer.status === 503) update(parts, await answer.text());
    return answer.type === "opaqueredirect" || answer.status === 403 ? "ended" : "lost";
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking || paused || document.hidden || isOver()) return;
    asking = true;
    tell(await ask().catch(() => "unreachable"));
    asking = false;
    const seconds = parts.querySelector("[data-live-seconds]")?.dataset.liveSeconds || root.dataset.live;
    if (trouble && trouble !== "ended") count = 0;
    pause.hidden = isOver();
    if (trouble !== "ended") timer = setTimeout(refresh, Number(seconds) * 1000);
  }

  pause.hidden = isOver();
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? pause.dataset.resume : pauseText;
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  timer = setTimeout(refresh, Number(root.dataset.live) * 1000);
}

function parse(text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  return template;
}

// Replaces the parts that are there already; returns whether all are.
function update(parts, text) {
  let isComplete = true;
  for (const part of [...parse(text).content.children]) {
    const old = part.dataset.part && parts.querySelector(`[data-part="${part.dataset.part}"]`);
    if (old) replace(old, part);
    else isComplete = false;
  }
  return isComplete;
}

function put(parts, text) {
  const template = parse(text);
  const names = (container) => [...container.children].map((part) => part.dataset.part).join();
  if (names(parts) !== names(template.content)) {
    parts.replaceChildren(...template.content.children);
    return;
  }
  for (const part of [...template.content.children]) {
    const old = parts.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!old.dataset.version || old.dataset.version !== part.dataset.version) replace(old, part);
  }
}

// Opened and focused elements stay so. A part with a version is left alone while that stays the same: it has
// buttons, and tokens that differ each time.
function replace(old, part) {
  for (const details of old.querySelectorAll("details[open]")) {
    part.querySelector(`#${details.id}`)?.setAttribute("open", "");
  }
  if (old.outerHTML === part.outerHTML) return;
  const places = (within) => [...within.querySelectorAll("a, button, summary, input")];
  const at = places(old).indexOf(document.activeElement);
  old.replaceWith(part);
  if (at >= 0) places(part)[at]?.focus();
}

document.querySelectorAll("[data-live]").forEach(refreshParts);
