// From a card, the table and wishes to a plan: acestep/limits/plan.py, tier_of_card.py and prediction.py.

const LM_MODELS = Object.keys(NUMBERS.lms);

// The tiers of a variant on a system: Windows has some of its own.
const tiersOf = (variant, system) =>
  NUMBERS.variants[variant].tiers.map((tier) =>
    system === "windows" ? (NUMBERS.variants[variant].windows.find((own) => own.id === tier.id) ?? tier) : tier,
  );

function longestOf(entries, batch) {
  const size = NUMBERS.batches.find((known) => known >= batch);
  return size === undefined ? 0 : entries[size];
}

const inRange = (range, size) =>
  (range.lower_inclusive ? size >= range.lower : size > range.lower) &&
  (range.upper === null || (range.upper_inclusive ? size <= range.upper : size < range.upper));

const holdsAs = (card, variant) => (songsInFloat32(card, variant) ? card.gib / 2 : card.gib);

const placeOf = (tiers, size) => tiers.findIndex((tier) => inRange(tier.vram_gib, size));

// The tier that the card belongs to, and the tier whose limits it can keep.
function tierAndLimits(card, variant, tiers, notes) {
  if (card.kind === "cpu") return [tiers[0], tiers[0]];
  const tier = tiers[placeOf(tiers, card.gib)];
  const size = holdsAs(card, variant);
  const place = placeOf(tiers, size);
  const [named, below] = [tiers[place], tiers[Math.max(place - 1, 0)]];
  let has = `this card has ${general(size, 3)} GiB`;
  if (songsInFloat32(card, variant)) {
    notes.push(
      "This card has no bfloat16, so the model runs in float32, slower and twice as large: the card's " +
        `${general(card.gib, 3)} GiB hold what ${general(size, 3)} GiB do elsewhere.`,
    );
    has = `this one counts as ${general(size, 3)} GiB`;
  }
  if (size >= named.certified_gib) return [tier, named];
  const streamed = "the weights are streamed where the card can, and long songs may not fit all the same";
  const how = place ? `the limits of ${below.id} apply` : streamed;
  notes.push(`${named.id} is certified from ${named.certified_gib} GiB on and ${has}: ${how}.`);
  return [tier, below];
}

// The tier with the knobs and limits that a language model needs; itself for any other value.
function thinkingWith(tier, model) {
  const needs = tier.lm_needs[model];
  if (needs === undefined) return tier;
  const allowed = tier.backends_allowed.filter((name) => needs.backends.includes(name) || name === "mlx");
  const others = Object.entries(tier.lm_needs).filter(([name]) => name !== model);
  return {
    ...tier,
    offload: needs.offload,
    quantization: needs.quantization,
    lm_quantization: needs.lm_quantization,
    backend: allowed.includes(tier.backend) ? tier.backend : needs.backends[0],
    backends_allowed: allowed,
    recommended_lm: model,
    frontier: { with_lm: needs.with_lm, without_lm: tier.frontier.without_lm },
    lm_needs: Object.fromEntries(others),
  };
}

const ownModels = (tier) => tier.lm_models.filter((model) => !(model in tier.lm_needs));

// Limits whose language models are those that are predicted to fit in float32, twice as large.
function withFloat32Models(limits, prediction, notes) {
  const { offload, quantization, lm_quantization } = limits;
  const knobs = { variant: "turbo", lm: null, backend: "pt", offload, quantization, lm_quantization };
  if (prediction.need(true)(knobs) === null) return limits;
  const fits = (lm) => {
    const needed = prediction.need(true)({ ...knobs, lm });
    return needed !== null && needed <= prediction.room;
  };
  const models = limits.lm_models.filter(fits);
  if (models.join() !== limits.lm_models.join()) {
    notes.push(
      "This card has no bfloat16, so language models run in float32 and are twice as large there: of those of" +
        ` this tier, ${models.join(", ") || "none"} fit.`,
    );
  }
  const longest = models.length ? prediction.reach({ ...knobs, lm: models.at(-1) }, true) : 0;
  const reached = Object.entries(limits.frontier.with_lm).map(([batch, s]) => [batch, Math.min(s, longest)]);
  const recommended = models.includes(limits.recommended_lm) ? limits.recommended_lm : (models.at(-1) ?? null);
  return {
    ...limits,
    lm_models: models,
    lm_needs: {},
    recommended_lm: recommended,
    lm_songs_per_pass: Object.fromEntries(
      Object.entries(limits.lm_songs_per_pass).filter(([name]) => models.includes(name)),
    ),
    frontier: { with_lm: Object.fromEntries(reached), without_lm: limits.frontier.without_lm },
    init_lm: limits.init_lm && recommended !== null,
  };
}

