/** Known-hosts lines, section 13 of the contract: `HOST ALG FINGERPRINT`. */

export interface KnownHost {
  readonly host: string;
  /** Written `sha256`; not checked. */
  readonly algorithm: string;
  /** Hex SHA-256 of the peer's DER certificate, lower case, without colons. */
  readonly fingerprint: string;
}

/** @returns lower case without colons, or undefined when the text is no SHA-256 in hex */
export function normalFingerprint(text: string): string | undefined {
  const plain = text.replaceAll(":", "").toLowerCase();
  return /^[0-9a-f]{64}$/.test(plain) ? plain : undefined;
}

export function parseKnownHost(line: string): KnownHost | undefined {
  const match = /^(\S+)\s(\S+)\s(\S+)$/.exec(line.trim());
  if (match === null) return undefined;
  const [, host = "", algorithm = "", hex = ""] = match;
  const fingerprint = normalFingerprint(hex);
  return fingerprint === undefined ? undefined : { host, algorithm, fingerprint };
}

/** Reads a file of lines; empty lines and lines that start with `#` are skipped. */
export function parseKnownHosts(text: string): {
  readonly hosts: readonly KnownHost[];
  /** Numbers of the lines that are no known host, counted from 1. */
  readonly badLines: readonly number[];
} {
  const hosts: KnownHost[] = [];
  const badLines: number[] = [];
  text.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === "" || line.trimStart().startsWith("#")) return;
    const host = parseKnownHost(line);
    if (host === undefined) badLines.push(index + 1);
    else hosts.push(host);
  });
  return { hosts, badLines };
}

export function formatKnownHost({ host, algorithm, fingerprint }: KnownHost): string {
  return `${host} ${algorithm} ${fingerprint}`;
}

/**
 * The first line of the host decides.
 * @param host the host part of the configured address
 * @param fingerprint of the certificate that the peer showed, in any spelling
 */
export function matchKnownHost(
  hosts: readonly KnownHost[],
  host: string,
  fingerprint: string,
): "accepted" | "conflict" | "unknown" {
  const shown = normalFingerprint(fingerprint);
  const known = hosts.find((line) => line.host.toLowerCase() === host.toLowerCase());
  if (known === undefined) return "unknown";
  return known.fingerprint === shown ? "accepted" : "conflict";
}
