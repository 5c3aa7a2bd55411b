/** The TLS settings of one side, section 13 of the contract. Reads no file itself. */
import { parseKnownHost } from "./known-hosts.js";
import type { KnownHost } from "./known-hosts.js";
import { booleanOf } from "./scopes.js";
import type { ConfigProblem, Found, ScopedConfig } from "./scopes.js";

/** What the rules need to know of the host they are read on. */
export interface TlsPlaces {
  /** The folder of the defaults, for example `/etc/libstorage/tls`. */
  readonly folder: string;
  /** The application token; names the default certificate. */
  readonly token: string;
  /** The user's own known-hosts file, if the user has a home. */
  readonly userKnownHosts?: string;
  /** Whether a file exists. */
  readonly exists: (path: string) => boolean;
}

/** TLS for TCP addresses. Unix sockets have none. */
export interface TlsSettings {
  /** Own certificate and key (PEM files): both or neither. */
  readonly certFile?: string;
  readonly keyFile?: string;
  /** The CAs that the other side's certificate is checked against; the system's when absent. */
  readonly trustedCertsFile?: string;
  /** Server: refuse clients without a certificate that verifies. */
  readonly clientCertRequired: boolean;
  /** Client: the name to look for in the server's certificate. */
  readonly serverName?: string;
  /** Whether the certificate must lead to a trusted CA (and, for a client, carry the server's name). */
  readonly verifyChain: boolean;
  /** Whether the peer's fingerprint must be a known host's. */
  readonly verifyKnownHosts: boolean;
  /** The only host that is accepted; the files are not consulted then. */
  readonly pinned?: KnownHost;
  /** Known-hosts files that exist, in the order in which they are consulted. */
  readonly knownHostsFiles: readonly string[];
}

export const TLS_KEYS = [
  "disabled",
  "certFile",
  "keyFile",
  "trustedCertsFile",
  "clientCertRequired",
  "serverName",
  "knownHosts",
  "verifyPeers",
  "insecure",
] as const;

type TlsKey = (typeof TLS_KEYS)[number];

/** Where a side looks for a key of TLS; without a key, for the setting `libstorage.tls` itself. */
export function tlsPlaces(side: "server" | "client", key?: TlsKey): readonly string[] {
  const end = key === undefined ? "" : `.${key}`;
  return [
    `libstorage.${side}.tls${end}`,
    `libstorage.${side}.libstorage.tls${end}`,
    `libstorage.tls${end}`,
  ];
}

interface Reader {
  readonly text: (key: TlsKey) => Found | undefined;
  readonly flag: (key: TlsKey) => boolean | undefined;
  readonly problems: ConfigProblem[];
}

function readerOf(config: ScopedConfig, side: "server" | "client"): Reader {
  const problems: ConfigProblem[] = [];
  const bare = config.under(config.scopes.filter((scope) => !scope.startsWith("libstorage")));
  const find = (key: TlsKey): Found | undefined => bare.findFirst(tlsPlaces(side, key));
  return {
    problems,
    text(key) {
      const found = find(key);
      if (found === undefined || (typeof found.value === "string" && found.value !== ""))
        return found;
      // Some keys are read twice.
      if (!problems.some(({ path }) => path === found.path))
        problems.push({ path: found.path, message: "must be a text" });
      return undefined;
    },
    flag(key) {
      const found = find(key);
      if (found === undefined) return undefined;
      const value = booleanOf(found.value);
      if (value === undefined)
        problems.push({ path: found.path, message: "must be true or false" });
      return value;
    },
  };
}

interface Mode {
  readonly on: boolean | undefined;
  readonly verifyChain?: boolean;
  readonly verifyKnownHosts?: boolean;
  readonly pinned?: KnownHost;
}

/** What the setting `libstorage.tls` itself says. */
function readMode(found: Found | undefined, problems: ConfigProblem[]): Mode {
  if (found === undefined) return { on: undefined };
  const flag = booleanOf(found.value);
  if (flag !== undefined) return { on: flag };
  const text = typeof found.value === "string" ? found.value.trim() : "";
  if (text.toLowerCase() === "insecure") return { on: true, verifyChain: false };
  if (text.toLowerCase() === "verifypeers")
    return { on: true, verifyChain: false, verifyKnownHosts: true };
  const pinned = parseKnownHost(text);
  if (pinned !== undefined) return { on: true, verifyChain: false, verifyKnownHosts: true, pinned };
  problems.push({
    path: found.path,
    message: "must be true, false, insecure, verifyPeers, or HOST sha256 FINGERPRINT (hex SHA-256)",
  });
  return { on: undefined };
}

