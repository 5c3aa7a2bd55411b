/**
 * How large disks are. A record alone does not tell: a file that may grow gets another size from whoever writes or
 * truncates it, and work that was cut short may have left an image that is larger than was noted.
 */
import { statSync } from "node:fs";
import { readHead, readQcow2Header } from "../../images/qcow2-header.js";
import type { ImageNote } from "../folders/records.js";

/** QEMU counts in these. */
const SECTOR = 512;

/** In bytes. @throws {Error} for what is no qcow2 */
export function sizeOfQcow2(path: string): number {
  return Number(readQcow2Header(path).sizeBytes);
}

/** Where the disk begins in a LUKS1 file. @see LUKS1 On-Disk Format Specification, 2.1, `payload-offset` */
const PAYLOAD_AT = 104;

function payloadOf(path: string): number {
  return readHead(path, PAYLOAD_AT + 4).readUInt32BE(PAYLOAD_AT) * SECTOR;
}

/** The size that counts, in bytes: a qcow2 states it; others have at least what is noted. */
export function sizeNow(
  path: string,
  { format, sizeBytes, isEncrypted = false }: ImageNote,
): number {
  try {
    // One of 0 bytes counts as one without limit, which only that is that was made so.
    if (format === "qcow2") return sizeOfQcow2(path) || Math.min(SECTOR, sizeBytes);
    if (format === "iso") return sizeBytes;
    const ownBytes = statSync(path).size - (isEncrypted ? payloadOf(path) : 0);
    return Math.max(sizeBytes, Math.ceil(ownBytes / SECTOR) * SECTOR);
  } catch {
    // What is wrong with it, whoever opens it says.
    return sizeBytes;
  }
}
