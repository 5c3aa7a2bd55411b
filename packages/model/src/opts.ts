/** How `opts` of a request become a volume's `fields`, section 18 of the contract. */
import type { Fields, Opts } from "./types.js";

/** As Go prints values: `map[k:v]` with sorted keys, `[1 b]`. */
function printed(value: unknown): string {
  if (value === null || value === undefined) return "<nil>";
  if (Array.isArray(value)) return `[${value.map(printed).join(" ")}]`;
  if (typeof value !== "object") return `${value as string | number | boolean}`;
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
