// What a card is and can do: acestep/hardware/card_sizes.py and acestep/limits/capabilities.py.

const atLeast = (capability, needed) =>
  capability[0] > needed[0] || (capability[0] === needed[0] && capability[1] >= needed[1]);

const kindOf = (card) => NUMBERS.kinds[card.kind];

const ownMemory = (card) => kindOf(card).own_memory;

const beforeAmpere = (card) => card.kind === "cuda" && !atLeast(card.capability, NUMBERS.ampere);

const songsInFloat16 = (card, variant) => beforeAmpere(card) && variant === "turbo";

const songsInFloat32 = (card, variant) => beforeAmpere(card) && variant !== "turbo";

// Bytes of the numbers in which the card makes songs of a variant; without one, plans them.
function itemsizeOf(card, variant = null) {
  if (variant !== null && songsInFloat16(card, variant)) return 2;
  return beforeAmpere(card) ? 4 : kindOf(card).itemsize;
}

const groupsAttention = (card, system) =>
  card.kind === "cpu" || (card.kind === "cuda" && !beforeAmpere(card) && system !== "windows");

function matrixWorkspace(card) {
  const own = kindOf(card).matrix_workspace;
  if (own !== null) return own;
  return atLeast(card.capability, NUMBERS.hopper) ? NUMBERS.hopper_matrix_workspace : NUMBERS.matrix_workspace;
}

const hasTriton = (card) => card.kind !== "cuda" || atLeast(card.capability, NUMBERS.triton);

// The size on the box of a card of which only the size is known.
function nameplateOf(size) {
  const bytes = Math.trunc(size * GIB);
  const hundredths = Math.floor((bytes * 200 + GIB) / (2 * GIB));
  if (hundredths in NUMBERS.recorded) return NUMBERS.recorded[hundredths];
  const whole = ceilDiv(hundredths, 100);
  const missing = Math.min(NUMBERS.shortfall_hundredths, NUMBERS.shortfall_share * 100 * whole);
  return whole * 100 - hundredths <= missing ? whole : bytes / GIB;
}

function cardOfSize(size) {
  const name = `simulated ${general(size)} GiB card`;
  return { kind: "cuda", name, gib: nameplateOf(size), capability: NUMBERS.simulated_capability };
}
