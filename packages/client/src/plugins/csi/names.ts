/** Names of the Container Storage Interface as names of volumes and snapshots, and back. */
import { createHash } from "node:crypto";
import { invalid } from "./status.js";

/** The specification's limit for texts, in bytes. */
const MAX_BYTES = 128;

/** Control characters other than tab, line feed and carriage return. @see csi.proto, CreateVolumeRequest.name */
// oxlint-disable-next-line no-control-regex
const BANNED = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/;

/** Names that the service takes as they are, and that no other name is taken for. */
const PLAIN = /^[a-z0-9][a-z0-9_.-]*$/;

/** @throws {CsiError} INVALID_ARGUMENT */
export function checkName(name: string): void {
  if (name === "") throw invalid("name is missing");
  if (Buffer.byteLength(name) > MAX_BYTES) throw invalid(`name has more than ${MAX_BYTES} bytes`);
  if (BANNED.test(name)) throw invalid("name has control characters");
}

/**
 * The service compares names without case and takes fewer characters; the specification tells every two
 * texts apart. So a name that is not plain gets a part of its hash, and no two names meet.
 */
export function objectName(name: string): string {
  if (PLAIN.test(name) && !/\.{2}/.test(name) && !/-[0-9a-f]{16}$/.test(name)) return name;
  const readable = name.replaceAll(/[^A-Za-z0-9_-]+/g, "-").replaceAll(/^-+|-+$/g, "");
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 16);
  return readable === "" ? hash : `${readable}-${hash}`;
}

/** @throws {CsiError} INVALID_ARGUMENT */
export function checkID(what: string, id: string): void {
  if (id === "") throw invalid(`${what} is missing`);
  // Not the form but the size is checked: what is no id of ours is simply not there.
  if (Buffer.byteLength(id) > MAX_BYTES) throw invalid(`${what} has more than ${MAX_BYTES} bytes`);
}

/** Whether an id can be one at all: the service's paths take no others. */
export function isPossibleID(id: string): boolean {
  return !/[\p{Cc}/]/u.test(id) && id !== "." && id !== "..";
}
