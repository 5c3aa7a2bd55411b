/** The request headers of section 4 of the contract, and who is calling. */
import type { IncomingMessage } from "node:http";
import { TLSSocket } from "node:tls";
import {
  parseInstanceID,
  parseLocalDevices,
  parseTransaction,
  StorageError,
} from "@libstorage/model";
import type { InstanceID, LocalDevices, Transaction } from "@libstorage/model";
import { TextError } from "./http-error.js";

/** The lines of the libStorage headers, not yet parsed. */
export interface HeaderLines {
  readonly tx: readonly string[];
  readonly instanceIDs: readonly string[];
  readonly localDevices: readonly string[];
  readonly idempotencyKeys: readonly string[];
}

const NAMES = {
  "libstorage-tx": "tx",
  "libstorage-instanceid": "instanceIDs",
  "libstorage-localdevices": "localDevices",
  "idempotency-key": "idempotencyKeys",
} as const;

const NONE: HeaderLines = { tx: [], instanceIDs: [], localDevices: [], idempotencyKeys: [] };

/** Node reads header bytes as Latin-1; clients send UTF-8. */
function asUtf8(text: string): string {
  return /[\u0080-\u00ff]/.test(text) ? Buffer.from(text, "latin1").toString("utf8") : text;
}

/**
 * Every line of each header. `request.headers` joins repeated lines with a comma, which is also a
 * separator inside their values (section 24).
 */
export function headerLines({ rawHeaders }: IncomingMessage): HeaderLines {
  let found: Record<keyof HeaderLines, string[]> | undefined;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const raw = rawHeaders[at] ?? "";
    if (raw.length < 13) continue;
    const name = raw.toLowerCase();
    if (!Object.hasOwn(NAMES, name)) continue;
    found ??= { tx: [], instanceIDs: [], localDevices: [], idempotencyKeys: [] };
    found[NAMES[name as keyof typeof NAMES]].push(asUtf8(rawHeaders[at + 1] ?? ""));
  }
  return found ?? NONE;
}

/** @throws {TextError} which the contract answers as text */
export function transactionOf({ tx }: HeaderLines): Transaction | undefined {
  if (tx.length === 0) return undefined;
  if (tx.length > 1) throw new TextError("invalid-argument", "invalid transaction");
  try {
    return parseTransaction(tx[0] ?? "");
  } catch (error) {
    if (error instanceof StorageError) throw new TextError(error.code, error.message);
    throw error;
  }
}

/** @throws {StorageError} `invalid-argument` */
export function instanceIDsOf({ instanceIDs }: HeaderLines): readonly InstanceID[] {
  return instanceIDs.map(parseInstanceID);
}

/** @throws {StorageError} `invalid-argument` */
export function localDevicesOf({ localDevices }: HeaderLines): readonly LocalDevices[] {
  return localDevices.map(parseLocalDevices);
}

const IDEMPOTENCY_KEY = /^[\x20-\x7e]{1,255}$/;

/** @throws {StorageError} `invalid-argument` */
export function idempotencyKeyOf({ idempotencyKeys }: HeaderLines): string | undefined {
  if (idempotencyKeys.length === 0) return undefined;
  const [key = ""] = idempotencyKeys;
  if (idempotencyKeys.length > 1 || !IDEMPOTENCY_KEY.test(key))
    throw new StorageError(
      "invalid-argument",
      "Idempotency-Key must be one line of 1 to 255 printable ASCII characters",
    );
  return key;
}

const peers = new WeakMap<object, string>();

/** The peer of a connection: its certificate's name, `unix`, or its address. */
export function peerOf({ socket }: IncomingMessage): string {
  let peer = peers.get(socket);
  if (peer === undefined) {
    peer = certificateName(socket) ?? socket.remoteAddress ?? "unix";
    peers.set(socket, peer);
  }
  return peer;
}

/** Only a certificate that was verified names anybody. */
function certificateName(socket: object): string | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const name: unknown = socket.getPeerCertificate().subject?.CN;
  return typeof name === "string" && name !== "" ? name : undefined;
}

/** Whether the request announces a body at all. */
export function hasBody({ headers }: IncomingMessage): boolean {
  const length = headers["content-length"];
  return headers["transfer-encoding"] !== undefined || (length !== undefined && length !== "0");
}
