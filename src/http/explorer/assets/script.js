// Keeps a page up to date over /events, shows exact ages and local times, and copies hashes. Everything works without this.
"use strict";

(() => {
  const body = document.body;
  const updates = document.getElementById("updates");
  const news = document.getElementById("news");
  if (!updates || !body.dataset.events) return;

  // Longest pause between two tries, and shortest between two loads of the page, in milliseconds.
  const MAX_PAUSE = 60_000;
  const MIN_PAUSE = 400;
  // Tries after which the page says that it has stopped.
  const MAX_TRIES = 20;
  // How long a stream is open before the page relies on it: one that is refused for now opens too, and ends at once.
  const SETTLED = 2000;
  // Age at which a page is loaded again though nothing was announced: for peers, the sync, and whether it is live.
  const MAX_AGE = 60_000;

  const WORDS = {
    connecting: "Updates: connecting.",
    live: "Updates: live. This page follows the chain.",
    reconnecting: "Updates: reconnecting. The connection to the gateway broke. What is shown may be old.",
    paused: "Updates: paused. This page stays as it is.",
    stopped: "Updates: stopped. The gateway can’t be reached. What is shown may be old.",
  };

  let cursor = body.dataset.cursor;
  let source = null;
  let tries = 0;
  let retry = 0;
  let settling = 0;
  let paused = false;
  // Seconds that the gateway's clock is ahead of this one.
  let ahead = 0;

  const word = document.createElement("span");
  word.setAttribute("role", "status");
  const button = document.createElement("button");
  button.type = "button";
  updates.replaceChildren(word, " ", button);

  function show(state) {
    if (updates.dataset.state === state) return;
    updates.dataset.state = state;
    word.textContent = WORDS[state];
    button.textContent = state === "paused" ? "Resume" : state === "stopped" ? "Try again" : "Pause";
  }

  // Whether the page asks the gateway for anything by itself.
  function asks() {
    return !paused && updates.dataset.state !== "stopped";
  }

  // Following

  function follow() {
    unfollow();
    source = new EventSource(`${body.dataset.events}?after=${encodeURIComponent(cursor)}`);
    source.onopen = () => {
      settling = setTimeout(settled, SETTLED);
    };
    source.onerror = () => {
      clearTimeout(settling);
      if (source.readyState === EventSource.CLOSED) again();
      else if (++tries > MAX_TRIES) stop();
      else show("reconnecting");
    };
    for (const name of ["extended", "reorganised", "reset"]) source.addEventListener(name, changed);
  }

  function settled() {
    tries = 0;
    show("live");
  }

  function unfollow() {
    clearTimeout(retry);
    clearTimeout(settling);
    if (source) source.close();
    source = null;
  }

  function again() {
    unfollow();
    if (++tries > MAX_TRIES) return stop();
    show("reconnecting");
    retry = setTimeout(follow, Math.min(MAX_PAUSE, 1000 * 2 ** tries));
  }

  function stop() {
    unfollow();
    show("stopped");
  }

  function changed(event) {
    cursor = event.lastEventId || cursor;
    settled();
    tell(event);
    load();
  }

  // Only reorganisations are announced: blocks are too many.
  function tell(event) {
    if (event.type !== "reorganised") return;
    const { orphaned, adopted, ancestor } = JSON.parse(event.data);
    const after = ancestor ? ` after block ${ancestor.index}` : "";
    news.textContent = `Reorganisation${after}: ${orphaned} left the chain, ${adopted} joined.`;
  }

  button.addEventListener("click", () => {
    paused = !paused && updates.dataset.state !== "stopped";
    tries = 0;
    if (paused) {
      unfollow();
      show("paused");
    } else {
      show("connecting");
      follow();
    }
  });

  // In the background the page follows nothing, and catches up from its cursor when it comes back.
  document.addEventListener("visibilitychange", () => {
    if (!asks()) return;
    if (document.hidden) unfollow();
    else follow();
  });
  window.addEventListener("pagehide", unfollow);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && !paused) follow();
  });

  // Loading

  let loading = false;
  let due = false;
  let loaded = Date.now();

  async function load() {
    if (loading) {
      due = true;
      return;
    }
    loading = true;
    loaded = Date.now();
    let pause = MIN_PAUSE;
    try {
      const response = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-cache" });
      if (response.status === 429 || response.status === 503) {
        due = true;
        pause = 1000 * Math.max(1, Number(response.headers.get("retry-after")) || 1);
      } else if (!response.ok && response.status !== 404) {
        due = true;
        pause = 5000;
      } else {
        const date = Date.parse(response.headers.get("date"));
        if (date) ahead = Math.abs(date - Date.now()) > 5000 ? (date - Date.now()) / 1000 : 0;
        put(new DOMParser().parseFromString(await response.text(), "text/html"));
      }
    } catch {
      // The stream breaks as well then, and says so.
      due = true;
      pause = 2000;
    }
    setTimeout(() => {
      loading = false;
      if (due && asks()) {
        due = false;
        load();
      }
    }, pause);
  }

  // Puts the parts of a fresh page in place of those shown, so that focus, selection and scroll stay where they are.
  function put(fresh) {
    const [x, y] = [scrollX, scrollY];
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) renew(part, other);
    }
    refine();
    if (scrollX !== x || scrollY !== y) scrollTo(x, y);
  }

  function renew(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "title" && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    let next = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const match = find(next, child);
      if (match) {
        // What stands before it is gone.
        while (next !== match) {
          const gone = next;
          next = next.nextSibling;
          gone.remove();
        }
        next = match.nextSibling;
        renew(match, child);
      } else {
        old.insertBefore(document.importNode(child, true), next);
      }
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      if (!gone.dataset || gone.dataset.script === undefined) gone.remove();
    }
  }

  // The node from `node` on that `child` is a new version of.
  function find(node, child) {
    const wanted = key(child);
    for (let other = node; other; other = other.nextSibling) {
      if (other.nodeName === child.nodeName && key(other) === wanted) return other;
      // Only what has a name of its own may have moved.
      if (!wanted) return null;
    }
    return null;
  }

  function key(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return "";
    if (node.id) return `#${node.id}`;
    return node.nodeName === "TR" ? node.querySelector("code")?.textContent ?? "" : "";
  }

  // Times and copying

  function ago(seconds) {
    const past = seconds >= 0;
    const size = Math.abs(seconds);
    const steps = [[60, 1, "second"], [3600, 60, "minute"], [172_800, 3600, "hour"], [5_184_000, 86_400, "day"], [63_072_000, 2_592_000, "month"]];
    const [, unit, name] = steps.find(([limit]) => size < limit) ?? [0, 31_536_000, "year"];
    const count = Math.floor(size / unit);
    const text = `${count} ${name}${count === 1 ? "" : "s"}`;
    return past ? `${text} ago` : `in ${text}`;
  }

  function refine() {
    const now = Date.now() / 1000 + ahead;
    for (const time of document.querySelectorAll("time")) {
      const at = Date.parse(time.dateTime);
      if (Number.isNaN(at)) continue;
      const title = `${new Date(at).toLocaleString()} local time`;
      if (time.title !== title) time.title = title;
      const age = time.nextElementSibling;
      if (age?.className === "age") {
        const text = ago(now - at / 1000);
        if (age.textContent !== text) age.textContent = text;
      }
    }
    for (const place of document.querySelectorAll("[data-copy]")) {
      if (place.querySelector("button") || !navigator.clipboard) continue;
      const copy = document.createElement("button");
      copy.type = "button";
      copy.dataset.script = "";
      copy.textContent = "Copy";
      copy.setAttribute("aria-label", `Copy: ${place.parentElement.querySelector("dt")?.textContent ?? "id"}`);
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(place.querySelector("code").textContent);
        news.textContent = "Copied.";
      });
      place.append(" ", copy);
    }
  }

  setInterval(() => {
    if (document.hidden || paused) return;
    refine();
    if (asks() && Date.now() - loaded > MAX_AGE) load();
  }, 1000);
  refine();
  show("connecting");
  if (!document.hidden) follow();
})();
