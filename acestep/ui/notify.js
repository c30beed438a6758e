// Runs once in the browser when the page is there. WORDS is filled in by scripts.py.
// Shows a notification of the browser when a run ends, to a visitor who asked for it and is elsewhere.
() => {
  const words = WORDS;
  const KEPT = "acestep-notify";
  let running = false;

  // Browsers have them only for this machine's own pages and over https.
  if (!("Notification" in window) || !window.isSecureContext) return [];
  document.body.classList.add("can-notify");

  const isOn = () => Notification.permission === "granted" && localStorage.getItem(KEPT) === "on";

  const show = (said = "") => {
    const box = document.querySelector("#notify input");
    if (!box) return;
    box.checked = isOn();
    document.querySelector("#notify [role=status]").textContent = said;
  };

  const tell = (stage) => {
    if (!isOn() || (!document.hidden && document.hasFocus())) return;
    try {
      // It replaces the one of the run before, and is shown again: without `renotify` that happens silently.
      const said = { body: stage.querySelector("p").innerText, tag: "acestep", renotify: true };
      const told = new Notification(words.title, said);
      told.onclick = () => {
        window.focus();
        told.close();
      };
    } catch {
      // Browsers of phones have notifications of another kind only.
    }
  };

  const look = () => {
    const stage = document.querySelector("#progress .progress");
    if (!stage) return;
    const ended = stage.matches(".finished, .failed, .stopped");
    if (running && ended && !stage.matches(".stopped")) tell(stage);
    running = !ended;
  };

  // Permission is asked for by a visitor's own click only.
  document.addEventListener("change", async (event) => {
    if (!event.target.matches?.("#notify input")) return;
    const wanted = event.target.checked;
    localStorage.setItem(KEPT, wanted ? "on" : "off");
    if (wanted && Notification.permission !== "granted") await Notification.requestPermission();
    show(wanted && !isOn() ? words.notify_refused : "");
  });
  new MutationObserver((changes) => {
    if (changes.some((change) => [...change.addedNodes].some((node) => node.querySelector?.("#notify input")))) show();
    look();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
  show();
  return [];
}
