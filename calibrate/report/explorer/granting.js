// Which wishes are granted, and what is chosen instead: acestep/limits/granting.py and fallbacks.py.

const rankOf = (format) => (format === null ? 0 : NUMBERS.weight_formats[format].loss);

const noQuantizationSaid = (format) => format ?? "no quantization";

// What a card cannot do, with a sentence in `notes` for every wish that is not granted.
function fallbacks(card, notes) {
  const { named, run, quantizes, compiles } = kindOf(card);
  const version = (capability) => capability.join(".");
  const tooOld = (needed) => {
    const has = card.kind === "cuda" ? version(card.capability) : "none";
    return `it needs compute capability ${version(needed)} or newer, and ${card.name} has ${has}`;
  };
  const unable = (format) => {
    if (!quantizes) {
      return run === "run" ? `${named} run unquantized weights only` : `${named} runs unquantized weights only`;
    }
    const least = NUMBERS.weight_formats[format].capability;
    return atLeast(card.capability, least) ? null : tooOld(least);
  };
  return {
    offload(wish, needed) {
      if (wish === undefined || wish === needed) return needed;
      if (ownMemory(card)) return wish;
      notes.push(`Offload ${wish} does nothing on ${named}, where nothing is offloaded; it is off.`);
      return needed;
    },
    quantization(part, wish, needed) {
      if (wish === undefined || wish === needed) return needed;
      const reason = wish === null ? null : unable(wish);
      if (reason === null) return wish;
      notes.push(
        `Quantization ${wish} of the ${part} is not possible: ${reason}; ${noQuantizationSaid(needed)} is used.`,
      );
      return needed;
    },
    possible(part, needed) {
      const reason = needed === null ? null : unable(needed);
      if (reason === null) return needed;
      notes.push(
        `The limits of this card count on ${needed} weights for the ${part}, but ${reason}; it runs unquantized ` +
          "and may run out of memory.",
      );
      return null;
    },
    backendFor(backend, lmQuantization) {
      if (lmQuantization === null || backend === "pt") return backend;
      notes.push(`Backend ${backend} runs unquantized language models only; pt runs the ${lmQuantization} one.`);
      return "pt";
    },
    lm(wish, recommended, anyModel) {
      if (wish === undefined || wish === null) return wish === undefined ? recommended : null;
      if (anyModel) return wish;
      notes.push(`No language model is certified in this table yet; ${wish} is not used.`);
      return null;
    },
    compile(wanted) {
      if (!wanted || (compiles && hasTriton(card))) return wanted;
      notes.push(`Compiling is not possible: ${tooOld(NUMBERS.triton)}; the model runs uncompiled.`);
      return false;
    },
  };
}

// Whether these knobs take no more memory than certified ones.
function covers(certified, knobs) {
  const ours = certified.knobs;
  const offload = (one) => NUMBERS.offloads.indexOf(one.offload);
  const less = offload(knobs) >= offload(ours) && rankOf(knobs.quantization) >= rankOf(ours.quantization);
  if (knobs.lm === null) return less;
  const weights = rankOf(knobs.lm_quantization) >= rankOf(ours.lm_quantization);
  return less && certified.models.includes(knobs.lm) && weights;
}

function fits(knobs, certified, need, room) {
  if (covers(certified, knobs)) return true;
  const needed = need(knobs);
  return needed !== null && needed <= room;
}

// The wished knobs where they are certified or predicted to fit, else those with the fewest changes that do.
function grant(wished, certified, need, room, notes) {
  if (covers(certified, wished)) return wished;
  for (const knobs of everLess(wished, certified)) {
    if (!fits(knobs, certified, need, room)) continue;
    if (!sameKnobs(knobs, wished)) notes.push(...refusals(wished, knobs, certified, need, room));
    return knobs;
  }
  throw new Error("the last knobs are certified");
}

const sameKnobs = (one, other) => Object.keys(one).every((name) => one[name] === other[name]);

function* everLess(wished, certified) {
  const ours = certified.knobs;
  const known = wished.lm === null || certified.models.includes(wished.lm);
  const models = known ? [wished.lm] : [wished.lm, ...certified.models.slice(-1), null];
  for (const lm of models) {
    for (const lm_quantization of new Set([wished.lm_quantization, ours.lm_quantization])) {
      for (const quantization of new Set([wished.quantization, ours.quantization])) {
        yield* moving({ ...wished, lm, lm_quantization, quantization }, certified);
      }
    }
  }
}

// The knobs, then the same with ever more offload.
function* moving(knobs, certified) {
  yield knobs;
  const alone = knobs.lm !== null && !certified.models.includes(knobs.lm);
  for (const offload of NUMBERS.offloads.slice(NUMBERS.offloads.indexOf(knobs.offload) + 1)) {
    yield { ...knobs, offload, backend: alone && offload !== "cpu" ? "pt" : knobs.backend };
  }
}

function fittingModels(usual, certified, need, room) {
  const anyFits = (lm) => [...moving({ ...usual, lm }, certified)].some((knobs) => fits(knobs, certified, need, room));
  return LM_MODELS.filter((model) => certified.models.includes(model) || anyFits(model));
}

function refusals(wished, granted, certified, need, room) {
  const [needed, instead] = [need(wished), need(granted)];
  const said = [];
  let counted = "";
  if (needed !== null) {
    counted = ` This song would need ${gib(needed)}, and songs may take ${gib(room)} of this card`;
    counted += instead === null ? "." : `; so it needs ${gib(instead)}.`;
  }
  if (granted.lm !== wished.lm) {
    said.push(
      `Language model ${wished.lm} is not certified on this card (offered: ${certified.models.join(", ") || "none"});` +
        ` ${granted.lm ?? "none"} is used.${counted}`,
    );
  }
  if (granted.backend !== wished.backend) {
    said.push(
      `Backend ${wished.backend} takes too much beside language model ${granted.lm ?? "None"};` +
        ` ${granted.backend} is used.`,
    );
  }
  for (const [name, part] of [["quantization", "transformer"], ["lm_quantization", "language model"]]) {
    if (granted[name] === wished[name]) continue;
    const how = wished[name] === null ? "Unquantized" : `In ${wished[name]}`;
    said.push(`${how}, the ${part} is not certified to fit this card; ${granted[name] ?? "None"} is kept.${counted}`);
  }
  if (granted.offload === wished.offload) return said;
  if (granted.lm === wished.lm && wished.lm !== null && !certified.models.includes(wished.lm)) {
    said.push(
      `Language model ${wished.lm} does not fit with offload ${wished.offload}; ${granted.offload} is used with` +
        ` it, which takes longer.${counted}`,
    );
  } else {
    said.push(
      `Offload ${wished.offload} needs more memory than this card is certified for; ${granted.offload} is used.` +
        `${counted} Shorter songs need less.`,
    );
  }
  return said;
}

// Which of a tier's own knobs were given up for a wished language model.
function toldRoom(own, able, wishes, granted, notes) {
  const nouns = { offload: "offload", quantization: "quantization", lm_quantization: "LM weights", backend: "backend" };
  const text = (name, value) => value ?? (name === "quantization" ? "unquantized" : "none");
  const changed = Object.keys(nouns)
    .filter((name) => granted[name] === able[name] && granted[name] !== own[name] && granted[name] !== wishes[name])
    .map((name) => `${nouns[name]} ${text(name, granted[name])}`);
  if (changed.length && granted.lm === wishes.lm) {
    notes.push(`${granted.lm} fits this card with ${changed.join(" and ")}, so that is used.`);
  }
}
