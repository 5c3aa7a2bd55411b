/**
 * `npm run bench`: measures, prints a table, and writes bench/result.json. Each figure is a ratio taken in
 * one run; ends with 1 when one misses its limit. `npm run bench NAME…` measures only those
 * cases, or groups of cases.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { CASES } from "./cases.js";
import type { Figure } from "./measure.js";

const { positionals } = parseArgs({ allowPositionals: true });
const chosen = CASES.filter(({ name, group = name, isNamedOnly }) =>
  positionals.length === 0
    ? isNamedOnly !== true
    : positionals.some((one) => one === name || one === group),
);
if (chosen.length === 0) {
  console.error(`no such case; there are: ${CASES.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const figures: Figure[] = [];
for (const { name, run } of chosen) {
  console.error(`measuring ${name} …`);
  const measured = await run((text) => console.error(`  ${text}`));
  figures.push(...measured);
}
console.table(
  Object.fromEntries(
    figures.map(({ name, value, limit, better, ok }) => [
      name,
      { value, limit: `${better === "lower" ? "at most" : "at least"} ${limit}`, ok },
    ]),
  ),
);
if (positionals.length === 0)
  writeFileSync(
    fileURLToPath(new URL("../result.json", import.meta.url)),
    `${JSON.stringify(figures, null, 2)}\n`,
  );
process.exit(figures.every(({ ok }) => ok) ? 0 : 1);
