// The controls, and the answer in words, bars and commands.

const OWN_SIZE = "size";

const STAGES = {
  think: "Planning",
  encode_audio: "Audio codes",
  encode: "Text",
  denoise: "Music",
  decode: "Sound",
};

const WORDS = {
  fits: "It fits",
  changed: "Not as asked",
  uncertain: "It may run out of memory",
  shared: "It shares the main memory",
};

const FIELDS = ["card", "size", "system", "variant", "lm", "duration", "batch", "offload", "quantization"];

const byId = (id) => document.getElementById(id);

const controlOf = (name) => (name === "system" ? document.forms.question.elements.system : byId(name));

const wishOf = (value) => (value === "auto" ? undefined : value === "none" ? null : value);

function chosenCard() {
  const chosen = byId("card").value;
  if (chosen !== OWN_SIZE) return NUMBERS.cards.find((card) => card.label === chosen);
  const size = Number(byId("size").value);
  return byId("size").validity.valid && size ? { ...cardOfSize(size), size } : null;
}

function question(card) {
  const offload = byId("offload").value;
  return {
    card,
    system: controlOf("system").value,
    variant: byId("variant").value,
    duration: Number(byId("duration").value),
    batch: Number(byId("batch").value),
    wishes: {
      lm: wishOf(byId("lm").value),
      offload: offload === "auto" ? undefined : offload,
      quantization: wishOf(byId("quantization").value),
    },
  };
}

const isOver = (found) => found.stages !== null && Math.max(...Object.values(found.stages)) > found.room;

// Whether the request is done as it was asked.
function verdictOf(asked, found) {
  if (!ownMemory(asked.card)) return "shared";
  const below = holdsAs(asked.card, asked.variant) < found.plan.certified_gib;
  if (planLongest(found.plan, 1, found.thinks) === 0 || (below && isOver(found))) return "uncertain";
  const refused = Object.entries(asked.wishes).some(([name, wish]) => wish !== undefined && wish !== found.plan[name]);
  return refused || found.duration < asked.duration || found.batch < asked.batch ? "changed" : "fits";
}

const weightsSaid = (format) => format ?? "full precision";

function summary(asked, found, verdict) {
  const { plan } = found;
  const planned = found.thinks ? `, planned by the ${plan.lm} language model` : ", without a language model";
  const made = `${songs(found.batch)} of ${minutes(found.duration)} with ${plan.variant}${planned}`;
  const passes = found.at_once < found.batch ? `, ${found.at_once} at a time` : "";
  if (verdict === "changed") return `What is made instead: ${made}${passes}.`;
  if (verdict === "uncertain") return `What is tried: ${made}.`;
  if (verdict === "shared") return `${made}. Whether they fit depends on the free main memory.`;
  return `${made}${passes}.`;
}

function bars(found) {
  const shown = found.stages !== null;
  byId("memory").hidden = !shown;
  if (!shown) return;
  const full = 1.05 * Math.max(found.room, ...Object.values(found.stages));
  const share = (bytes) => `${(100 * bytes) / full}%`;
  const rows = Object.entries(found.stages).map(([stage, bytes]) => {
    const row = element("div", { className: "stage" });
    const track = element("div", { className: "track" });
    track.setAttribute("aria-hidden", "true");
    const bar = element("i", { className: bytes > found.room ? "over" : "" });
    bar.style.width = share(bytes);
    const budget = element("b");
    budget.style.left = share(found.room);
    track.append(bar, budget);
    row.append(element("span", { textContent: STAGES[stage] }), track, element("span", { textContent: gib(bytes) }));
    return row;
  });
  byId("bars").replaceChildren(...rows);
}

function budgetSaid(asked, found, verdict) {
  const exact = "This quick prediction is on the safe side; the limits of the tier were found more exactly and hold.";
  const rest = `of ${general(asked.card.gib, 4)} GiB: what driver, desktop and a safe margin leave.`;
  const said = [`Songs may take ${gib(found.room)} ${rest}`, isOver(found) && verdict !== "uncertain" ? exact : ""];
  byId("budget-said").replaceChildren(element("span", { className: "key" }), said.join(" "));
}

