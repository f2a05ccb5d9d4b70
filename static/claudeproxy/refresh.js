// Renews the parts of a page that are marked data-refresh="name", in place.
//
// The page is fetched as it is, and what is inside a marked element is replaced by what
// is inside the element of the same name. What somebody works in is left alone: fields
// that were changed, boxes that were ticked, text that is selected, a field to type in
// with the focus. Focus elsewhere, open details and scrolled tables stay as they are.
"use strict";

{
  const PERIOD_MS = 30_000;
  const PATIENCE_MS = 20_000;
  const PAUSED = "claudeproxy.refresh.paused";
  const TYPED_IN =
    "input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]";
  const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

  const bar = document.querySelector("[data-refresh-bar]");
  const time = bar.querySelector("[data-refresh-time]");
  const trouble = bar.querySelector("[data-refresh-trouble]");
  const button = bar.querySelector("button");
  const known = new Map();
  let timer = 0;
  let dueAt = 0;
  let isBusy = false;

  const regions = (page) => page.querySelectorAll("[data-refresh]");
  const nameOf = (region) => region.dataset.refresh;

  // Tokens against forgery differ in each answer and mean the same.
  const contentOf = (region) =>
    region.innerHTML.replace(/(name="csrfmiddlewaretoken" value=")[^"]*/g, "$1");

  const isPaused = () => button.getAttribute("aria-pressed") === "true";

  // --- what somebody is doing

  function isChanged(field) {
    if (field.type === "checkbox" || field.type === "radio") {
      return field.checked !== field.defaultChecked;
    }
    if (field.tagName === "SELECT") {
      const options = [...field.options];
      const byDefault = options.some((option) => option.defaultSelected);
      return byDefault
        ? options.some((option) => option.selected !== option.defaultSelected)
        : !field.multiple && field.selectedIndex > 0;
    }
    return field.type !== "hidden" && field.value !== field.defaultValue;
  }

  function isWorkedIn(region) {
    const focused = document.activeElement;
    const selection = window.getSelection();
    return (
      (focused.matches(TYPED_IN) && region.contains(focused)) ||
      [...region.querySelectorAll("input, select, textarea")].some(isChanged) ||
      (!selection.isCollapsed && selection.containsNode(region, true)) ||
      region.querySelector(":active") !== null
    );
  }

  // --- the same element before and after

  // Elements are the same if they are called the same, not if they are in the same place:
  // another account's button must not get the focus of one that is gone.
  function callOf(element) {
    return [
      element.tagName,
      element.id,
      element.getAttribute("href"),
      element.getAttribute("aria-label"),
      element.name,
      element.value,
      element.form?.getAttribute("action"),
      element.matches("a, button, summary") ? element.textContent.trim() : "",
    ].join("\n");
  }

  function find(region, selector, call) {
    return [...region.querySelectorAll(selector)].find((it) => callOf(it) === call);
  }

  const callOfDetails = (details) => details.id || callOf(details.querySelector("summary"));

  function openAsBefore(region, fresh) {
    for (const before of region.querySelectorAll("details")) {
      const after = [...fresh.querySelectorAll("details")].find(
        (it) => callOfDetails(it) === callOfDetails(before),
      );
      if (after) {
        after.open = before.open;
      }
    }
  }

  function scrolled(region) {
    return [...region.querySelectorAll("[tabindex]")]
      .filter((element) => element.scrollTop || element.scrollLeft)
      .map((element) => [callOf(element), element.scrollLeft, element.scrollTop]);
  }

  function replace(region, fresh) {
    const focused = region.contains(document.activeElement)
      ? callOf(document.activeElement)
      : null;
    const positions = scrolled(region);
    openAsBefore(region, fresh);
    region.replaceChildren(...fresh.childNodes);
    for (const [call, left, top] of positions) {
      find(region, "[tabindex]", call)?.scrollTo({ left, top, behavior: "instant" });
    }
    if (focused !== null) {
      const same = find(region, FOCUSABLE, focused);
      if (!same) {
        region.tabIndex = -1;
      }
      (same ?? region).focus({ preventScroll: true });
    }
    restoreActions(region);
  }

  // The admin's own script keeps the boxes that it found at first. Here it gets a list
  // that is always the present one.
  function restoreActions(region) {
    if (window.Actions && region.querySelector("#action-toggle")) {
      const boxes = () => [...document.querySelectorAll("tr input.action-select")];
      window.Actions({
        get length() {
          return boxes().length;
        },
        forEach: (visit) => boxes().forEach(visit),
        [Symbol.iterator]: () => boxes()[Symbol.iterator](),
      });
    }
  }

  // What is to be told once came with this answer, so it is told in this page.
  function showMessages(page) {
    const messages = page.querySelector(".messagelist");
    if (messages) {
      document.getElementById("content").before(messages);
    }
  }

  // --- fetching

  class LoginEnded extends Error {}

  async function load() {
    const answer = await fetch(window.location.href, {
      cache: "no-store",
      credentials: "same-origin",
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      throw new LoginEnded();
    }
    if (!answer.ok) {
      throw new Error(`the gateway answered ${answer.status}`);
    }
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  function show(page) {
    const fresh = new Map([...regions(page)].map((it) => [nameOf(it), it]));
    let areAllNew = true;
    for (const region of regions(document)) {
      const next = fresh.get(nameOf(region));
      if (!next) {
        continue;
      }
      const content = contentOf(next);
      if (content === known.get(nameOf(region))) {
        continue;
      }
      if (isWorkedIn(region)) {
        areAllNew = false;
        continue;
      }
      replace(region, next);
      known.set(nameOf(region), content);
    }
    return areAllNew;
  }

  // A live region speaks when its text changes: the same trouble is told once.
  function tell(text) {
    if (trouble.textContent !== text) {
      trouble.textContent = text;
    }
  }

  async function refresh() {
    if (isBusy) {
      return;
    }
    isBusy = true;
    try {
      const page = await load();
      showMessages(page);
      if (!isPaused()) {
        const areAllNew = show(page);
        // The operator's time, which the server knows.
        const { madeAt } = page.querySelector("[data-refresh-time]").dataset;
        time.textContent = areAllNew
          ? `Updated ${madeAt}`
          : `Updated ${madeAt}, except where you are at work`;
      }
      tell("");
    } catch (error) {
      tell(
        error instanceof LoginEnded
          ? "Your login has ended: log in again to see what is new."
          : "The gateway does not answer; what you see may be old. Still trying.",
      );
    } finally {
      isBusy = false;
      schedule(PERIOD_MS);
    }
  }

  function schedule(delayMs) {
    window.clearTimeout(timer);
    if (isPaused()) {
      return;
    }
    dueAt = Date.now() + delayMs;
    if (!document.hidden) {
      timer = window.setTimeout(refresh, delayMs);
    }
  }

  // --- the bar

  function remember(paused) {
    try {
      window.localStorage.setItem(PAUSED, paused ? "yes" : "no");
    } catch {
      // Storage may be forbidden: then this page alone is paused.
    }
  }

  function remembered() {
    try {
      return window.localStorage.getItem(PAUSED) === "yes";
    } catch {
      return false;
    }
  }

  function setPaused(paused) {
    button.setAttribute("aria-pressed", String(paused));
    if (paused) {
      window.clearTimeout(timer);
      time.textContent = "Paused";
    }
  }

  button.addEventListener("click", () => {
    setPaused(!isPaused());
    remember(isPaused());
    if (!isPaused()) {
      refresh();
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      window.clearTimeout(timer);
    } else {
      schedule(Math.max(0, dueAt - Date.now()));
    }
  });

  for (const region of regions(document)) {
    known.set(nameOf(region), contentOf(region));
  }
  bar.hidden = false;
  setPaused(remembered());
  schedule(PERIOD_MS);
}
