// The language of the page, and sentences of acestep in it, as acestep/ui/sentences.py translates them.

const SOURCE = "en";
const QUOTED = ["card", "command", "device", "error", "file", "folder", "got", "said"];
const DEEPEST = 4;

// The most wanted language of the browser that there is.
const ofBrowser = () =>
  navigator.languages.map((name) => name.split("-")[0].toLowerCase()).find((name) => name in TEXTS) ?? SOURCE;

let language = ofBrowser();

const text = (key, values = {}) => filled(TEXTS[language][key], values);

const filled = (said, values) => said.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A length of music or of time in the page's language.
const duration = (seconds) =>
  minutes(seconds, (count) => text("minutes", { count }), (count) => text("seconds", { count }));

const templates = new Map();

function templatesOf(name) {
  if (!templates.has(name)) {
    const fixed = ([english]) => english.replace(/\{\w+\}/g, "").length;
    const ordered = Object.entries(SENTENCES[name]).sort((one, other) => fixed(other) - fixed(one));
    templates.set(name, ordered.map(([english, said]) => ({ ...patternOf(english), said })));
  }
  return templates.get(name);
}

function patternOf(english) {
  const parts = english.split(/\{(\w+)\}/);
  const pattern = parts.map((part, place) => {
    if (place % 2) return part === "count" ? "(?<count>[0-9]+(?:[.,][0-9]+)*)" : `(?<${part}>.*?)`;
    return part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  const hasWords = parts.some((part, place) => place % 2 === 0 && /\p{L}/u.test(part));
  return { pattern: new RegExp(`^${pattern.join("")}$`, "s"), hasWords };
}

// A text without a translation stays as it is.
function translated(english, depth = 0) {
  if (language === SOURCE || depth > DEEPEST) return english;
  for (const { pattern, said, hasWords } of templatesOf(language)) {
    const match = pattern.exec(english);
    if (!match) continue;
    const found = Object.entries(match.groups ?? {});
    const parts = found.map(([name, part]) => [name, QUOTED.includes(name) ? part : translated(part, depth + 1)]);
    if (hasWords || parts.some(([, part], place) => part !== found[place][1])) {
      return filled(said, Object.fromEntries(parts));
    }
  }
  return english;
}
