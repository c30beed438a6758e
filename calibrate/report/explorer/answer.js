// What acestep would do with a request, and what that needs of the card: acestep/limits/plan.py (clamp) and api.py.

// The request reduced to the plan's limits, and a sentence for each reduction.
function clamp(request, plan, thinks) {
  const lm = thinks && plan.lm !== null;
  const longest = planLongest(plan, 1, lm);
  const thinking = lm ? "with a language model" : "without a language model";
  const source = `${plan.limits_of}, ${plan.evidence}`;
  const asked = request.duration;
  if (longest === 0) {
    const duration = Math.min(asked, NUMBERS.max_duration_s);
    const said =
      `No song length is certified on this card ${thinking} (${source}): one song of ${minutes(duration)} is tried, ` +
      "and it may run out of memory.";
    return { duration, batch: 1, said: [said] };
  }
  const said = [];
  const state = lm ? "with_lm" : "without_lm";
  const duration = Math.min(asked, longest);
  if (duration < asked) {
    const how = longest === longestOf(plan.frontier[state], 1) ? "certified on" : "predicted to fit";
    said.push(
      `Songs of up to ${minutes(longest)} are ${how} this card ${thinking} (${source}): ` +
        `${minutes(asked)} was cut to ${minutes(duration)}.`,
    );
  }
  let batch = request.batch;
  while (planLongest(plan, batch, lm) < duration) batch -= 1;
  if (batch < request.batch) {
    said.push(
      `Up to ${songs(batch)} of ${minutes(duration)} at once are certified on this ` +
        `card ${thinking} (${source}): the batch of ${request.batch} was cut to ${batch}.`,
    );
  } else if (longestOf(plan.frontier[state], batch) < duration) {
    said.push(
      `A batch of ${batch} of ${minutes(duration)} is more than is certified on this card ${thinking} (${source}).` +
        " It is predicted to fit with fewer songs at a time.",
    );
  }
  return { duration, batch, said };
}

// A question has `card`, `system`, `variant`, `duration` in seconds and `batch`, and `wishes`: `lm`, `offload` and
// `quantization`, each undefined for automatic or null for none.
function answer({ card, system, variant, duration, batch, wishes }) {
  const planned = (thinks) => resolve(card, system, variant, wishes, { duration, batch, thinks });
  let thinks = wishes.lm !== null;
  let plan = planned(thinks);
  if (wishes.lm === undefined && !plan.init_lm) {
    thinks = false;
    plan = planned(thinks);
  }
  thinks = thinks && plan.lm !== null;
  const made = clamp({ duration, batch }, plan, thinks);
  const room = roomOf(card, system);
  const question = questionOf(made, card, system, variant, thinks);
  question.demand.songs = made.batch;
  const known = room > 0 && predictable(plan, question.demand);
  const atOnce = known ? songsAtOnce(plan, question.demand, room) : made.batch;
  question.demand.songs = atOnce;
  return {
    plan,
    thinks,
    duration: made.duration,
    batch: made.batch,
    cuts: made.said,
    room,
    at_once: atOnce,
    song_seconds: songSeconds(plan, thinks, made.duration),
    stages: known ? stageBytes(plan, question) : null,
  };
}
