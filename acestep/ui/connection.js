// Runs once in the browser when the page is there. WORDS is filled in by scripts.py.
// Returns what the fields and the place for failures are set to.
() => {
  const words = WORDS;
  const LOST = "acestep-lost";
  const RUN = "run";
  const IDLE = "idle";
  const LOOK_MS = 2000;
  const BACK_MS = 10000;
  const same = { __type__: "update" };
  let own = window.gradio_config?.app_id;
  let lost = false;
  let looking = false;

  const banner = document.createElement("div");
  banner.id = "connection";
  banner.setAttribute("role", "alert");
  document.body.append(banner);

  // The page moves down by the height of the banner, which then covers nothing.
  new ResizeObserver(() => {
    document.body.style.paddingTop = `${banner.offsetHeight}px`;
  }).observe(banner);

  const say = (sentence, isLost) => {
    document.body.classList.toggle("connection-lost", isLost);
    document.body.classList.toggle("connection-back", sentence !== "" && !isLost);
    banner.textContent = sentence;
  };

  const show = (isLost) => {
    lost = isLost;
    say(isLost ? words.lost : "", isLost);
  };

  // What was under way when the connection was lost has ended; where nothing was, nothing failed.
  const runs = () => document.querySelector("#cancel:enabled, #progress .stopping") !== null;
  // A program that is ended may still settle its run before it goes, so what ran at the last answer counts.
  let ran = false;
  addEventListener("click", (event) => { if (event.target.closest?.("#generate")) ran = true; }, true);
  const noteLost = () => {
    if (sessionStorage.getItem(LOST) !== RUN) sessionStorage.setItem(LOST, ran || runs() ? RUN : IDLE);
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
      noteLost();
      if (!lost) show(true);
    } else if (own !== undefined && id !== own) {
      noteLost();
      window.location.reload();
    } else {
      own = id;
      ran = runs();
      if (lost) {
        show(false);
        // gradio loads the page again by itself where it missed something, within this time.
        setTimeout(() => lost || sessionStorage.removeItem(LOST), 3 * LOOK_MS);
      }
    }
  };

  const wasLost = sessionStorage.getItem(LOST);
  const kept = JSON.parse(sessionStorage.getItem(words.form) ?? "{}");
  window.acestepRestored = true;
  sessionStorage.removeItem(LOST);
  setInterval(look, LOOK_MS);
  document.addEventListener("visibilitychange", look);
  if (wasLost === IDLE) {
    say(words.back, false);
    setTimeout(() => lost || say("", false), BACK_MS);
  }

  // gradio gives a message the English name of its kind as a title, and says these things in English itself.
  const ITS_OWN = [
    [/^(Queue is full|This application is (currently|too) busy)/, words.busy],
    [/^Invalid file type/, words.kind],
    [/^(File\(s\) exceed|HTTP 413)/, words.size],
    [/^HTTP \d+/, words.failed],
    [/^(Connection errored out|Lost connection|Failed to fetch|NetworkError|Load failed)/, words.lost],
  ];
  const translate = (toast) => {
    const title = toast.querySelector(".toast-title")?.firstChild;
    const own = toast.querySelector(".toast-title.error") ? words.error : words.warning;
    if (title && title.data.trim() !== own) title.data = own;
    // The text may be filled in after the title.
    for (const text of toast.querySelectorAll("[data-testid=toast-text]")) {
      const said = ITS_OWN.find(([pattern]) => pattern.test(text.textContent.trim()));
      if (said) text.textContent = said[1];
    }
  };
  new MutationObserver((changes) => {
    const added = changes.flatMap((change) => [...change.addedNodes]);
    document.querySelectorAll("[data-testid=toast-body]").forEach(translate);
    // It may be about a lost connection: the banner comes at the same time and hides it.
    if (added.some((node) => node.querySelector?.("[data-testid=toast-text]"))) look();
  }).observe(document.body, { childList: true, subtree: true });
  // The program may have been started again with other choices.
  const lacks = (name) => words.choices[name]?.includes(kept[name]) === false;
  return [...words.fields.map((name) => (lacks(name) ? same : (kept[name] ?? same))), wasLost === RUN ? words.failure : same];
}
