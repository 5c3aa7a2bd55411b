/**
 * The table of `docs/compatibility.md` as data. A row allows one difference, and only where all of its
 * conditions hold.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Difference } from "./compare.js";

export interface Row {
  readonly id: string;
  readonly explains: (difference: Difference) => boolean;
}

const DOCUMENT = fileURLToPath(new URL("../../../docs/compatibility.md", import.meta.url));

/** Splits a line of a Markdown table; `\|` is a bar inside a cell. */
function cellsOf(line: string): string[] {
  return line
    .replace(/^\||\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.replaceAll("\\|", "|").trim());
}

/** Code spans of a cell; a cell without any counts as one. */
function spansOf(cell: string): string[] {
  const spans = [...cell.matchAll(/`([^`]+)`/g)].map(([, span = ""]) => span);
  return spans.length === 0 ? [cell] : spans;
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** `name` or `name#1,2,5-8`: a trace, and which of its exchanges, counted from 0. */
function traceTest(span: string): (difference: Difference) => boolean {
  const [name = "", numbers] = span.split("#");
  const trace = new RegExp(`^${escaped(name).replaceAll("\\*", ".*")}$`);
  const wanted = numbers?.split(",").flatMap((part) => {
    const [from = 0, to = from] = part.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_none, step) => from + step);
  });
  return (difference) =>
    trace.test(difference.trace) && (wanted === undefined || wanted.includes(difference.index));
}

/** `GET /volumes/*`: a `*` stands for any text, in the method for any method. */
function requestTest(span: string): (difference: Difference) => boolean {
  const [method = "", path = ""] = span.split(" ");
  const methods = method === "*" ? undefined : method.split(",");
  const pattern = new RegExp(`^${escaped(path).replaceAll("\\*", ".*")}$`);
  return (difference) =>
    (methods?.includes(difference.method) ?? true) && pattern.test(difference.path);
}

/** `status`, `header NAME`, `body POINTER`; in a pointer `*` stands for one member's name. */
function whereTest(span: string): (difference: Difference) => boolean {
  const pattern = new RegExp(`^${escaped(span).replaceAll("\\*", "[^/]*")}$`, "i");
  return (difference) => pattern.test(difference.where);
}

/** `(absent)`, `/regular expression/` over the value's JSON, or JSON. */
function valueTest(span: string): (value: unknown) => boolean {
  if (span === "(absent)") return (value) => value === undefined;
  if (span.startsWith("/")) {
    const pattern = new RegExp(span.slice(1, span.lastIndexOf("/")));
    return (value) => value !== undefined && pattern.test(plain(value));
  }
  return (value) => JSON.stringify(value) === JSON.stringify(JSON.parse(span));
}

/** Texts as they are, so that patterns need not escape quotes. */
function plain(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function any<T>(tests: readonly ((value: T) => boolean)[]): (value: T) => boolean {
  return (value) => tests.some((test) => test(value));
}

/**
 * The alternatives of a row: where, reference and here go together in the order of their spans; a single
 * span goes with all of the others.
 */
function rowsOf([id = "", traces = "", requests = "", ...cells]: readonly string[]): Row[] {
  const isTrace = any(spansOf(traces).map(traceTest));
  const isRequest = any(spansOf(requests).map(requestTest));
  const [where = [], reference = [], here = []] = cells.slice(0, 3).map(spansOf);
  const count = Math.max(where.length, reference.length, here.length);
  const at = (spans: readonly string[], index: number): string => {
    if (spans.length !== 1 && spans.length !== count)
      throw new Error(`${id}: ${spans.length} alternatives stand beside ${count}`);
    return spans[spans.length === 1 ? 0 : index] ?? "";
  };
  return Array.from({ length: count }, (_none, index) => {
    const isWhere = whereTest(at(where, index));
    const isReference = valueTest(at(reference, index));
    const isHere = valueTest(at(here, index));
    return {
      id: count === 1 ? id : `${id} (${index + 1})`,
      explains: (difference) =>
        isTrace(difference) &&
        isRequest(difference) &&
        isWhere(difference) &&
        isReference(difference.reference) &&
        isHere(difference.here),
    };
  });
}

/** Every row whose first cell is an id such as `C-07`, alternative by alternative. */
export async function readRows(): Promise<readonly Row[]> {
  const text = await readFile(DOCUMENT, "utf8");
  return text
    .split("\n")
    .filter((line) => /^\| C-\d+ \|/.test(line))
    .flatMap((line) => rowsOf(cellsOf(line)));
}
