/** Decides which TLS clients get in. Node verifies the chain; what follows from it is decided here. */
import type { TLSSocket } from "node:tls";
import type { TlsSettings } from "@libstorage/model";
import { normalFingerprint } from "@libstorage/model";
import type { TlsMaterial } from "./material.js";

/**
 * A decision per connection instead of Node's `rejectUnauthorized`, because that one is fixed when the
 * server is made, knows no fingerprints, and does not say why it refused.
 * @returns why the client is refused, or undefined when it may pass
 */
export function refusal(
  socket: TLSSocket,
  tls: TlsSettings,
  material: TlsMaterial,
): string | undefined {
  if (!tls.clientCertRequired && !tls.verifyKnownHosts) return undefined;
  const raw = socket.getPeerX509Certificate();
  if (raw === undefined) return "it showed no certificate";
  if (tls.verifyKnownHosts) {
    const shown = normalFingerprint(raw.fingerprint256);
    // The host of a line is a label here: clients have changing addresses, but one certificate.
    const isKnown = material.knownHosts.some(({ fingerprint }) => fingerprint === shown);
    if (!isKnown) return `its certificate (${shown}) is no known host's`;
  }
  if (!tls.verifyChain || socket.authorized) return undefined;
  const reason: unknown = socket.authorizationError;
  return `its certificate was not accepted: ${typeof reason === "string" ? reason : String(reason)}`;
}
