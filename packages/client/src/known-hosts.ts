/** The peer of a TLS connection against the known hosts, section 13 of the contract. */
import { readFile } from "node:fs/promises";
import type { TLSSocket } from "node:tls";
import { formatKnownHost, matchKnownHost, parseKnownHosts, StorageError } from "@libstorage/model";
import type { KnownHost, TlsSettings } from "@libstorage/model";

async function linesOf(file: string): Promise<readonly KnownHost[]> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    throw new StorageError(
      "failed-precondition",
      `cannot read the known hosts in ${file}: ${error instanceof Error ? error.message : String(error)}`,
      { file },
      { cause: error },
    );
  });
  const { hosts, badLines } = parseKnownHosts(text);
  if (badLines.length > 0)
    throw new StorageError(
      "failed-precondition",
      `${file}: line ${badLines.join(", ")} is not HOST sha256 FINGERPRINT`,
      { file },
    );
  return hosts;
}

/**
 * Accepts a server whose certificate is the known one of its host. With a pinned host only that counts.
 * @throws {StorageError} `unauthenticated`: `unknown host` or `conflict`, with the fingerprint in the data
 */
export async function checkKnownHost(
  settings: TlsSettings,
  host: string,
  socket: TLSSocket,
): Promise<void> {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined)
    throw new StorageError("unauthenticated", `${host} showed no certificate`, { host });
  const fingerprint = certificate.fingerprint256;
  const line = formatKnownHost({
    host,
    algorithm: "sha256",
    fingerprint: fingerprint.replaceAll(":", "").toLowerCase(),
  });
  const sources: (readonly KnownHost[])[] =
    settings.pinned === undefined
      ? await Promise.all(settings.knownHostsFiles.map(linesOf))
      : [[settings.pinned]];
  for (const hosts of sources) {
    const match = matchKnownHost(hosts, host, fingerprint);
    if (match === "accepted") return;
    if (match === "conflict")
      throw new StorageError(
        "unauthenticated",
        `conflict: the certificate of ${host} is not the known one. Someone may be in between, or the server has a new certificate; if you know it has, replace its line by "${line}"`,
        { host, fingerprint, reason: "conflict" },
      );
  }
  const file = settings.knownHostsFiles[0] ?? "~/.libstorage/known_hosts";
  throw new StorageError(
    "unauthenticated",
    `unknown host: ${host} is not among the known hosts. If its certificate is the one you expect, add the line "${line}" to ${file}`,
    { host, fingerprint, reason: "unknown host" },
  );
}