// A tier's knobs as this kind of card supports them, before any wishes.
function adapted(tier, card, variant, notes) {
  const runnable = kindOf(card).backends.filter(
    (name) => tier.backends_allowed.includes(name) && (name !== "vllm" || hasTriton(card)),
  );
  const allowed = runnable.includes("pt") ? runnable : [...runnable, "pt"];
  const apple = card.kind === "mps";
  const streams = NUMBERS.offloads.indexOf("stream");
  let offload = tier.offload;
  if (holdsAs(card, variant) < tier.certified_gib) {
    offload = NUMBERS.offloads[Math.max(streams, NUMBERS.offloads.indexOf(offload))];
  }
  if (apple && (offload !== "none" || tier.quantization !== null)) {
    notes.push(
      `The limits of ${tier.id} were found with offload ${offload} and quantization ` +
        `${tier.quantization ?? "none"}, which Apple GPUs have not: long songs may not fit.`,
    );
  }
  const held = ownMemory(card);
  return {
    ...tier,
    backend: apple || !allowed.includes(tier.backend) ? allowed[0] : tier.backend,
    backends_allowed: allowed,
    compile: tier.compile && card.kind === "cuda",
    offload: held ? offload : "none",
    quantization: held ? tier.quantization : null,
    lm_quantization: held ? tier.lm_quantization : null,
  };
}

// What decides the memory of a request whose songs are made one at a time.
function questionOf(request, card, system, variant, thinks) {
  const demand = {
    songs: 1,
    frames: Math.min(request.duration, NUMBERS.max_duration_s) * NUMBERS.frames_a_second,
    lyrics: NUMBERS.max_lyric_tokens,
    text: NUMBERS.max_text_tokens,
    withAudio: thinks,
    contexts: thinks ? request.batch : 1,
    grouped: groupsAttention(card, system),
    workspace: matrixWorkspace(card),
    itemsize: itemsizeOf(card, variant),
  };
  return { demand, thinks, lmItemsize: itemsizeOf(card) };
}

function predictionFor(request, card, system, variant) {
  const room = roomOf(card, system);
  const question = (thinks) => questionOf(request, card, system, variant, thinks);
  return {
    room,
    need: (thinks) => (knobs) => (room ? neededBytes(knobs, question(thinks)) : null),
    reach: (knobs, thinks) => (room ? longestFitting(knobs, question(thinks), room) : 0),
  };
}

// The plan of a card for a request; a wish that is undefined is left to the tier, null asks for none.
function resolve(card, system, variant, wishes, request) {
  const notes = [];
  const settle = fallbacks(card, notes);
  const tiers = tiersOf(variant, system);
  const [tier, own] = tierAndLimits(card, variant, tiers, notes);
  const prediction = predictionFor(request, card, system, variant);
  let limits = thinkingWith(own, wishes.lm);
  if (songsInFloat16(card, variant)) limits = withFloat32Models(limits, prediction, notes);
  const needed = adapted(limits, card, variant, notes);
  const anyModel = tiers.some((one) => one.lm_models.length);
  const lm = settle.lm(wishes.lm, limits.recommended_lm, anyModel);
  const quantization = settle.possible("transformer", needed.quantization);
  const lmQuantization = settle.possible("language model", needed.lm_quantization);
  const ours = { variant, lm: null, backend: "pt", offload: needed.offload, quantization };
  ours.lm_quantization = lmQuantization;
  const wished = {
    variant,
    lm,
    lm_quantization: lmQuantization,
    backend: needed.backend,
    offload: settle.offload(wishes.offload, needed.offload),
    quantization: settle.quantization("transformer", wishes.quantization, quantization),
  };
  const compile = settle.compile(needed.compile);
  const certified = { knobs: ours, models: ownModels(limits) };
  let granted = grant(wished, certified, prediction.need(request.thinks), prediction.room, notes);
  granted = { ...granted, backend: settle.backendFor(granted.backend, granted.lm_quantization) };
  if (limits !== own) toldRoom(own, limits, wishes, granted, notes);
  const reach = {
    with_lm: granted.lm === null ? 0 : prediction.reach(granted, true),
    without_lm: prediction.reach(granted, false),
  };
  const usual = { ...ours, backend: needed.backend };
  const fitting = fittingModels(usual, certified, prediction.need(true), prediction.room);
  const offered = LM_MODELS.filter((model) => fitting.includes(model) || model === granted.lm);
  const plan = {
    ...granted,
    compile,
    card,
    tier: tier.id,
    label: tier.label,
    limits_of: limits.id,
    certified_gib: limits.certified_gib,
    init_lm: limits.init_lm && granted.lm !== null,
    lm_models: anyModel ? offered : [],
    lm_songs_per_pass: limits.lm_songs_per_pass,
    backends_allowed: needed.backends_allowed,
    frontier: limits.frontier,
    evidence: limits.evidence,
    evidence_with_lm: limits.evidence_with_lm,
    reach,
    warnings: notes,
  };
  return covers(certified, granted) ? plan : predicted(plan);
}

// A plan whose knobs take more than the certified ones has limits that are predicted.
function predicted(plan) {
  const entries = (longest) => Object.fromEntries(NUMBERS.batches.map((batch) => [batch, longest]));
  const frontier = { with_lm: entries(plan.reach.with_lm), without_lm: entries(plan.reach.without_lm) };
  return { ...plan, frontier, evidence: "estimated", evidence_with_lm: "estimated" };
}

function planLongest(plan, batch, lm) {
  const state = lm ? "with_lm" : "without_lm";
  return Math.max(longestOf(plan.frontier[state], batch), plan.reach[state]);
}
