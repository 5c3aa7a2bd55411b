/** Certificates, keys and CAs as files hold them: read, checked as a whole, ready to be used. */
import { X509Certificate, createHash, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { SecureContextOptions } from "node:tls";
import { parseKnownHosts } from "@libstorage/model";
import type { CertificateHealth, KnownHost, TlsSettings } from "@libstorage/model";
import { reasonOf } from "../config/source.js";

const DAY_MS = 86_400_000;

export interface TlsMaterial {
  readonly context: SecureContextOptions;
  readonly knownHosts: readonly KnownHost[];
  /** Own certificate and CAs, for warnings before one ends. */
  readonly certificates: readonly {
    readonly file: string;
    readonly certificate: X509Certificate;
  }[];
  /** Files and their contents in one value, to tell a change. */
  readonly digest: string;
  readonly warnings: readonly string[];
}

/** TLS files that cannot be used. The message names the file and what is wrong with it. */
export class TlsMaterialError extends Error {
  override readonly name = "TlsMaterialError";
}

/** The files that a change is looked for in. */
export function filesOf(tls: TlsSettings): readonly string[] {
  return [tls.certFile, tls.keyFile, tls.trustedCertsFile, ...tls.knownHostsFiles].filter(
    (file) => file !== undefined,
  );
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new TlsMaterialError(`${file} cannot be read: ${reasonOf(error)}`);
  }
}

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

function certificatesOf(file: string, text: string): readonly X509Certificate[] {
  const blocks = text.match(PEM) ?? [];
  if (blocks.length === 0) throw new TlsMaterialError(`${file} holds no certificate (PEM)`);
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw new TlsMaterialError(`certificate ${index + 1} of ${file} is damaged`);
    }
  });
}

/**
 * Reads and checks everything, so that a half-written pair is never used.
 * @throws {TlsMaterialError}
 */
export function loadMaterial(tls: TlsSettings): TlsMaterial {
  const { certFile, keyFile, trustedCertsFile } = tls;
  if (certFile === undefined || keyFile === undefined)
    throw new TlsMaterialError("TLS needs a certificate and its key: set certFile and keyFile");
  const cert = read(certFile);
  const key = read(keyFile);
  const ca = trustedCertsFile === undefined ? undefined : read(trustedCertsFile);
  const hosts = tls.knownHostsFiles.map((file) => ({ file, text: read(file) }));
  const own = certificatesOf(certFile, cert)[0];
  if (own === undefined || !matchesKey(own, key, keyFile))
    throw new TlsMaterialError(`${keyFile} is not the key of ${certFile}`);
  const cas =
    ca === undefined || trustedCertsFile === undefined ? [] : certificatesOf(trustedCertsFile, ca);
  const context: SecureContextOptions = {
    cert,
    key,
    ...(ca !== undefined && { ca }),
    minVersion: "TLSv1.2",
  };
  try {
    createSecureContext(context);
  } catch (error) {
    throw new TlsMaterialError(`${certFile} cannot be used: ${reasonOf(error)}`);
  }
  const known = hosts.map(({ file, text }) => ({ file, ...parseKnownHosts(text) }));
  const warnings = known.flatMap(({ file, badLines }) =>
    badLines.map((line) => `${file}, line ${line}: not HOST ALG FINGERPRINT; it is ignored`),
  );
  if ((statSync(keyFile).mode & 0o077) !== 0)
    warnings.push(`${keyFile} can be read by other users: chmod 600 ${keyFile}`);
  return {
    context,
    knownHosts: tls.pinned === undefined ? known.flatMap((one) => one.hosts) : [tls.pinned],
    certificates: [
      { file: certFile, certificate: own },
      ...cas.map((certificate) => ({ file: trustedCertsFile ?? "", certificate })),
    ],
    digest: createHash("sha256")
      .update(JSON.stringify([tls, cert, key, ca, hosts]))
      .digest("hex"),
    warnings,
  };
}

function matchesKey(certificate: X509Certificate, key: string, keyFile: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(key));
  } catch {
    throw new TlsMaterialError(`${keyFile} holds no usable private key (PEM, without passphrase)`);
  }
}

/** When each certificate ends, soonest first. */
export function certificateHealth(material: TlsMaterial): readonly CertificateHealth[] {
  return material.certificates
    .map(({ file, certificate }) => {
      const notAfter = new Date(certificate.validTo);
      return {
        file,
        subject: certificate.subject.replaceAll("\n", ", "),
        notAfter: notAfter.toISOString(),
        daysLeft: Math.floor(((notAfter.getTime() - Date.now()) / DAY_MS) * 10) / 10,
      };
    })
    .toSorted((a, b) => a.daysLeft - b.daysLeft);
}
