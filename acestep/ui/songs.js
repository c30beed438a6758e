// Runs once in the browser when the page is there. WORDS is filled in by scripts.py.
// Plays the songs of the page one at a time, and sends what is clicked on a song or an example.
() => {
  const words = WORDS;
  // Not a part of the cards: the page makes those again with every new song, while this one goes on.
  const player = document.createElement("audio");
  let address = "";
  let pending = "";

  const cards = () => [...document.querySelectorAll("#history .song")];
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  const set = (element, name, value) => {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  const draw = () => {
    for (const card of cards()) {
      const isOn = card.dataset.address === address;
      const share = isOn && player.duration ? player.currentTime / player.duration : 0;
      const button = card.querySelector(".play");
      const plays = isOn && !player.paused;
      button.classList.toggle("playing", plays);
      set(button, "aria-label", plays ? words.pause : words.play);
      card.style.setProperty("--at", `${100 * share}%`);
      const range = card.querySelector("input[type=range]");
      const at = clock(isOn ? player.currentTime : 0);
      if (document.activeElement !== range || isOn) range.value = String(Math.round(1000 * share));
      set(range, "aria-valuetext", at);
      const shown = card.querySelector(".at");
      if (shown.textContent !== at) shown.textContent = at;
    }
  };

  const load = (card) => {
    if (card.dataset.address === address) return;
    address = card.dataset.address;
    player.src = address;
  };

  const playOrPause = (card) => {
    load(card);
    if (player.paused) player.play().catch(draw);
    else player.pause();
  };

  const seek = (range) => {
    const card = range.closest(".song");
    load(card);
    const wanted = address;
    const go = () => {
      // Another song may have been started before this one had come.
      if (address !== wanted) return;
      player.currentTime = (range.value / 1000) * player.duration;
    };
    if (player.duration) go();
    else player.addEventListener("loadedmetadata", go, { once: true });
  };

  const send = (act, name) => {
    pending = act;
    const box = document.querySelector("#act textarea, #act input");
    box.value = `${Date.now()} ${act} ${name}`;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

  window.acestepActed = () => {
    const act = pending;
    pending = "";
    if (act === "another") document.querySelector("#generate")?.click();
    else if (act === "zip") document.querySelector("#zip a")?.click();
    else if (act === "use" || act === "example") {
      const caption = document.querySelector("#caption textarea");
      caption?.focus({ preventScroll: true });
      caption?.scrollIntoView({ block: "center" });
    }
  };

  for (const name of ["play", "pause", "timeupdate", "ended", "loadedmetadata", "emptied"]) {
    player.addEventListener(name, draw);
  }
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("#history input[type=range]")) seek(event.target);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-act]");
    if (!button) return;
    const card = button.closest(".song");
    const act = button.dataset.act;
    if (act === "play") playOrPause(card);
    else if (act !== "delete" || window.confirm(words.sure_delete)) {
      if (act === "delete" && card.dataset.address === address) {
        player.removeAttribute("src");
        player.load();
        address = "";
      }
      send(act, card?.dataset.name ?? button.dataset.name ?? "");
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.querySelector("#generate:enabled")?.click();
    } else if (event.key === " " && event.target === document.body) {
      const card = cards().find((one) => one.dataset.address === address) ?? cards()[0];
      if (!card) return;
      event.preventDefault();
      playOrPause(card);
    }
  });
  new MutationObserver((changes) => {
    const added = (name) =>
      changes.some(({ addedNodes }) => [...addedNodes].some((node) => node.matches?.(name) || node.querySelector?.(name)));
    if (added(".song")) {
      draw();
      // On a phone what a run made is below what is seen.
      const isOnPhone = getComputedStyle(document.querySelector("#run")).position === "fixed";
      if (isOnPhone && document.querySelector("#cancel:enabled")) cards()[0]?.scrollIntoView({ block: "nearest" });
    }
    if (added(".failure")) document.querySelector("#failure .failure")?.scrollIntoView({ block: "nearest" });
  }).observe(document.body, { childList: true, subtree: true });
  return [];
}
