// Numbers as the command line writes them: Python's rounding and its number formats.

const GIB = 2 ** 30;

// The exact decimal digits of a double say whether it lies in the middle, where Python rounds to the even digit.
function fixed(number, digits) {
  const exact = number.toFixed(80);
  const end = exact.length - 80 + digits;
  const shorter = exact.slice(0, digits ? end : end - 1);
  const middle = /^50*$/.test(exact.slice(end));
  return middle && Number(shorter.at(-1)) % 2 === 0 ? shorter : number.toFixed(digits);
}

// Python's "g": that many significant digits, without zeros at the end.
function general(number, significant = 6) {
  if (number === 0) return "0";
  const digits = Math.max(0, significant - 1 - Math.floor(Math.log10(Math.abs(number))));
  const text = fixed(number, digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

const gib = (bytes) => `${fixed(bytes / GIB, 2)} GiB`;

function minutes(seconds, ofMinutes = (count) => `${count} min`, ofSeconds = (count) => `${count} s`) {
  const whole = Math.floor(seconds / 60);
  const rest = seconds - 60 * whole;
  return [whole ? ofMinutes(whole) : "", rest || !whole ? ofSeconds(general(rest)) : ""].filter(Boolean).join(" ");
}

const songs = (count) => `${count} ${count === 1 ? "song" : "songs"}`;

const ceilDiv = (dividend, divisor) => Math.ceil(dividend / divisor);
