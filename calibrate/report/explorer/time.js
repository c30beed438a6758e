// How long a song takes on a card whose speed is known: acestep/limits/song_time.py and acestep/song_times.py.

const streams = (offload) => offload.startsWith("stream");

// The seconds of a song of another length, on the line through both known lengths.
function atLength([short, long], duration) {
  const [first, last] = NUMBERS.time_lengths;
  return Math.max(0, short + ((long - short) * (duration - first)) / (last - first));
}

// The likely seconds of one song under a plan, null where the table does not know them.
function songSeconds(plan, thinks, duration) {
  if (plan.card.kind !== "cuda") return null;
  const known = NUMBERS.variants[plan.variant].times[plan.tier] ?? [];
  const alike = (one) => one.quantization === plan.quantization && streams(one.offload) === streams(plan.offload);
  const card = known.find((one) => one.cards.includes(plan.card.label) && alike(one));
  if (card === undefined) return null;
  const parts = [...card.stages];
  if (thinks) {
    const same = (name, one) => one[name] === plan[name];
    const thought = card.thinking.find((one) => ["lm", "backend", "lm_quantization"].every((name) => same(name, one)));
    if (thought === undefined) return null;
    parts.unshift(thought.seconds);
  }
  return parts.reduce((sum, both) => sum + atLength(both, duration), 0);
}

// The ends of a range of times, rounded outwards as acestep.units.duration_range does.
function timeRange(seconds) {
  const outwards = (value, rounding) => {
    const step = [[3, 0.1], [20, 1], [120, 5]].find(([below]) => value < below)?.[1] ?? 30;
    return Number(fixed(rounding(Number(fixed(value / step, 6))) * step, 1));
  };
  return [outwards(NUMBERS.fastest * seconds, Math.floor), outwards(NUMBERS.slowest * seconds, Math.ceil)];
}
