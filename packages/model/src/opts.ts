/** How `opts` of a request become a volume's `fields`, section 18 of the contract. */
import type { Fields, Opts } from "./types.js";

/**
 * A number as Go prints a float64, which is what its JSON decoder makes of all of them: from a million on,
 * and below 0.0001, with an exponent of at least two figures.
 */
function printedNumber(value: number): string {
  const [digits = "", exponentText = ""] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (value === 0 || (exponent >= -4 && exponent < 6)) return String(value);
  const sign = exponent < 0 ? "-" : "+";
  return `${digits}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** As Go prints values: `map[k:v]` with sorted keys, `[1 b]`. */
function printed(value: unknown): string {
  if (value === null || value === undefined) return "<nil>";
  if (Array.isArray(value)) return `[${value.map(printed).join(" ")}]`;
  if (typeof value === "number") return printedNumber(value);
  if (typeof value !== "object") return `${value as string | boolean}`;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([key, member]) => `${key}:${printed(member)}`).join(" ")}]`;
}

/** Keys in lower case; texts as they are, null as an empty one, everything else as Go prints it. */
export function fieldsOfOpts(opts: Opts): Fields {
  return Object.fromEntries(
    Object.entries(opts).map(([key, value]) => [
      key.toLowerCase(),
      value === null ? "" : printed(value),
    ]),
  );
}
