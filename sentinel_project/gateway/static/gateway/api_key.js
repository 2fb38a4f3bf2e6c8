// The page that shows a new key: copies it, and makes a reload go to the list rather than make another key.
"use strict";

const page = document.querySelector(".api-key");
const secret = document.getElementById("api-key-secret");
const copy = document.getElementById("api-key-copy");

history.replaceState(null, "", page.dataset.list);
secret.addEventListener("focus", () => secret.select());
if (navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(secret.value);
      document.getElementById("api-key-status").textContent = copy.dataset.copied;
    } catch {
      secret.focus(); // selected: the keyboard copies it
    }
  });
}