function settings(asked, found) {
  const { plan } = found;
  const perPass = plan.lm_songs_per_pass[plan.lm];
  const several = perPass !== undefined && perPass < found.batch ? `, ${songs(perPass)} at a time` : "";
  const longest = (lm) => minutes(planLongest(plan, found.batch, lm));
  const limits = planLongest(plan, 1, found.thinks)
    ? `${longest(found.thinks)} for ${found.batch === 1 ? "one song" : `${found.batch} songs at once`}`
    : "none is certified";
  const rows = [
    ...(found.song_seconds === null ? [] : [["One song takes", `${timeRange(found.song_seconds)}, estimated`]]),
    ["Tier", `${plan.tier} (${plan.label})${plan.limits_of === plan.tier ? "" : `, limits of ${plan.limits_of}`}`],
    ["Language model", found.thinks ? `${plan.lm} on ${plan.backend}${several}` : "none"],
    ["Offered", plan.lm_models.join(", ") || "no language model"],
    ["Offload", plan.offload],
    ["Weights", weightsSaid(plan.quantization)],
    ...(found.thinks ? [["LM weights", weightsSaid(plan.lm_quantization)]] : []),
    ["Longest song", limits],
    ["Evidence", found.thinks ? plan.evidence_with_lm : plan.evidence],
  ];
  const cells = rows.flatMap(([name, said]) => [
    element("dt", { textContent: name }),
    element("dd", { textContent: said }),
  ]);
  byId("settings").replaceChildren(...cells);
}

// The lines to type on the machine with the card.
function commands(asked, found) {
  const { wishes, variant } = asked;
  const option = (name) => (wishes[name] === undefined ? "" : ` --${name} ${wishes[name] ?? "none"}`);
  const knobs = ["lm", "offload", "quantization"].map(option).join("");
  const think = wishes.lm ? " --think" : "";
  const model = variant === "turbo" ? "" : ` --model ${variant}`;
  const amount = ` --duration ${asked.duration}${asked.batch > 1 ? ` --batch ${asked.batch}` : ""}`;
  const size = asked.card.size === undefined ? "" : ` --vram ${asked.card.size}`;
  return [
    `acestep download ${variant}`,
    ...(found.thinks ? [`acestep download ${found.plan.lm}`] : []),
    `acestep generate --caption "slow piano"${amount}${model}${knobs}${think}`,
    `acestep plan${size}${variant === "turbo" ? "" : ` --variant ${variant}`}${knobs}`,
  ].join("\n");
}

function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

function say(verdict, word, sentence) {
  byId("verdict").className = verdict;
  byId("verdict-word").textContent = word;
  byId("verdict-said").textContent = sentence;
}

function show() {
  byId("size-field").hidden = byId("card").value !== OWN_SIZE;
  byId("duration-said").value = minutes(Number(byId("duration").value));
  byId("batch-said").value = byId("batch").value;
  byId("duration").setAttribute("aria-valuetext", byId("duration-said").value);
  const card = chosenCard();
  byId("answer").hidden = card === null;
  if (card === null) {
    const { min, max } = byId("size");
    say("uncertain", "There is no such size", `Type the memory of the card in GiB, from ${min} to ${max}.`);
    return;
  }
  const asked = question(card);
  const found = answer(asked);
  const verdict = verdictOf(asked, found);
  say(verdict, WORDS[verdict], summary(asked, found, verdict));
  const reasons = [...found.plan.warnings, ...found.cuts];
  byId("reasons").replaceChildren(...reasons.map((textContent) => element("li", { textContent })));
  bars(found);
  budgetSaid(asked, found, verdict);
  settings(asked, found);
  byId("commands").textContent = commands(asked, found);
}

function fillCards() {
  const groups = new Map();
  for (const { group, label } of NUMBERS.cards) {
    if (!groups.has(group)) groups.set(group, element("optgroup", { label: group }));
    groups.get(group).append(element("option", { value: label, textContent: label }));
  }
  const own = element("option", { value: OWN_SIZE, textContent: "another NVIDIA card, by its size" });
  byId("card").append(...groups.values(), own);
  byId("card").value = "RTX 3060 12 GB";
}

// The choices are kept in the address, so that a link shows the same answer.
function readAddress() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (!FIELDS.includes(name)) continue;
    const control = controlOf(name);
    const before = control.value;
    control.value = value;
    if (!control.value) control.value = before;
  }
  if (["offload", "quantization"].some((name) => byId(name).value !== "auto")) byId("more").open = true;
}

function writeAddress() {
  const said = new URLSearchParams(FIELDS.map((name) => [name, controlOf(name).value]));
  history.replaceState(null, "", `#${said}`);
}

async function copy() {
  const text = byId("commands").textContent;
  try {
    await navigator.clipboard.writeText(text);
    byId("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(byId("commands"));
    byId("copy").textContent = "Selected: press Ctrl-C";
  }
  setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
}

fillCards();
readAddress();
show();
document.forms.question.addEventListener("input", () => {
  show();
  writeAddress();
});
document.forms.question.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  readAddress();
  show();
});
byId("copy").addEventListener("click", copy);