/** A file that is named must exist; a default counts when it does. */
function fileOf(
  reader: Reader,
  places: TlsPlaces,
  key: TlsKey,
  fallback: string,
  what: string,
): string | undefined {
  const found = reader.text(key);
  if (found === undefined) return places.exists(fallback) ? fallback : undefined;
  const path = String(found.value);
  if (places.exists(path)) return path;
  reader.problems.push({
    path: found.path,
    message: `invalid ${what} file: ${path} does not exist`,
  });
  return undefined;
}

function ownCertificate(
  reader: Reader,
  places: TlsPlaces,
): { readonly certFile: string; readonly keyFile: string } | undefined {
  const stem = `${places.folder}/${places.token}`;
  const certFile = fileOf(reader, places, "certFile", `${stem}.crt`, "crt");
  const keyFile = fileOf(reader, places, "keyFile", `${stem}.key`, "key");
  const named = [reader.text("certFile"), reader.text("keyFile")] as const;
  if (certFile !== undefined && keyFile !== undefined) return { certFile, keyFile };
  if (named[0] !== undefined && named[1] === undefined)
    reader.problems.push({ path: named[0].path, message: "needs a keyFile beside it" });
  if (named[1] !== undefined && named[0] === undefined)
    reader.problems.push({ path: named[1].path, message: "needs a certFile beside it" });
  return undefined;
}

/**
 * The TLS settings of one side. Off when `disabled` is true at any scope, when `libstorage.tls` is false,
 * or when nothing turns it on. Unlike in the reference, `insecure: false` and the like turn nothing on,
 * nor does the mere existence of the user's known-hosts file (section 21).
 * @returns no settings for "off"; the problems name each key that cannot be used
 */
export function readTlsSettings(
  config: ScopedConfig,
  side: "server" | "client",
  places: TlsPlaces,
): { readonly settings: TlsSettings | undefined; readonly problems: readonly ConfigProblem[] } {
  const reader = readerOf(config, side);
  const { problems } = reader;
  const bare = config.under(config.scopes.filter((scope) => !scope.startsWith("libstorage")));
  const mode = readMode(bare.findFirst(tlsPlaces(side)), problems);
  if (isDisabled(bare, side, problems) || mode.on === false)
    return { settings: undefined, problems };

  const knownHosts = reader.text("knownHosts");
  const systemHosts = fileOf(
    reader,
    places,
    "knownHosts",
    `${places.folder}/known_hosts`,
    "known_hosts",
  );
  const cacerts = fileOf(reader, places, "trustedCertsFile", `${places.folder}/cacerts`, "cacerts");
  const own = ownCertificate(reader, places);
  const insecure = reader.flag("insecure");
  const verifyPeers = reader.flag("verifyPeers");
  const clientCertRequired = reader.flag("clientCertRequired");
  const serverName = reader.text("serverName");

  const turnedOn =
    mode.on === true ||
    knownHosts !== undefined ||
    reader.text("trustedCertsFile") !== undefined ||
    own !== undefined ||
    insecure === true ||
    verifyPeers === true ||
    clientCertRequired === true ||
    serverName !== undefined;
  if (!turnedOn) return { settings: undefined, problems };

  // The order of the reference: a later key overrides an earlier one.
  let verifyChain = mode.verifyChain ?? knownHosts === undefined;
  let verifyKnownHosts = mode.verifyKnownHosts ?? knownHosts !== undefined;
  if (insecure !== undefined) verifyChain = !insecure;
  if (verifyPeers !== undefined) {
    verifyKnownHosts = verifyPeers;
    verifyChain = !verifyPeers;
  }
  const user = places.userKnownHosts;
  const files = [user !== undefined && places.exists(user) ? user : undefined, systemHosts];
  const settings: TlsSettings = {
    ...own,
    ...(cacerts !== undefined && { trustedCertsFile: cacerts }),
    clientCertRequired: clientCertRequired ?? false,
    ...(serverName !== undefined && { serverName: String(serverName.value) }),
    verifyChain,
    verifyKnownHosts,
    ...(mode.pinned !== undefined && { pinned: mode.pinned }),
    knownHostsFiles: files.filter((file) => file !== undefined),
  };
  return { settings, problems };
}

/** `disabled: true` at any scope wins over everything else, and over `disabled: false` at another. */
function isDisabled(
  bare: ScopedConfig,
  side: "server" | "client",
  problems: ConfigProblem[],
): boolean {
  return tlsPlaces(side, "disabled")
    .map((place) => {
      const found = bare.find(place);
      if (found === undefined) return false;
      const value = booleanOf(found.value);
      if (value === undefined)
        problems.push({ path: found.path, message: "must be true or false" });
      return value ?? false;
    })
    .some((value) => value);
}
