/** Long flags of configuration keys, section 15.1 of the contract: `--libstorageTlsDisabled=true`. */
import { TLS_KEYS, booleanOf, flagOfKey } from "@libstorage/model";
import { AUTH_KEYS, KEYS } from "../config/keys.js";

const FLAG_KEYS: readonly { readonly key: string; readonly isBoolean: boolean }[] = [
  ...Object.values(KEYS).flatMap(({ key, type, before = [] }) =>
    [key, ...before].map((one) => ({ key: one, isBoolean: type === "boolean" })),
  ),
  ...Object.values(AUTH_KEYS).map(({ key, type }) => ({
    key: `libstorage.server.${key}`,
    isBoolean: type === "boolean",
  })),
  { key: "libstorage.driver", isBoolean: false },
  { key: "libstorage.tls", isBoolean: false },
  ...TLS_KEYS.flatMap((name) =>
    ["libstorage.tls", "libstorage.server.tls"].map((above) => ({
      key: `${above}.${name}`,
      isBoolean: /^(?:disabled|clientCertRequired|verifyPeers|insecure)$/.test(name),
    })),
  ),
];

const BY_FLAG = new Map(FLAG_KEYS.map((one) => [flagOfKey(one.key).toLowerCase(), one]));

/**
 * Takes flags of keys out of the arguments. `--FLAG VALUE` and `--FLAG=VALUE`; a boolean's alone is true.
 * @returns the values by key in lower case, and the other arguments in their order
 */
export function takeConfigFlags(args: readonly string[]): {
  readonly flags: ReadonlyMap<string, string>;
  readonly rest: readonly string[];
} {
  const flags = new Map<string, string>();
  const rest: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at] ?? "";
    const [, name = "", value] = /^--([A-Za-z]+)(?:=(.*))?$/s.exec(arg) ?? [];
    const known = BY_FLAG.get(name.toLowerCase());
    const next = args[at + 1];
    if (known === undefined) rest.push(arg);
    else if (value !== undefined) flags.set(known.key.toLowerCase(), value);
    else if (known.isBoolean && booleanOf(next) === undefined)
      flags.set(known.key.toLowerCase(), "true");
    else if (next !== undefined) {
      flags.set(known.key.toLowerCase(), next);
      at += 1;
    } else rest.push(arg);
  }
  return { flags, rest };
}
