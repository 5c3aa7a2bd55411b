/**
 * The names of iSCSI: of targets, of volumes, of initiators. A target's name is used for one hold and never
 * again, because an initiator that was cut off goes on asking for it, and would write what it still had to
 * write to whatever answers.
 */
import { randomBytes } from "node:crypto";
import { StorageError } from "@libstorage/model";
import { digest } from "../server-id.js";

/** RFC 7143, section 4.2.7: at most 223 bytes. */
const MAX_NAME = 223;

/** `iqn.YYYY-MM.` and a domain that begins with its top level, such as `iqn.2026-01.org.example`. */
export const IQN_PREFIX = /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[a-z\d-]+(?:\.[a-z\d-]+)+$/;

const INITIATOR =
  /^(?:iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[a-z\d](?:[a-z\d.-]*[a-z\d])?(?::[a-z\d.:_-]+)?|eui\.[\da-f]{16}|naa\.[\da-f]{16}(?:[\da-f]{16})?)$/;

/**
 * The kernel takes any text as the name of an initiator; then nobody ever comes by that name.
 * @throws {StorageError} `invalid-argument`
 */
export function checkInitiatorName(name: string | undefined, holder: string): string {
  if (name === undefined)
    throw new StorageError(
      "invalid-argument",
      `${holder} tells no iSCSI initiator name; install open-iscsi there, which writes one to /etc/iscsi/initiatorname.iscsi`,
      { instanceID: holder },
    );
  if (INITIATOR.test(name) && name.length <= MAX_NAME) return name;
  throw new StorageError(
    "invalid-argument",
    `"${name}", which ${holder} gives as its iSCSI initiator name, is none; write one such as iqn.1993-08.org.debian:01:0123456789ab to /etc/iscsi/initiatorname.iscsi there and restart iscsid (iscsi-iname makes one)`,
    { instanceID: holder, initiatorName: name },
  );
}

/** A volume's serial number, 32 hexadecimal digits; it is the same for all who hold the volume. */
export function serialOf(owner: string, volumeID: string): string {
  return digest(owner, volumeID).slice(0, 32);
}

/**
 * The name of a volume's device all over the world, 32 hexadecimal digits that begin with 6 (NAA, SPC-5 7.7.6.6).
 * The kernel's target makes it so from the serial number, by 001405 and the number's first 25 digits.
 */
export function wwnOf(serial: string): string {
  return `6001405${serial.slice(0, 25)}`;
}

/** Letters, digits, `-` and `.`, for reading only: what makes a name unique stands beside it. */
function readable(text: string, length: number): string {
  return text
    .toLowerCase()
    .replaceAll(/[^a-z\d.-]+/g, "-")
    .slice(0, length)
    .replaceAll(/^[.-]+|[.-]+$/g, "");
}

export function nonce(): string {
  return randomBytes(4).toString("hex");
}

export interface TargetName {
  readonly prefix: string;
  readonly owner: string;
  readonly service: string;
}

/** The target of one hold of one volume. */
export function volumeTarget(name: TargetName, volumeID: string, epoch: number): string {
  return `${serviceTarget(name, `${readable(volumeID, 64) || "volume"}:${epoch}-${nonce()}`)}`;
}

/** A target of a service; `last` is used once. */
export function serviceTarget({ prefix, owner, service }: TargetName, last: string): string {
  return `${prefix}:${owner}:${readable(service, 40) || "service"}:${last}`;
}

/** The owner in a target's name, or undefined for a target of someone else. */
export function ownerInTarget(iqn: string): string | undefined {
  return /^iqn\.[^:]+:([\da-f]{10}):[^:]+:/.exec(iqn)?.[1];
}

/** The object that holds the volume's device on the storage host. */
export function backstoreName(owner: string, volumeID: string, serial: string): string {
  return `libstorage-${owner}-${readable(volumeID, 24) || "volume"}-${serial.slice(0, 8)}`;
}

export function ownerInBackstore(name: string): string | undefined {
  return /^libstorage-([\da-f]{10})-/.exec(name)?.[1];
}
