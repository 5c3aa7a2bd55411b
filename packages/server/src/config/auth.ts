/** The token check's settings, section 12 of the contract. */
import { readFileSync, statSync } from "node:fs";
import { decodeJwt } from "jose";
import type { Found, ScopedConfig } from "@libstorage/model";
import type { Checker } from "./check.js";
import { AUTH_KEYS } from "./keys.js";
import type { KeySpec } from "./keys.js";
import type { AuthConfig, TokenAlgorithm } from "./server-config.js";
import { reasonOf } from "./source.js";

const GLOBAL = "libstorage.server";

/** Where a key of the check stands, first place first. Never at the top: `auth` alone may be anything's. */
function placesOfAuth(config: ScopedConfig, owner: string | undefined, key: string): string[] {
  const outer = config.scopes.filter((scope) => !scope.startsWith("libstorage"));
  return [owner, GLOBAL]
    .filter((scope) => scope !== undefined)
    .flatMap((scope) => [...outer.map((above) => `${above}.${scope}.${key}`), `${scope}.${key}`]);
}

/** The check of all requests, or undefined when there is none. */
export function readGlobalAuth(config: ScopedConfig, check: Checker): AuthConfig | undefined {
  return readAuth(config, undefined, check);
}

/** The check of one service; undefined when it has no lists of its own, for the global ones do then. */
export function readServiceAuth(
  server: ScopedConfig,
  config: ScopedConfig,
  owner: string,
  check: Checker,
): AuthConfig | undefined {
  const keys = [AUTH_KEYS.allow, AUTH_KEYS.deny, AUTH_KEYS.disabled].map(({ key }) => key);
  const own = keys.some((key) => config.findAt([`${owner}.${key}`]) !== undefined);
  return own ? readAuth(server, owner, check) : undefined;
}

function readAuth(
  config: ScopedConfig,
  owner: string | undefined,
  check: Checker,
): AuthConfig | undefined {
  const places = (spec: KeySpec): string[] => placesOfAuth(config, owner, spec.key);
  const read = <T>(spec: KeySpec<T>): T | undefined => check.readAt(spec, config, places(spec));
  const allow = read(AUTH_KEYS.allow) ?? [];
  const deny = read(AUTH_KEYS.deny) ?? [];
  const alg: TokenAlgorithm = read(AUTH_KEYS.alg) ?? "HS256";
  const isDisabled = read(AUTH_KEYS.disabled) ?? false;
  const foundKey = config.findAt(places(AUTH_KEYS.key));
  const key = foundKey === undefined ? undefined : readKey(foundKey, check);
  if (isDisabled || (allow.length === 0 && deny.length === 0)) return undefined;
  const where = `${owner ?? GLOBAL}.auth`;
  if (foundKey === undefined) {
    check.note(
      `${where}.key`,
      "is missing: allow and deny need the key that tokens are signed with",
    );
    return undefined;
  }
  const subjects = (entries: readonly string[], name: string): ReadonlySet<string> =>
    new Set(entries.flatMap((entry) => subjectOf(entry, `${where}.${name}`, check) ?? []));
  return {
    alg,
    key: key ?? "",
    allow: subjects(allow, "allow"),
    deny: subjects(deny, "deny"),
  };
}

/** A text that names a file is the file's content; one that looks like a path must name one. */
export function readKey(found: Found, check: Checker): string | undefined {
  const text = check.take(AUTH_KEYS.key, found);
  if (text === undefined || text.includes("\n")) return text;
  const looksLikePath = /^\.{0,2}\//.test(text);
  if (!looksLikePath && statSync(text, { throwIfNoEntry: false })?.isFile() !== true) return text;
  try {
    const key = readFileSync(text, "utf8");
    if (key !== "") return key;
    check.note(found.path, `the key file ${text} is empty`);
  } catch (error) {
    check.note(found.path, `the key file ${text} cannot be read: ${reasonOf(error)}`);
  }
  return undefined;
}

/** A subject, or the `sub` of a token, or of `tag:TOKEN`. Tokens are not verified: the file is trusted. */
function subjectOf(entry: string, path: string, check: Checker): string | undefined {
  const token = /^(?:[^:]*:)?([\w-]+\.[\w-]+\.[\w-]*)$/.exec(entry)?.[1];
  if (token === undefined || !token.startsWith("eyJ")) return entry.toLowerCase();
  try {
    const { sub } = decodeJwt(token);
    if (typeof sub === "string" && sub !== "") return sub.toLowerCase();
  } catch {
    // Said below; the token itself must not be shown.
  }
  check.note(path, "holds a token without a readable subject (sub)");
  return undefined;
}
