// The bytes of a request: acestep/limits/workspace.py, guard.py, think_memory.py and room.py.

const upToGrain = (bytes) => ceilDiv(bytes, NUMBERS.segment_grain) * NUMBERS.segment_grain;

// Bytes of the segments that PyTorch's allocator takes for tensors of these sizes, none of them freed.
function segmentBytes(sizes) {
  let taken = 0;
  const gaps = [];
  for (const size of sizes) {
    if (size <= NUMBERS.small_limit) continue;
    const fitting = gaps.findIndex((gap) => gap >= size);
    let block;
    if (fitting >= 0) [block] = gaps.splice(fitting, 1);
    else {
      block = size < NUMBERS.own_segment ? NUMBERS.large_segment : upToGrain(size);
      taken += block;
    }
    if (block - size > NUMBERS.small_limit) {
      gaps.push(block - size);
      gaps.sort((one, other) => one - other);
    }
  }
  return taken;
}

function rowsAtOnce(songCount, tokens) {
  const chunk = NUMBERS.chunk_rows;
  if (tokens <= chunk) return Math.min(songCount, Math.floor(chunk / tokens)) * tokens;
  return ceilDiv(tokens, ceilDiv(tokens, chunk));
}

const conditionTokens = (demand) => demand.lyrics + demand.text + 1;

// Denoising besides the transformer's blocks: what the steps allocate.
function stepsRoom(variant, quantization, demand) {
  const a = NUMBERS.architectures[variant];
  const size = demand.itemsize;
  const tokens = ceilDiv(demand.frames, a.patch_size);
  const condition = conditionTokens(demand);
  const unpacks = quantization !== null && NUMBERS.weight_formats[quantization].weight_only;
  const guided = !a.is_turbo;
  const allRows = demand.songs * tokens;
  const rows = rowsAtOnce(demand.songs, tokens);
  const hidden = a.hidden_size * size;
  const inner = a.intermediate_size * size;
  const query = a.num_attention_heads * a.head_dim * size;
  const key = a.num_key_value_heads * a.head_dim * size;
  const fewer = key !== query;
  const repeated = fewer && !demand.grouped ? 2 * query : 0;
  const attending = allRows * (2 * query + 2 * key + repeated + NUMBERS.float32 * a.num_attention_heads);
  const near = Math.min(tokens, NUMBERS.block_rows);
  const block = near + (fewer ? 2 * Math.min(tokens, NUMBERS.block_rows + 2 * a.sliding_window) : 0);
  const attendingNear = allRows * (query + 2 * key) + demand.songs * block * query;
  let making = rows * (3 * query + 2 * (query / size) * NUMBERS.float32 + 4 * a.head_dim * size);
  making += allRows > NUMBERS.chunk_rows ? allRows * (query + 2 * key) : 0;
  const unpacked = unpacks ? a.hidden_size * inner : 0;
  const crossing = condition * ceilDiv(rows, tokens) * repeated + rows * (hidden + 3 * query);
  const feeding = Math.max(crossing, rows * (query + hidden + 2 * inner) + unpacked) + condition * 2 * key;
  const rotary = 2 * tokens * a.head_dim * size;
  const blocks = allRows * hidden + rotary + Math.max(attending, attendingNear, making, feeding);
  const timestep = unpacks ? NUMBERS.time_projections * a.hidden_size * hidden : 0;
  const held = guided ? 2 * velocityBytes(a, demand) : 0;
  const gaps = rows * (query + repeated) + (unpacks ? a.hidden_size * query : 0);
  return Math.max(NUMBERS.own_segment, upToGrain(condition * hidden + held + Math.max(blocks, timestep) + gaps));
}

const velocityBytes = (a, demand) => demand.songs * demand.frames * a.audio_acoustic_hidden_dim * demand.itemsize;

// What stays allocated through the steps.
function stepsBeside(variant, quantization, demand) {
  const a = NUMBERS.architectures[variant];
  const channels = a.audio_acoustic_hidden_dim;
  const width = a.hidden_size;
  const unpacks = quantization !== null && NUMBERS.weight_formats[quantization].weight_only;
  const weight = unpacks ? 1 : demand.itemsize;
  const timestep = [NUMBERS.time_frequencies, width, NUMBERS.time_projections * width].map((n) => n * width * weight);
  const large = segmentBytes([
    demand.workspace,
    conditionTokens(demand) * a.encoder_width * demand.itemsize,
    demand.contexts * demand.frames * 2 * channels * demand.itemsize,
    demand.songs * demand.frames * channels * NUMBERS.float32,
    width * a.in_channels * a.patch_size * demand.itemsize,
    ...timestep,
    ...timestep,
    width * a.encoder_width * weight,
  ]);
  const velocity = velocityBytes(a, demand);
  return large + upToGrain(!a.is_turbo && velocity <= NUMBERS.small_limit ? NUMBERS.guided_velocities * velocity : 0);
}

const knobsKey = (knobs) => `${knobs.quantization ?? "none"}.${knobs.offload}`;

const widthOf = (demand) => Math.floor(demand.itemsize / NUMBERS.coefficient_itemsize);

function denoiseBytes(knobs, demand) {
  const model = NUMBERS.variants[knobs.variant].memory_model;
  const weights = Math.trunc(widthOf(demand) * model[`${knobsKey(knobs)}.denoise.fixed`]);
  const { variant, quantization } = knobs;
  return weights + stepsRoom(variant, quantization, demand) + stepsBeside(variant, quantization, demand);
}

