/** TLS within NBD: who a client is, by its certificate or by its pre-shared key. */
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { createServer } from "node:tls";
import type { TLSSocket, TlsOptions } from "node:tls";
import type { NbdConfig } from "./config.js";

export interface Secured {
  readonly stream: TLSSocket;
  /** What the client may be called: the most telling name first. */
  readonly names: readonly string[];
}

/** Lines `IDENTITY:HEX`, as GnuTLS keeps them. */
export function parseKeys(text: string): ReadonlyMap<string, Buffer> {
  const lines = text.split(/\r?\n/).map((line) => /^([^:#\s][^:]*):((?:[\da-f]{2})+)$/i.exec(line));
  return new Map(
    lines.flatMap((line) =>
      line === null ? [] : [[line[1] ?? "", Buffer.from(line[2] ?? "", "hex")] as const],
    ),
  );
}

/**
 * The names of a certificate's holder: common name and DNS names in lower case; the distinguished name as
 * RFC 4514 writes it, which is backwards, and as it is encoded.
 */
export function namesOf(certificate: X509Certificate): readonly string[] {
  // A part a line, each escaped as RFC 2253 says; control characters too.
  const parts = certificate.subject.split("\n");
  const common = parts.flatMap((part) => /^CN=(.*)$/s.exec(part)?.[1] ?? []);
  const other = [...(certificate.subjectAltName ?? "").matchAll(/DNS:([^,\s"]+)/g)];
  return [
    ...[...common, ...other.map(([, name = ""]) => name)].map((name) => name.toLowerCase()),
    parts.toReversed().join(","),
    parts.join(","),
  ];
}

/** With the files as they are now. */
export async function openTls({ tls, pskFile }: NbdConfig): Promise<{
  secure(socket: Socket): Promise<Secured>;
}> {
  const options: TlsOptions = {};
  if (tls !== undefined) {
    const [cert, key, ca] = await Promise.all([
      readFile(tls.certFile),
      readFile(tls.keyFile),
      readFile(tls.trustedCertsFile),
    ]);
    Object.assign(options, { cert, key, ca, requestCert: true, rejectUnauthorized: true });
  }
  let identity: string | undefined;
  if (pskFile !== undefined) {
    const keys = parseKeys(await readFile(pskFile, "utf8"));
    options.pskCallback = (_socket: TLSSocket, asked: string) => {
      identity = asked;
      return keys.get(asked) ?? null;
    };
    // By certificate, too, where there is one. Keys never come with TLS 1.3's own: its clients differ.
    options.ciphers = tls === undefined ? "PSK" : "HIGH:PSK:!aNULL";
    if (tls === undefined) options.maxVersion = "TLSv1.2";
  }
  const server = createServer(options);
  return {
    async secure(socket) {
      const stream = await new Promise<TLSSocket>((resolve, reject) => {
        server.once("secureConnection", resolve);
        server.once("tlsClientError", reject);
        server.emit("connection", socket);
      });
      const { raw } = stream.getPeerCertificate() as { raw?: Buffer };
      if (raw !== undefined) return { stream, names: namesOf(new X509Certificate(raw)) };
      return { stream, names: identity === undefined ? [] : [identity.toLowerCase()] };
    },
  };
}
