/** What differs between a recorded response and one of this server, piece by piece. */
import { wireJson } from "@libstorage/model";
import { headerOf } from "./traces.js";
import type { RecordedResponse } from "./traces.js";

export interface Difference {
  readonly trace: string;
  readonly index: number;
  readonly method: string;
  readonly path: string;
  /** `status`, `header NAME`, or `body POINTER`. */
  readonly where: string;
  /** Undefined where there is none. */
  readonly reference: unknown;
  readonly here: unknown;
}

export type Place = Pick<Difference, "trace" | "index" | "method" | "path">;

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Decompressed. */
  readonly body: string;
}

type Found = Pick<Difference, "where" | "reference" | "here">;

/** Values that are other ones each time: they need only be there, and of the right form. */
const VOLATILE_HEADERS: Readonly<Record<string, RegExp>> = {
  date: /^\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$/,
  "libstorage-servername": /^[a-z]+-[a-z]+-[a-z]{2}$/,
  "content-length": /^\d+$/,
  "last-modified": /^\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} UTC$/,
  "content-md5": /^[\w+/]{22}==$/,
};

function compareHeaders(recorded: RecordedResponse, answer: Answer): Found[] {
  const names = new Set(
    [...Object.keys(recorded.headers), ...Object.keys(answer.headers)].map((name) =>
      name.toLowerCase(),
    ),
  );
  return [...names].flatMap((name) => {
    const reference = headerOf(recorded.headers, name);
    const here = headerOf(answer.headers, name);
    if (reference === here) return [];
    const form = VOLATILE_HEADERS[name];
    const isAlike =
      form !== undefined &&
      reference !== undefined &&
      here !== undefined &&
      form.test(reference) &&
      form.test(here);
    return isAlike ? [] : [{ where: `header ${name}`, reference, here }];
  });
}

function parsed(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/** Unix seconds; `startTime` of snapshots as well as of tasks. */
const TIMES = new Set(["completeTime", "queueTime", "startTime", "lastModified"]);
const MD5 = "md5checksum";

function isVolatile(pointer: string, reference: unknown, here: unknown): boolean {
  const name = pointer.slice(pointer.lastIndexOf("/") + 1);
  if (/^\/lsx-[^/]+\/size$/.test(pointer)) return [reference, here].every(Number.isInteger);
  if (TIMES.has(name))
    return [reference, here].every((time) => Number.isInteger(time) && Number(time) > 1.7e9);
  return name === MD5 && [reference, here].every((sum) => /^[\da-f]{32}$/.test(String(sum)));
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Lists of texts are compared as a whole: one more at their head would shift all others. */
function isTextList(value: unknown): value is readonly string[] {
  return (
    Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "string")
  );
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function compareValues(pointer: string, reference: unknown, here: unknown): Found[] {
  if (isVolatile(pointer, reference, here)) return [];
  if (isMap(reference) && isMap(here)) {
    const names = new Set([...Object.keys(reference), ...Object.keys(here)]);
    const members = [...names].flatMap((member) =>
      compareValues(`${pointer}/${member}`, reference[member], here[member]),
    );
    return [...members, ...compareOrder(pointer, reference, here)];
  }
  if (isTextList(reference) && isTextList(here))
    return isSame(reference, here) ? [] : [{ where: `body ${pointer}`, reference, here }];
  if (Array.isArray(reference) && Array.isArray(here)) {
    const length = Math.max(reference.length, here.length);
    return Array.from({ length }, (_none, at) => at).flatMap((at) =>
      compareValues(`${pointer}/${at}`, reference[at], here[at]),
    );
  }
  if (isSame(reference, here)) return [];
  return [{ where: `body ${pointer}`, reference, here }];
}

/** The members that both have come in the same order. */
function compareOrder(pointer: string, reference: object, here: object): Found[] {
  const common = (keys: string[], other: object): string =>
    keys.filter((key) => Object.hasOwn(other, key)).join(" ");
  const was = common(Object.keys(reference), here);
  const is = common(Object.keys(here), reference);
  return was === is ? [] : [{ where: `body ${pointer} order`, reference: was, here: is }];
}

/** JSON is written to the byte as the reference writes it. */
function compareForm({ headers, body: here }: Answer): Found[] {
  if (headerOf(headers, "content-type") !== "application/json" || here === "") return [];
  const reference = wireJson(JSON.parse(here));
  return reference === here ? [] : [{ where: "body form", reference, here }];
}

export function compare(place: Place, recorded: RecordedResponse, answer: Answer): Difference[] {
  const found: Found[] = [
    ...(recorded.status === answer.status
      ? []
      : [{ where: "status", reference: recorded.status, here: answer.status }]),
    ...compareHeaders(recorded, answer),
    ...compareForm(answer),
    ...compareValues("", parsed(recorded.body ?? ""), parsed(answer.body)),
  ];
  return found.map((one) => ({ ...place, ...one }));
}
