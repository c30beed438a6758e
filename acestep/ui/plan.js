// Runs once in the browser when the page is there. WORDS is filled in by scripts.py.
// A plan is made from the form: it is discarded when the visitor changes the fields that it replaces, also while it is made.
// `changed` and `made` return what the box of the plan and the warnings are set to.
() => {
  const words = WORDS;
  const same = { __type__: "update" };
  let changed = false;

  // The cursor of a visitor who has gone on to another field stays there.
  const isFree = () => document.activeElement === document.body || document.activeElement?.closest("#plan") != null;

  // The page shows the plan some frames later.
  const look = (frames) => {
    const caption = document.querySelector("#plan-caption textarea");
    if (caption?.offsetParent) {
      if (!isFree()) return;
      caption.scrollIntoView({ block: "center" });
      caption.focus({ preventScroll: true });
    } else if (frames) requestAnimationFrame(() => look(frames - 1));
  };

  window.acestepPlan = {
    asked: () => {
      changed = false;
      return [];
    },
    changed: (planned) => {
      changed = true;
      return planned ? [false, words.discarded] : [same, same];
    },
    made: () => {
      if (document.querySelector("#progress .stopping, #progress .stopped")) return [same, same];
      if (changed) return [false, words.discarded];
      look(120);
      return [same, same];
    },
  };
  return [];
}
