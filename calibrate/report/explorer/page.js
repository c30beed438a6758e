// The controls, and the answer in words, bars and commands.

const OWN_SIZE = "size";

const FIELDS = ["language", "card", "size", "system", "variant", "lm", "duration", "batch", "offload", "quantization"];

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

const weightsSaid = (format) => format ?? text("full_precision");

function summary(asked, found, verdict) {
  const { plan } = found;
  const { variant } = plan;
  const songs = text(found.batch === 1 ? "one_song" : "several_songs", {
    count: found.batch,
    length: duration(found.duration),
    variant,
  });
  const planned = text(found.thinks ? "planned" : "unplanned", { songs, lm: plan.lm });
  const passes = found.at_once < found.batch && (verdict === "changed" || verdict === "fits");
  const made = passes ? text("at_a_time", { made: planned, count: found.at_once }) : planned;
  return text(`said_${verdict}`, { made });
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
    row.append(element("span", { textContent: text(`stage_${stage}`) }), track, element("span", { textContent: gib(bytes) }));
    return row;
  });
  byId("bars").replaceChildren(...rows);
}

function budgetSaid(asked, found, verdict) {
  const said = [text("budget", { room: gib(found.room), size: general(asked.card.gib, 4) })];
  if (isOver(found) && verdict !== "uncertain") said.push(text("budget_exact"));
  byId("budget-said").replaceChildren(element("span", { className: "key" }), said.join(" "));
}

function timeSaid(seconds) {
  const [least, most] = timeRange(seconds).map(duration);
  return text("time_estimated", { least, most });
}

function settings(found) {
  const { plan } = found;
  const perPass = plan.lm_songs_per_pass[plan.lm];
  const onBackend = text("lm_on", { lm: plan.lm, backend: plan.backend });
  const inPasses = perPass !== undefined && perPass < found.batch;
  const planner = inPasses ? text("at_a_time", { made: onBackend, count: perPass }) : onBackend;
  const tier = `${plan.tier} (${plan.label})`;
  const length = duration(planLongest(plan, found.batch, found.thinks));
  const limits = text(found.batch === 1 ? "longest_one" : "longest_several", { length, count: found.batch });
  const [kind, ...record] = (found.thinks ? plan.evidence_with_lm : plan.evidence).split(" ");
  const rows = [
    ...(found.song_seconds === null ? [] : [["time", timeSaid(found.song_seconds)]]),
    ["tier", plan.limits_of === plan.tier ? tier : text("limits_of", { tier, other: plan.limits_of })],
    ["language_model", found.thinks ? planner : text("none")],
    ["offered", plan.lm_models.join(", ") || text("no_lm")],
    ["offload_row", plan.offload],
    ["weights", weightsSaid(plan.quantization)],
    ...(found.thinks ? [["lm_weights", weightsSaid(plan.lm_quantization)]] : []),
    ["longest", planLongest(plan, 1, found.thinks) ? limits : text("none_certified")],
    ["evidence", [TEXTS[language][`kind_${kind}`] ?? kind, ...record].join(" ")],
  ];
  const cells = rows.flatMap(([name, said]) => [
    element("dt", { textContent: text(name) }),
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
  byId("duration-said").value = duration(Number(byId("duration").value));
  byId("batch-said").value = byId("batch").value;
  byId("duration").setAttribute("aria-valuetext", byId("duration-said").value);
  const card = chosenCard();
  byId("answer").hidden = card === null;
  if (card === null) {
    const { min, max } = byId("size");
    say("uncertain", text("no_size"), text("no_size_info", { min, max }));
    return;
  }
  const asked = question(card);
  const found = answer(asked);
  const verdict = verdictOf(asked, found);
  say(verdict, text(verdict), summary(asked, found, verdict));
  const reasons = [...found.plan.warnings, ...found.cuts];
  byId("reasons").replaceChildren(...reasons.map((said) => element("li", { textContent: translated(said) })));
  bars(found);
  budgetSaid(asked, found, verdict);
  settings(found);
  byId("commands").textContent = commands(asked, found);
}

function fillCards() {
  const groups = new Map();
  for (const { group, label } of NUMBERS.cards) {
    if (!groups.has(group)) groups.set(group, element("optgroup", { label: group }));
    groups.get(group).append(element("option", { value: label, textContent: label }));
  }
  const own = element("option", { value: OWN_SIZE });
  own.dataset.text = "own_size";
  byId("card").append(...groups.values(), own);
  byId("card").value = "RTX 3060 12 GB";
}

function fillLanguages() {
  const options = Object.entries(TEXTS).map(([value, { name }]) => element("option", { value, lang: value, textContent: name }));
  byId("language").append(...options);
  byId("language").value = language;
}

// What stands in the page itself, in the chosen language.
function speak() {
  language = byId("language").value;
  document.documentElement.lang = language;
  document.title = text("title");
  const guide = language;
  for (const node of document.querySelectorAll("[data-text]")) node.innerHTML = text(node.dataset.text, { guide });
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", text(node.dataset.label));
  const groups = [...new Set(NUMBERS.cards.map(({ group }) => group))];
  byId("card").querySelectorAll("optgroup").forEach((node, place) => {
    node.label = TEXTS[language][`group ${groups[place]}`] ?? groups[place];
  });
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
  const typed = byId("commands").textContent;
  try {
    await navigator.clipboard.writeText(typed);
    byId("copy").textContent = text("copied");
  } catch {
    getSelection().selectAllChildren(byId("commands"));
    byId("copy").textContent = text("selected");
  }
  setTimeout(() => (byId("copy").textContent = text("copy")), 2000);
}

function showAll() {
  readAddress();
  speak();
  show();
}

fillCards();
fillLanguages();
showAll();
byId("language").addEventListener("input", () => {
  speak();
  show();
  writeAddress();
});
document.forms.question.addEventListener("input", () => {
  show();
  writeAddress();
});
document.forms.question.addEventListener("submit", (event) => event.preventDefault());
addEventListener("hashchange", showAll);
byId("copy").addEventListener("click", copy);
