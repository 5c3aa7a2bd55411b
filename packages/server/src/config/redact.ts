/** The configuration as it may be shown: keys in lower case, secrets taken out. */
import { AUTH_KEYS } from "./keys.js";

export const REDACTED = "[redacted]";

const SECRET_KEYS = new Set(
  Object.values(AUTH_KEYS)
    .filter((spec) => spec.isSecret === true)
    .map(({ key }) => key),
);

/** Names that hold secrets whatever driver or program reads them; a file's name is none. */
const SECRET_NAME = /(?:secret|password|passphrase|passwd|token|credential|apikey|privatekey)s?$/;

function isSecret(path: readonly string[]): boolean {
  const name = path.at(-1) ?? "";
  return SECRET_KEYS.has(path.slice(-2).join(".")) || SECRET_NAME.test(name);
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param value a tree of keys as plain objects */
export function shownSettings(
  value: unknown,
  above: readonly string[] = [],
): Readonly<Record<string, unknown>> {
  if (!isMap(value)) return {};
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const path = [...above, key.toLowerCase()];
      if (isSecret(path)) return [key.toLowerCase(), REDACTED];
      return [key.toLowerCase(), isMap(item) ? shownSettings(item, path) : item];
    }),
  );
}
