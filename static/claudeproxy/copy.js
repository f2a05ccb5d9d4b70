// Copies the text of the element that a button names in data-copy.
"use strict";

async function copy(text, element) {
  // The clipboard is there on https and on localhost only.
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  window.getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const element = document.getElementById(button.dataset.copy);
  const label = button.firstChild;
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    let copied = false;
    try {
      copied = await copy(element.textContent, element);
    } catch {
      window.getSelection().selectAllChildren(element);
    }
    label.textContent = copied ? "Copied" : "Selected, press Ctrl+C";
  });
}
