/**
 * The header of a qcow2 file, read without opening it as an image: so an image that names other files is
 * refused before any tool follows the names. @see docs/interop/qcow2.txt of QEMU
 */
import { closeSync, constants, openSync, readSync } from "node:fs";

/** What of a file is looked at: header, extensions and the name of a backing file lie in its first cluster. */
const HEAD_BYTES = 64 * 1024;
const MAGIC = 0x514649fb;
const V2_LENGTH = 72;
const V3_LEAST_LENGTH = 104;

/** Bits of `incompatible_features`. */
const DIRTY = 1n << 0n;
const CORRUPT = 1n << 1n;
const DATA_FILE = 1n << 2n;
const COMPRESSION = 1n << 3n;
const EXTENDED_L2 = 1n << 4n;

/** Types of header extensions. */
const END = 0;
const DATA_FILE_NAME = 0x44415441;

export interface Qcow2Header {
  readonly version: number;
  /** What a disk of it has. */
  readonly sizeBytes: bigint;
  readonly clusterBits: number;
  readonly isEncrypted: boolean;
  readonly innerSnapshots: number;
  readonly isDirty: boolean;
  readonly isCorrupt: boolean;
  readonly hasUnknownFeatures: boolean;
  /** The backing file as it is written there. */
  readonly backingFile?: string;
  readonly hasDataFile: boolean;
}

/** @throws {Error} whose message says why it is none */
export function parseQcow2Header(head: Buffer): Qcow2Header {
  if (head.length < V2_LENGTH) throw new Error("it is shorter than a qcow2 header");
  if (head.readUInt32BE(0) !== MAGIC) throw new Error("it does not begin like a qcow2 file");
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3)
    throw new Error(`version ${version} of qcow2 is not known here`);
  const length = headerLength(head, version);
  const features = version === 3 ? head.readBigUInt64BE(72) : 0n;
  const backingFile = backingName(head);
  return {
    version,
    sizeBytes: head.readBigUInt64BE(24),
    clusterBits: head.readUInt32BE(20),
    isEncrypted: head.readUInt32BE(32) !== 0,
    innerSnapshots: head.readUInt32BE(60),
    isDirty: (features & DIRTY) !== 0n,
    isCorrupt: (features & CORRUPT) !== 0n,
    hasUnknownFeatures:
      (features & ~(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2)) !== 0n,
    hasDataFile: (features & DATA_FILE) !== 0n || namesDataFile(head, length),
    ...(backingFile !== undefined && { backingFile }),
  };
}

function headerLength(head: Buffer, version: number): number {
  if (version === 2) return V2_LENGTH;
  if (head.length < V3_LEAST_LENGTH) throw new Error("it is shorter than its header");
  const length = head.readUInt32BE(100);
  if (length < V3_LEAST_LENGTH || length % 8 !== 0 || length > head.length)
    throw new Error(`its header cannot have ${length} bytes`);
  return length;
}

function backingName(head: Buffer): string | undefined {
  const offset = head.readBigUInt64BE(8);
  if (offset === 0n) return undefined;
  const size = head.readUInt32BE(16);
  if (offset + BigInt(size) > BigInt(head.length) || size > 1023)
    throw new Error("the name of its backing file lies outside its header");
  return head.toString("utf8", Number(offset), Number(offset) + size);
}

function namesDataFile(head: Buffer, start: number): boolean {
  for (let at = start; at + 8 <= head.length;) {
    const type = head.readUInt32BE(at);
    const size = head.readUInt32BE(at + 4);
    if (type === END) return false;
    if (type === DATA_FILE_NAME) return true;
    at += 8 + Math.ceil(size / 8) * 8;
  }
  return false;
}

/** @throws {Error} whose message says why it is none */
export function readQcow2Header(path: string): Qcow2Header {
  return parseQcow2Header(readHead(path, HEAD_BYTES));
}

/** The first bytes of a plain file; a link is not followed. */
export function readHead(path: string, bytes: number): Buffer {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const head = Buffer.alloc(bytes);
    return head.subarray(0, readSync(file, head, 0, bytes, 0));
  } finally {
    closeSync(file);
  }
}

/** Why an image from outside is not taken in, or undefined. */
export function objectionTo(header: Qcow2Header, maxBytes: number): string | undefined {
  if (header.backingFile !== undefined)
    return `it names the backing file ${JSON.stringify(header.backingFile.slice(0, 200))}; make it whole with "qemu-img convert -O qcow2" where that file is`;
  if (header.hasDataFile)
    return 'it keeps its data in another file; make it whole with "qemu-img convert -O qcow2" where that file is';
  if (header.isEncrypted) return "it is encrypted; decrypt it with qemu-img convert first";
  if (header.isCorrupt) return "it is marked as corrupt";
  if (header.isDirty)
    return 'it was not closed; repair it with "qemu-img check -r all" where it comes from';
  if (header.hasUnknownFeatures) return "it needs features of qcow2 that are not known here";
  if (header.clusterBits < 9 || header.clusterBits > 21)
    return `clusters of 2^${header.clusterBits} bytes are not allowed`;
  if (header.sizeBytes > BigInt(maxBytes))
    return `its disk has ${header.sizeBytes} bytes and may have ${maxBytes} (maxImportSize)`;
  return undefined;
}
