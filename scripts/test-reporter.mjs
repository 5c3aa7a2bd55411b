// Node's own report, with the reasons of skipped tests before its closing lines, and those at the end.
import { spec, tap } from "node:test/reporters";

const isClosing = ({ type, data }) =>
  type === "test:diagnostic" &&
  data.nesting === 0 &&
  /^(?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/.test(data.message);

function* through(stream, event) {
  stream.write(event);
  for (let text = stream.read(); text !== null; text = stream.read()) yield String(text);
}

async function* closingLines(events) {
  if (process.stdout.isTTY) {
    const report = new spec();
    for (const event of events) yield* through(report, event);
    return;
  }
  // Pipes and CI know the lines of TAP best.
  const lines = tap(
    (async function* () {
      yield* events;
    })(),
  );
  for await (const line of lines) if (line.startsWith("#")) yield line;
}

/** How many names are shown of tests that share a reason. */
const SHOWN = 3;

function* skipLines(skipped) {
  if (skipped.length === 0) return;
  yield "\nskipped:\n";
  for (const [reason, tests] of grouped(skipped)) {
    const more = tests.length > SHOWN ? `, and ${tests.length - SHOWN} more` : "";
    const names = tests.slice(0, SHOWN).map(([name]) => name);
    yield `  ${reason}\n    ${names.join("; ")}${more}\n`;
  }
}

function grouped(skipped) {
  const groups = new Map();
  for (const one of skipped) groups.set(one[1], [...(groups.get(one[1]) ?? []), one]);
  return groups;
}

export default async function* report(source) {
  const main = new spec();
  const closing = [];
  const skipped = [];
  for await (const event of source) {
    if (isClosing(event)) {
      closing.push(event);
      continue;
    }
    const { type, data } = event;
    if (type === "test:pass" && data.skip !== undefined && data.skip !== false)
      skipped.push([
        data.name,
        data.skip === true || data.skip === "" ? "no reason given" : data.skip,
      ]);
    yield* through(main, event);
  }
  // What the runner adds at its end: the failures once more.
  main.end();
  for await (const text of main) yield String(text);
  yield* skipLines(skipped);
  yield "\n";
  yield* closingLines(closing);
}
