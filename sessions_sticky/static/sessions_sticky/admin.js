// The pages of sessions in Django admin: time that runs down, selecting rows. All of them work without it.
"use strict";

function startCountdown(element) {
  const expiresAt = performance.now() + Number(element.dataset.stickyLeft) * 1000;
  const text = element.querySelector("span");
  const fill = element.querySelector(".sticky-fill");

  function words(seconds) {
    const units = { days: Math.floor(seconds / 86400), hours: Math.floor(seconds / 3600), minutes: Math.floor(seconds / 60), seconds };
    const largest = ["days", "hours", "minutes", "seconds"].find((unit) => units[unit] > 0) || "seconds";
    const rest = { days: units.days, hours: units.hours, minutes: units.minutes, seconds };
    if (largest === "days") rest.hours = units.hours % 24;
    if (largest === "hours") rest.minutes = units.minutes % 60;
    if (largest === "minutes") rest.seconds = seconds % 60;
    return element.dataset[largest].replace(/%\((\w+)\)d/g, (_, unit) => rest[unit]);
  }

  function tick() {
    const seconds = Math.max(0, Math.ceil((expiresAt - performance.now()) / 1000));
    text.textContent = seconds ? words(seconds) : element.dataset.expired;
    if (fill) fill.setAttribute("width", Math.min(100, (100 * seconds) / Number(element.dataset.stickyFull)));
    if (!seconds) clearInterval(timer);
  }

  const timer = setInterval(tick, 1000);
  tick();
}

function watchSelection(form) {
  const rows = [...form.querySelectorAll("input[name=selected]")];
  const page = form.querySelector("[data-sticky-page]");
  const all = form.querySelector("[data-sticky-all]");
  const counter = form.querySelector("[data-sticky-counter]");
  const buttons = form.querySelectorAll("button[formaction]");
  if (!all) return;

  function show() {
    const number = rows.filter((row) => row.checked).length;
    for (const row of rows) row.disabled = all.checked;
    for (const button of buttons) button.disabled = !number && !all.checked;
    counter.textContent = number && !all.checked ? counter.dataset.text.replace("%(number)s", number) : "";
    if (page) {
      page.checked = number > 0 && number === rows.length;
      page.indeterminate = number > 0 && number < rows.length;
      page.disabled = all.checked;
    }
  }

  if (page) {
    page.closest("label").hidden = false;
    page.addEventListener("change", () => {
      for (const row of rows) row.checked = page.checked;
      show();
    });
  }
  form.addEventListener("change", show);
  window.addEventListener("pageshow", show); // the browser's back keeps what was checked
  show();
}

document.querySelectorAll("[data-sticky-left]").forEach(startCountdown);
document.querySelectorAll("[data-sticky-selection]").forEach(watchSelection);
