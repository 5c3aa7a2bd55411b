/** How query values are read and written, section 3 of the contract. */
import { ATTACHMENTS_TRUE } from "./attachments.js";
import { StorageError } from "./errors.js";

/** The kinds of query parameters, and the type each has once read. */
export interface QueryTypes {
  flag: boolean;
  /** An attachments mask. */
  mask: number;
  text: string;
  /** A whole number above zero. */
  count: number;
}
export type QueryKind = keyof QueryTypes;

const TRUE = new Set(["", "true", "t", "T", "TRUE", "True", "1"]);
const FALSE = new Set(["false", "f", "F", "FALSE", "False", "0"]);

/** A bare parameter is true; what is no boolean at all is false, as in the reference. */
export function parseFlag(text: string): boolean {
  return TRUE.has(text);
}

/** An integer is the mask; true is 15; false is 1; any other text, or a repeated parameter, is 0. */
export function parseMask(text: string): number {
  if (/^[+-]?\d{1,15}$/.test(text)) return Number(text);
  if (TRUE.has(text)) return ATTACHMENTS_TRUE;
  if (FALSE.has(text)) return 1;
  return 0;
}

/**
 * One query parameter, from its occurrences in the URL.
 * @throws {StorageError} `invalid-argument` for a count that is none, or a text given twice
 */
export function parseQueryValue<K extends QueryKind>(
  name: string,
  kind: K,
  values: readonly string[],
): QueryTypes[K] {
  const parsed = parseKind(name, kind, values);
  return parsed as QueryTypes[K];
}

function parseKind(name: string, kind: QueryKind, values: readonly string[]): unknown {
  const [value = ""] = values;
  switch (kind) {
    case "flag":
      return values.length === 1 && parseFlag(value);
    case "mask":
      return values.length === 1 ? parseMask(value) : 0;
    case "text":
      if (values.length > 1)
        throw new StorageError("invalid-argument", `query parameter ${name} is given twice`);
      return value;
    case "count": {
      const count = Number(value);
      if (values.length !== 1 || !/^\d+$/.test(value) || count < 1 || !Number.isSafeInteger(count))
        throw new StorageError(
          "invalid-argument",
          `query parameter ${name} must be a whole number above 0, not "${values.join(",")}"`,
        );
      return count;
    }
    default:
      return kind satisfies never;
  }
}
