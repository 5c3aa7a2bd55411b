/** Makes certificates: keys from node:crypto, X.509 from node-forge, which signs with RSA alone. */
import { createPublicKey, generateKeyPair, randomBytes } from "node:crypto";
import { isIP } from "node:net";
import { promisify } from "node:util";
import forge from "node-forge";
import { StorageError } from "@libstorage/model";

export interface KeyAndCertificate {
  /** PKCS #8, PEM. */
  readonly key: string;
  readonly certificate: string;
}

export interface CertificateRequest {
  readonly commonName: string;
  readonly days: number;
  /** Host names and IP addresses that a server is reached under. */
  readonly names?: readonly string[];
}

const DAY_MS = 86_400_000;
/** Clocks of two hosts may differ a little. */
const CLOCK_SKEW_MS = 5 * 60_000;
const KEY_BITS = 3072;

const makeKeyPair = promisify(generateKeyPair);

async function newKey(): Promise<string> {
  const { privateKey } = await makeKeyPair("rsa", {
    modulusLength: KEY_BITS,
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  return privateKey;
}

function unsigned(key: string, request: CertificateRequest): forge.pki.Certificate {
  if (request.commonName === "" || request.commonName.length > 64)
    throw new StorageError(
      "invalid-argument",
      `"${request.commonName}" cannot be a certificate's name: it must have 1 to 64 characters`,
    );
  const certificate = forge.pki.createCertificate();
  const spki = createPublicKey(key).export({ type: "spki", format: "pem" });
  certificate.publicKey = forge.pki.publicKeyFromPem(spki.toString());
  // Positive, and so long that no two are alike: RFC 5280, section 4.1.2.2.
  certificate.serialNumber = `4${randomBytes(16).toString("hex").slice(1)}`;
  certificate.validity.notBefore = new Date(Date.now() - CLOCK_SKEW_MS);
  certificate.validity.notAfter = new Date(Date.now() + request.days * DAY_MS);
  certificate.setSubject([
    { name: "commonName", value: request.commonName, valueTagClass: forge.asn1.Type.UTF8 as never },
    { name: "organizationName", value: "libstorage" },
  ]);
  return certificate;
}

function finish(
  certificate: forge.pki.Certificate,
  signer: { readonly key: string; readonly certificate: forge.pki.Certificate },
  key: string,
): KeyAndCertificate {
  certificate.setIssuer(signer.certificate.subject.attributes);
  certificate.sign(forge.pki.privateKeyFromPem(signer.key), forge.md.sha256.create());
  return { key, certificate: forge.pki.certificateToPem(certificate) };
}

/** A certificate authority of its own, for one installation. */
export async function makeCA(request: CertificateRequest): Promise<KeyAndCertificate> {
  const key = await newKey();
  const certificate = unsigned(key, request);
  certificate.setExtensions([
    { name: "basicConstraints", cA: true, pathLenConstraint: 0, critical: true },
    { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
    { name: "subjectKeyIdentifier" },
  ]);
  return finish(certificate, { key, certificate }, key);
}

/** A certificate for one side, signed by the CA. A server's carries the names it is reached under. */
export async function makeCertificate(
  side: "server" | "client",
  ca: KeyAndCertificate,
  request: CertificateRequest,
): Promise<KeyAndCertificate> {
  const key = await newKey();
  const signer = forge.pki.certificateFromPem(ca.certificate);
  const certificate = unsigned(key, request);
  const names = [...new Set(request.names ?? [])];
  certificate.setExtensions([
    { name: "basicConstraints", cA: false, critical: true },
    { name: "keyUsage", digitalSignature: true, keyEncipherment: true, critical: true },
    { name: "extKeyUsage", serverAuth: side === "server", clientAuth: side === "client" },
    { name: "subjectKeyIdentifier" },
    {
      name: "authorityKeyIdentifier",
      keyIdentifier: signer.generateSubjectKeyIdentifier().getBytes(),
    },
    ...(names.length > 0 ? [{ name: "subjectAltName", altNames: names.map(altNameOf) }] : []),
  ]);
  return finish(certificate, { key: ca.key, certificate: signer }, key);
}

function altNameOf(name: string): object {
  if (isIP(name) !== 0) return { type: 7, ip: name };
  if (/^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(name))
    return { type: 2, value: name };
  throw new StorageError(
    "invalid-argument",
    `"${name}" is neither a host name nor an IP address, so no certificate can carry it`,
  );
}
