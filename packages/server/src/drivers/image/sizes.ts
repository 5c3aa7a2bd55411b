/**
 * How large disks are. A record alone does not tell: a file that may grow gets another size from whoever writes or
 * truncates it, and work that was cut short may have left an image that is larger than was noted.
 */
import { statSync } from "node:fs";
import { readHead } from "../../images/qcow2-header.js";
import type { ImageNote, VolumeText } from "../folders/records.js";
import { diskPath, sizeOfQcow2 } from "./layers.js";

/** QEMU counts in these. */
const SECTOR = 512;

/** Where the disk begins in a LUKS1 file. @see LUKS1 On-Disk Format Specification, 2.1, `payload-offset` */
const PAYLOAD_AT = 104;

function payloadOf(path: string): number {
  return readHead(path, PAYLOAD_AT + 4).readUInt32BE(PAYLOAD_AT) * SECTOR;
}

/** The size that counts, in bytes: a qcow2 states it; others have at least what is noted. */
function sizeNow(path: string, { format, sizeBytes, isEncrypted = false }: ImageNote): number {
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

/** A volume as it is noted, but with the size that its image has. */
export function withSizeNow(text: VolumeText, folder: string): VolumeText {
  const { record, image } = text;
  if (image === undefined || record.broken !== undefined) return text;
  const sizeBytes = sizeNow(diskPath(folder, image.format), image);
  if (sizeBytes === image.sizeBytes) return text;
  return { ...text, record: { ...record, sizeBytes }, image: { ...image, sizeBytes } };
}
