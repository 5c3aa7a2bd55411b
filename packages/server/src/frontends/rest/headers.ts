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

/** Node reads header bytes as Latin-1; clients send UTF-8. */
function asUtf8(text: string): string {
  return /[\u0080-\u00ff]/.test(text) ? Buffer.from(text, "latin1").toString("utf8") : text;
}

/**
 * Every line of a header. `request.headers` joins repeated lines with a comma, which is also a separator
 * inside the values of the libStorage headers.
 */
function lines(req: IncomingMessage, name: string): readonly string[] {
  if (req.headers[name] === undefined) return [];
  return (req.headersDistinct[name] ?? []).map(asUtf8);
}

/** @throws {TextError} which the contract answers as text */
export function transactionOf(req: IncomingMessage): Transaction | undefined {
  const found = lines(req, "libstorage-tx");
  if (found.length === 0) return undefined;
  if (found.length > 1) throw new TextError("invalid-argument", "invalid transaction");
  try {
    return parseTransaction(found[0] ?? "");
  } catch (error) {
    if (error instanceof StorageError) throw new TextError(error.code, error.message);
    throw error;
  }
}

/** @throws {StorageError} `invalid-argument` */
export function instanceIDsOf(req: IncomingMessage): readonly InstanceID[] {
  return lines(req, "libstorage-instanceid").map(parseInstanceID);
}

/** @throws {StorageError} `invalid-argument` */
export function localDevicesOf(req: IncomingMessage): readonly LocalDevices[] {
  return lines(req, "libstorage-localdevices").map(parseLocalDevices);
}

const IDEMPOTENCY_KEY = /^[\x20-\x7e]{1,255}$/;

/** @throws {StorageError} `invalid-argument` */
export function idempotencyKeyOf(req: IncomingMessage): string | undefined {
  const found = lines(req, "idempotency-key");
  if (found.length === 0) return undefined;
  const [key = ""] = found;
  if (found.length > 1 || !IDEMPOTENCY_KEY.test(key))
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
