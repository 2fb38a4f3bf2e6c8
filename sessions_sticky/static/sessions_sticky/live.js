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

  function saying() {
    return parts.querySelector("[data-live-say]")?.dataset.liveSay;
  }

  function tell(kind) {
    if (kind === trouble) return; // a screen reader hears of it once
    status.textContent = kind ? status.dataset[kind] : status.dataset.back;
    root.classList.toggle("sticky-stale", Boolean(kind));
    trouble = kind;
  }

  async function ask() {
    const url = new URL(location.href);
    const mark = parts.querySelector("[data-live-mark]");
    url.searchParams.set("fragment", "1");
    if (mark) url.searchParams.set("mark", mark.dataset.liveMark);
    const answer = await fetch(url, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(15000) });
    if (answer.ok || answer.status === 404) {
      put(parts, await answer.text());
      if (said !== saying()) status.textContent = said = saying();
      return "";
    }
    return answer.type === "opaqueredirect" || answer.status === 403 ? "ended" : "lost";
  }

  async function refresh() {
    clearTimeout(timer);
    if (asking || paused || document.hidden) return;
    asking = true;
    tell(await ask().catch(() => "unreachable"));
    asking = false;
    const seconds = parts.querySelector("[data-live-seconds]")?.dataset.liveSeconds || root.dataset.live;
    if (trouble !== "ended") timer = setTimeout(refresh, Number(seconds) * 1000);
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? pause.dataset.resume : pauseText;
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  timer = setTimeout(refresh, Number(root.dataset.live) * 1000);
}

function put(parts, text) {
  const template = document.createElement("template");
  template.innerHTML = text;
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
