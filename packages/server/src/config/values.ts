/** How a value of the configuration is written: in YAML with its type, in the environment as text. */
import * as v from "valibot";
import { booleanOf, parseAddress, parseDuration, parseSize } from "@libstorage/model";
import type { Address } from "@libstorage/model";
import { problemOfLocation } from "../frontends/hypervisor/locations.js";

/** Reads any value, or throws a text that says what it must be. */
function valueSchema<T>(read: (value: unknown) => T | undefined, mustBe: string) {
  return v.pipe(
    v.unknown(),
    v.rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      const value = read(dataset.value);
      if (value !== undefined) return value;
      addIssue({ message: `must be ${mustBe}` });
      return NEVER;
    }),
  );
}

const textOf = (value: unknown): string | undefined =>
  typeof value === "string" || typeof value === "number" ? String(value).trim() : undefined;

export const text = valueSchema<string>((value) => textOf(value) || undefined, "a text");

export const absolutePath = valueSchema<string>((value) => {
  const plain = textOf(value) ?? "";
  return plain.startsWith("/") && !plain.includes("\0") ? plain : undefined;
}, "a path that begins with /");

export const boolean = valueSchema<boolean>(booleanOf, "true or false");

/** Milliseconds. */
export const duration = valueSchema<number>(
  (value) => parseDuration(textOf(value) ?? ""),
  "a duration such as 30s, 5m, 1h or 7d",
);

/** Milliseconds, more than none; `1ns` is what the reference's tests set. */
export const positiveDuration = valueSchema<number>((value) => {
  const ms = parseDuration(textOf(value) ?? "");
  return ms === undefined || ms <= 0 ? undefined : ms;
}, "a duration of more than 0s, such as 30s, 5m, 1h or 7d");

export function integer(least: number, most: number) {
  return valueSchema<number>((value) => {
    const plain = textOf(value) ?? "";
    const number = /^\d+$/.test(plain) ? Number(plain) : Number.NaN;
    return number >= least && number <= most ? number : undefined;
  }, `a whole number from ${least} to ${most}`);
}

/** Bytes. Unlike a volume's size, a bare number counts bytes. */
export const bytes = valueSchema<number>((value) => {
  const plain = textOf(value) ?? "";
  // Whole numbers up to GiB: these are limits of a server, not sizes of volumes.
  return /^\d+\s*(?:b|[kmg](?:i?b)?)?$/i.test(plain) ? parseSize(plain, 1) || undefined : undefined;
}, "a number of bytes such as 65536, 512KiB or 2MiB");

export function choice<const T extends string>(...names: readonly T[]) {
  return valueSchema<T>(
    (value) => {
      const plain = textOf(value)?.toLowerCase();
      return names.find((name) => name.toLowerCase() === plain);
    },
    `one of ${names.join(", ")}`,
  );
}

/** A list, or one text split at spaces. */
export const list = valueSchema<readonly string[]>((value) => {
  if (Array.isArray(value)) {
    const texts = value.map(textOf);
    return texts.every((item) => item !== undefined && item !== "")
      ? (texts as string[])
      : undefined;
  }
  return textOf(value)
    ?.split(/\s+/)
    .filter((part) => part !== "");
}, "a list of texts, or one text split at spaces");

/** A list of wildcards of files. */
export const fileLocations = v.pipe(
  list,
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    for (const pattern of dataset.value) {
      const problem = problemOfLocation(pattern);
      if (problem !== undefined) addIssue({ message: `the wildcard ${pattern} ${problem}` });
    }
  }),
);

const MODES: Readonly<Record<string, number>> = { 600: 0o600, 660: 0o660, 666: 0o666 };

/** YAML reads 0660 as the number 660 and 0o660 as 432; both are meant octal here. */
export const socketMode = valueSchema<number>((value) => {
  const plain = (textOf(value) ?? "").replace(/^0o?/, "");
  return MODES[plain] ?? Object.values(MODES).find((mode) => mode === Number(plain));
}, "one of 0600, 0660, 0666");

/** Where a server listens. */
export type EndpointAddress =
  | Address
  /** A new socket file in the run folder. */
  | { readonly kind: "auto-unix" };

export const address = valueSchema<EndpointAddress>((value) => {
  const plain = textOf(value) ?? "";
  if (plain.toLowerCase() === "unix") return { kind: "auto-unix" };
  if (/^tcp[46]?$/i.test(plain)) return { kind: "tcp", host: "127.0.0.1", port: 0 };
  try {
    return parseAddress(plain);
  } catch {
    return undefined;
  }
}, "an address: tcp://HOST:PORT, unix:///PATH, tcp (a free port of this host) or unix (a socket in the run folder)");

/** The name of a service: it stands in paths, headers and lock names. */
export const SERVICE_NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;
