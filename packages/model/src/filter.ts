/**
 * The `filter` parameter, section 7.1 of the contract: LDAP's filter grammar (RFC 4515) over the members of
 * an object. The reference only heeds `(name=VALUE)`; here every form has its effect.
 *
 * Attributes are named without case. `fields.KEY`, `attachments.deviceName` and the like name inner
 * members; of a list, any element may match. A member that an object leaves out matches nothing.
 */
import { StorageError } from "./errors.js";

export type Predicate = (object: object) => boolean;

/** Deeper nesting is nobody's filter, and would end in a full stack. */
const MAX_DEPTH = 100;

/** What is wrong, in the reference's words; or its words with the text that was left over. */
class Malformed extends Error {
  readonly inner: string | { readonly extra: string; readonly msg: string };

  constructor(inner: Malformed["inner"]) {
    super("bad filter");
    this.inner = inner;
  }
}

/**
 * Compiles a filter.
 * @throws {StorageError} `invalid-argument`, with `data.filter` and, for what is wrong, `data.inner`
 */
export function parseFilter(text: string): Predicate {
  try {
    const parser = new Parser(text.trim());
    const predicate = parser.filter(0);
    parser.end();
    return predicate;
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new StorageError("invalid-argument", "bad filter", { filter: text, inner: error.inner });
  }
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  end(): void {
    const extra = this.#text.slice(this.#at);
    if (extra !== "")
      throw new Malformed({ extra, msg: "finished compiling filter with extra at end" });
  }

  filter(depth: number): Predicate {
    if (depth > MAX_DEPTH) throw new Malformed("error parsing filter");
    if (this.#text[this.#at] !== "(") throw new Malformed("filter does not start with an '()'");
    this.#at += 1;
    const predicate = this.#inside(depth);
    if (this.#peek() !== ")") throw new Malformed("error parsing filter");
    this.#at += 1;
    return predicate;
  }

  /** The next character after blanks. */
  #peek(): string {
    while (this.#text[this.#at] === " ") this.#at += 1;
    const char = this.#text[this.#at];
    if (char === undefined) throw new Malformed("unexpected end of filter");
    return char;
  }

  #inside(depth: number): Predicate {
    const operator = this.#peek();
    if (operator !== "&" && operator !== "|" && operator !== "!") return this.#comparison();
    this.#at += 1;
    if (operator === "!") {
      this.#peek();
      const inner = this.filter(depth + 1);
      return (object) => !inner(object);
    }
    const parts: Predicate[] = [];
    while (this.#peek() !== ")") parts.push(this.filter(depth + 1));
    return operator === "&"
      ? (object) => parts.every((part) => part(object))
      : (object) => parts.some((part) => part(object));
  }

  #comparison(): Predicate {
    const close = this.#text.indexOf(")", this.#at);
    if (close < 0) throw new Malformed("unexpected end of filter");
    const match = /^([^=<>~()&|!*\\]+?)\s*(>=|<=|~=|=)(.+)$/s.exec(
      this.#text.slice(this.#at, close),
    );
    if (match === null) throw new Malformed("error parsing filter");
    this.#at = close;
    const [, attribute = "", operator = "", value = ""] = match;
    const path = attribute.trim().toLowerCase();
    const test = testFor(operator, value);
    return (object) => valuesAt(object, path).some(test);
  }
}

type Test = (value: Scalar) => boolean;
type Scalar = string | number | boolean;

function testFor(operator: string, value: string): Test {
  switch (operator) {
    case ">=":
      return ordered(unescape(value), (order) => order >= 0);
    case "<=":
      return ordered(unescape(value), (order) => order <= 0);
    case "~=": {
      const wanted = simplified(unescape(value));
      return (found) => simplified(String(found)) === wanted;
    }
    default:
      if (value === "*") return () => true;
      return value.includes("*")
        ? substring(value.split("*").map(unescape))
        : equal(unescape(value));
  }
}

/** `\HH` stands for a byte of UTF-8. */
function unescape(text: string): string {
  if (!text.includes("\\")) return text;
  if (/\\(?![0-9a-f]{2})/i.test(text)) throw new Malformed("error parsing filter");
  try {
    return decodeURIComponent(encodeURIComponent(text).replace(/%5C([0-9a-f]{2})/gi, "%$1"));
  } catch {
    throw new Malformed("error parsing filter");
  }
}

/** Without case, blanks, punctuation and accents. */
function simplified(text: string): string {
  return text
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]/gu, "");
}

function equal(text: string): Test {
  const lower = text.toLowerCase();
  const number = numberIn(text);
  return (found) => (typeof found === "number" ? found === number : fold(found) === lower);
}

function substring([first = "", ...rest]: readonly string[]): Test {
  const initial = first.toLowerCase();
  const final = (rest.pop() ?? "").toLowerCase();
  const middle = rest.map((part) => part.toLowerCase());
  return (found) => {
    const text = fold(found);
    if (!text.startsWith(initial)) return false;
    let at = initial.length;
    for (const part of middle) {
      const next = text.indexOf(part, at);
      if (next < 0) return false;
      at = next + part.length;
    }
    return text.length - final.length >= at && text.endsWith(final);
  };
}

/** Numbers by value, also when they are written as text; all else by its characters. */
function ordered(text: string, isWanted: (order: number) => boolean): Test {
  const lower = text.toLowerCase();
  const number = numberIn(text);
  return (found) => {
    const own = typeof found === "number" ? found : numberIn(String(found));
    if (own !== undefined && number !== undefined) return isWanted(own - number);
    if (typeof found === "number") return false;
    const other = fold(found);
    return isWanted(other < lower ? -1 : other > lower ? 1 : 0);
  };
}

function numberIn(text: string): number | undefined {
  return /^[+-]?\d+(?:\.\d+)?$/.test(text) ? Number(text) : undefined;
}

function fold(value: Scalar): string {
  return String(value).toLowerCase();
}

/** Every plain value at a path. A name may itself hold dots, so the longest one is tried first. */
function valuesAt(value: unknown, path: string): Scalar[] {
  if (Array.isArray(value)) return value.flatMap((item) => valuesAt(item, path));
  if (typeof value !== "object" || value === null) return [];
  for (const [key, member] of Object.entries(value)) {
    const name = key.toLowerCase();
    if (name === path) return scalarsIn(member);
    if (!path.startsWith(`${name}.`)) continue;
    const found = valuesAt(member, path.slice(name.length + 1));
    if (found.length > 0) return found;
  }
  return [];
}

/** An object counts as there, for `=*`, though it equals nothing. */
function scalarsIn(value: unknown): Scalar[] {
  if (Array.isArray(value)) return value.flatMap(scalarsIn);
  if (typeof value === "object" && value !== null) return [""];
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? [value]
    : [];
}
