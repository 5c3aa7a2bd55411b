/** A folder with a CA and the certificates it signed: `libstorage-server tls` and `npm run tls`. */
import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import { openFiles } from "../core/files.js";
import { makeCA, makeCertificate } from "./certificates.js";
import type { KeyAndCertificate } from "./certificates.js";

export interface SetOptions {
  readonly folder: string;
  /** Of server and client certificates. */
  readonly days: number;
  /** Names that the server is reached under. */
  readonly hosts: readonly string[];
}

/** What became of one certificate. */
export interface Made {
  readonly file: string;
  readonly what: "made" | "renewed" | "kept";
  readonly why: string;
}

const CA_DAYS = 3650;
const RENEW_BEFORE_MS = 30 * 86_400_000;

/** A certificate whose key may be read by its owner alone; the key is there before the certificate is. */
async function store(folder: string, name: string, pair: KeyAndCertificate): Promise<void> {
  const files = openFiles();
  await files.write(join(folder, `${name}.key`), pair.key, { mode: 0o600 });
  await files.write(join(folder, `${name}.crt`), pair.certificate, { mode: 0o644 });
}

function load(folder: string, name: string): KeyAndCertificate | undefined {
  const [key, certificate] = ["key", "crt"].map((end) => join(folder, `${name}.${end}`));
  if (key === undefined || certificate === undefined) return undefined;
  if (!existsSync(key) || !existsSync(certificate)) return undefined;
  return { key: readFileSync(key, "utf8"), certificate: readFileSync(certificate, "utf8") };
}

function parsed(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

/** Why a certificate must be made anew, or undefined while it is good. */
function fault(
  pair: KeyAndCertificate,
  ca: X509Certificate | undefined,
  hosts: readonly string[],
): string | undefined {
  const certificate = parsed(pair.certificate);
  if (certificate === undefined) return "it could not be read";
  if (Date.parse(certificate.validTo) - Date.now() < RENEW_BEFORE_MS)
    return `it ends on ${certificate.validTo}`;
  if (ca !== undefined && !(certificate.checkIssued(ca) && certificate.verify(ca.publicKey)))
    return "another CA signed it";
  const lacking = hosts.find(
    (host) =>
      (isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) === undefined,
  );
  return lacking === undefined ? undefined : `it does not name ${lacking}`;
}

/** @throws {StorageError} `failed-precondition` when the folder has no CA */
export function loadCA(folder: string): KeyAndCertificate {
  const ca = load(folder, "ca");
  if (ca !== undefined) return ca;
  throw new StorageError(
    "failed-precondition",
    `there is no CA (ca.crt and ca.key) in ${folder}: make one with "libstorage-server tls init --folder ${folder}"`,
  );
}

/** Makes one certificate. @throws {StorageError} `already-exists` without `replace` */
export async function addCertificate(
  side: "server" | "client",
  name: string,
  { folder, days, hosts }: SetOptions,
  replace: boolean,
): Promise<Made> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name) || name === "ca")
    throw new StorageError(
      "invalid-argument",
      `"${name}" cannot name a certificate: use letters, digits, ".", "-" and "_", and not "ca"`,
    );
  const file = join(folder, `${name}.crt`);
  const isThere = existsSync(file);
  if (isThere && !replace)
    throw new StorageError("already-exists", `${file} exists: use --force to replace it`, { file });
  const names = side === "server" ? hosts : [];
  const pair = await makeCertificate(side, loadCA(folder), { commonName: name, days, names });
  await store(folder, name, pair);
  return { file, what: isThere ? "renewed" : "made", why: "as asked" };
}

/**
 * CA, `server`, `client` and `cacerts`: makes what is missing, renews what ends within 30 days or does
 * not belong to the CA, keeps the rest.
 */
export async function ensureSet(options: SetOptions): Promise<readonly Made[]> {
  const { folder, days, hosts } = options;
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const made: Made[] = [];
  const oldCA = load(folder, "ca");
  const caFault = oldCA === undefined ? "it was missing" : fault(oldCA, undefined, []);
  const ca =
    oldCA !== undefined && caFault === undefined
      ? oldCA
      : await makeCA({ commonName: "libstorage CA", days: CA_DAYS });
  if (caFault !== undefined) await store(folder, "ca", ca);
  made.push(madeOf(join(folder, "ca.crt"), oldCA !== undefined, caFault));
  const cacerts = join(folder, "cacerts");
  if (caFault !== undefined || !existsSync(cacerts))
    await openFiles().write(cacerts, ca.certificate, { mode: 0o644 });
  for (const side of ["server", "client"] as const) {
    const names = side === "server" ? hosts : [];
    const old = load(folder, side);
    const why = old === undefined ? "it was missing" : fault(old, parsed(ca.certificate), names);
    if (why !== undefined) {
      const commonName = side === "server" ? (hosts[0] ?? "localhost") : "client";
      await store(folder, side, await makeCertificate(side, ca, { commonName, days, names }));
    }
    made.push(madeOf(join(folder, `${side}.crt`), old !== undefined, why));
  }
  return made;
}

function madeOf(file: string, wasThere: boolean, why: string | undefined): Made {
  if (why === undefined) return { file, what: "kept", why: "it is good" };
  return { file, what: wasThere ? "renewed" : "made", why };
}
