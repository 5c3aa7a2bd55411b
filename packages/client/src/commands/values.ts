/** Values of options that several commands read. */
import { GIB, parseSize } from "@libstorage/model";
import { UsageError } from "../cli/usage-error.js";

/** `10G`, `1T` or `10` → GiB, which is what the API counts in. */
export function readSize(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes < 0)
    throw new UsageError(`"${text}" is no size: write it like 10G, 512GiB or 1T`);
  if (bytes % GIB !== 0)
    throw new UsageError(
      `sizes are whole GiB; the next one above ${text} is ${Math.ceil(bytes / GIB)}G`,
    );
  return bytes / GIB;
}

/** `k=v`, several times. */
export function readOpts(
  texts: readonly string[],
  option = "opt",
): Record<string, string> | undefined {
  if (texts.length === 0) return undefined;
  return Object.fromEntries(
    texts.map((text) => {
      const equals = text.indexOf("=");
      if (equals < 1) throw new UsageError(`--${option} must be KEY=VALUE, not "${text}"`);
      return [text.slice(0, equals), text.slice(equals + 1)];
    }),
  );
}

export function readCount(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new UsageError(`--${name} must be a whole number, not "${text}"`);
  return value;
}

export const OPT_OPTION = {
  type: "string",
  multiple: true,
  value: "KEY=VALUE",
  about: "an option for the driver; may be given several times",
} as const;
