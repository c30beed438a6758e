// Runs once in the browser when the page is there. WORDS is filled in by connection.py.
// Returns what the fields and the place for failures are set to.
() => {
  const words = WORDS;
  const FIELDS = ["caption", "lyrics"];
  const KEPT = "acestep-words";
  const LOST = "acestep-lost";
  const LOOK_MS = 2000;
  const same = { __type__: "update" };
  let own = window.gradio_config?.app_id;
  let lost = false;
  let looking = false;

  const banner = document.createElement("div");
  banner.id = "connection";
  banner.setAttribute("role", "alert");
  document.body.append(banner);

  const show = (isLost) => {
    lost = isLost;
    document.body.classList.toggle("connection-lost", isLost);
    banner.textContent = isLost ? words.lost : "";
  };

  const answer = async () => {
    try {
      const said = await fetch("gradio_api/app_id", { cache: "no-store" });
      // A program that was started again does not know the logins of before: loading the page asks for them.
      if (said.status === 401) return "another";
      return said.ok ? (await said.json()).app_id : null;
    } catch {
      return null;
    }
  };

  const look = async () => {
    if (looking || document.hidden) return;
    looking = true;
    const id = await answer();
    looking = false;
    if (id === null) {
      sessionStorage.setItem(LOST, "yes");
      if (!lost) show(true);
    } else if (own !== undefined && id !== own) {
      sessionStorage.setItem(LOST, "yes");
      window.location.reload();
    } else {
      own = id;
      if (lost) {
        show(false);
        // gradio loads the page again by itself where it missed something, within this time.
        setTimeout(() => lost || sessionStorage.removeItem(LOST), 3 * LOOK_MS);
      }
    }
  };

  const keep = () => {
    const kept = {};
    for (const name of FIELDS) kept[name] = document.querySelector(`#${name} textarea`)?.value ?? "";
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
  };

  const wasLost = sessionStorage.getItem(LOST) !== null;
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  sessionStorage.removeItem(LOST);
  addEventListener("pagehide", keep);
  setInterval(look, LOOK_MS);
  document.addEventListener("visibilitychange", look);
  // gradio says a lost connection in English, in a message: ours comes at the same time and hides it.
  new MutationObserver((changes) => {
    const added = changes.flatMap((change) => [...change.addedNodes]);
    if (added.some((node) => node.querySelector?.("[data-testid=toast-text]"))) look();
  }).observe(document.body, { childList: true, subtree: true });
  return [...FIELDS.map((name) => kept[name] || same), wasLost ? words.failure : same];
}