function predictable(knobs, demand) {
  const names = demand.withAudio ? [...NUMBERS.coefficients, ...NUMBERS.coefficients_of_audio] : NUMBERS.coefficients;
  return names.every((name) => `${knobsKey(knobs)}.${name}` in NUMBERS.variants[knobs.variant].memory_model);
}

// The smallest cap of each stage; null where the table does not know these knobs.
function predict(knobs, demand) {
  if (!predictable(knobs, demand)) return null;
  const key = knobsKey(knobs);
  const model = NUMBERS.variants[knobs.variant].memory_model;
  const lyrics = Math.max(0, demand.lyrics - NUMBERS.fewest_lyrics);
  const kept = demand.workspace - NUMBERS.matrix_workspace;
  const around = (bytes) => kept + Math.trunc(widthOf(demand) * bytes);
  const stages = {};
  if (demand.withAudio) {
    const longer = demand.frames * demand.contexts * model[`${key}.encode_audio.frames`];
    stages.encode_audio = around(model[`${key}.encode_audio`] + longer);
  }
  stages.encode = around(model[`${key}.encode`] + lyrics * model[`${key}.encode.lyrics`]);
  stages.denoise = denoiseBytes(knobs, demand);
  stages.decode = around(model[`${key}.decode`]);
  return stages;
}

const restingBytes = (knobs, demand) =>
  widthOf(demand) * Math.trunc(NUMBERS.variants[knobs.variant].memory_model[`${knobsKey(knobs)}.rest`]);

// How many songs of a batch fit into the bytes at once; the passes are of even size.
function songsAtOnce(knobs, demand, room) {
  if (!predictable(knobs, demand)) return demand.songs;
  const usable = Math.max(room, restingBytes(knobs, demand));
  let most = demand.songs;
  while (most > 1 && denoiseBytes(knobs, { ...demand, songs: most }) > usable) most -= 1;
  return ceilDiv(demand.songs, ceilDiv(demand.songs, most));
}

function lmWeightBytes(knobs, itemsize) {
  if (knobs.lm === null) return 0;
  const lm = NUMBERS.lms[knobs.lm];
  if (knobs.lm_quantization === null) return lm.params * itemsize;
  const embedding = lm.vocab_size * lm.hidden_size;
  const { bits } = NUMBERS.weight_formats[knobs.lm_quantization];
  return embedding * itemsize + Math.floor(((lm.params - embedding) * bits) / 8);
}

// Planning one song of that many frames, with nothing else on the card.
function thinkBytes(knobs, frames, itemsize) {
  if (knobs.lm === null) return 0;
  const lm = NUMBERS.lms[knobs.lm];
  const tokens = NUMBERS.longest_prompt_tokens + ceilDiv(frames, NUMBERS.code_frames) + 1;
  const aToken = 2 * lm.num_hidden_layers * lm.num_key_value_heads * lm.head_dim * itemsize;
  const beside = Math.floor((NUMBERS.think_beside * itemsize) / 2);
  const vllm = knobs.backend === "vllm" ? NUMBERS.vllm_beside : 0;
  const weights = lmWeightBytes(knobs, itemsize);
  return Math.trunc(weights * (1 + NUMBERS.think_share_beside)) + 2 * tokens * aToken + beside + vllm;
}

// Whether the language model's weights stay on the card while songs are made.
const lmStays = (knobs) => knobs.lm !== null && knobs.offload === "none" && knobs.backend === "pt";

// What each stage of a request needs of the card; null where the table does not know these knobs.
function stageBytes(knobs, question) {
  const stages = predict(knobs, question.demand);
  if (stages === null || !question.thinks || knobs.lm === null) return stages;
  const resident = lmStays(knobs) ? lmWeightBytes(knobs, question.lmItemsize) : 0;
  const think = restingBytes(knobs, question.demand) + thinkBytes(knobs, question.demand.frames, question.lmItemsize);
  const music = Object.entries(stages).map(([stage, bytes]) => [stage, bytes + resident]);
  return { think, ...Object.fromEntries(music) };
}

// The need of a request whose songs are made one at a time.
function neededBytes(knobs, question) {
  const stages = stageBytes(knobs, { ...question, demand: { ...question.demand, songs: 1 } });
  return stages === null ? null : Math.max(...Object.values(stages));
}

function longestFitting(knobs, question, room) {
  const own = Math.min(NUMBERS.max_duration_s, ceilDiv(question.demand.frames, NUMBERS.frames_a_second));
  const lengths = new Set([own, ...Array.from({ length: NUMBERS.max_duration_s / 60 }, (_, n) => 60 * (n + 1))]);
  lengths.delete(0);
  const fits = (seconds) => {
    const demand = { ...question.demand, frames: seconds * NUMBERS.frames_a_second };
    const needed = neededBytes(knobs, { ...question, demand });
    return needed !== null && needed <= room;
  };
  return [...lengths].sort((one, other) => other - one).find(fits) ?? 0;
}

// The bytes that promises count on, between the certified sizes.
function roomOf(card, system) {
  if (!ownMemory(card)) return 0;
  const points = NUMBERS.budgets[system].map(([size, bytes]) => [size * GIB, bytes]);
  if (!points.length) return 0;
  const size = card.gib * GIB;
  const [[least, ofLeast], [most, ofMost]] = [points[0], points.at(-1)];
  if (size <= least) return Math.max(0, Math.trunc(ofLeast - (least - size)));
  if (size >= most) return Math.trunc((size * ofMost) / most);
  const above = points.findIndex(([end]) => size <= end);
  const [[from, ofFrom], [to, ofTo]] = [points[above - 1], points[above]];
  return Math.trunc(ofFrom + ((ofTo - ofFrom) * (size - from)) / (to - from));
}
