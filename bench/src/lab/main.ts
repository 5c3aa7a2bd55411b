/**
 * `npm run bench:lab` runs this in a machine of the lab: `main.js RESULT [NAME…]`. As in the other bench each
 * figure is a ratio of two sides that take turns in one run.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { Figure } from "../measure.js";
import { LAB_CASES } from "./cases.js";

const { positionals } = parseArgs({ allowPositionals: true });
const [file = "/tmp/result.json", ...names] = positionals;
const chosen = LAB_CASES.filter(({ name }) => names.length === 0 || names.includes(name));
if (chosen.length === 0) {
  console.error(`no such case; there are: ${LAB_CASES.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
const figures: Figure[] = [];
for (const { name, run } of chosen) {
  console.log(`measuring ${name} …`);
  figures.push(...(await run((text) => console.log(`  ${text}`))));
}
console.table(
  Object.fromEntries(
    figures.map(({ name, value, limit, better, ok }) => [
      name,
      { value, limit: `${better === "lower" ? "at most" : "at least"} ${limit}`, ok },
    ]),
  ),
);
writeFileSync(file, `${JSON.stringify(figures, null, 2)}\n`);
process.exit(figures.every(({ ok }) => ok) ? 0 : 1);
