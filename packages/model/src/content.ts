/** The content of volumes and snapshots as a stream of bytes, and which parts of it have changed. */
import * as v from "valibot";
import { StorageError } from "./errors.js";

/**
 * How content is written as one stream of bytes. It is always stated, and never found out from the bytes.
 * - `btrfs-send`: as `btrfs send` writes a subvolume
 * - `tar`: a POSIX archive of a folder
 * - `raw`: the bytes of a disk, from the first to the last
 * - `qcow2`: a qcow2 file that names no other file
 */
export const CONTENT_TYPES = {
  "btrfs-send": "application/x-btrfs-send",
  tar: "application/x-tar",
  raw: "application/octet-stream",
  qcow2: "application/x-qemu-disk",
} as const;
export type ContentFormat = keyof typeof CONTENT_TYPES;

/** @throws {StorageError} `invalid-argument` */
export function contentFormat(text: string): ContentFormat {
  if (Object.hasOwn(CONTENT_TYPES, text)) return text as ContentFormat;
  throw new StorageError(
    "invalid-argument",
    `there is no format ${JSON.stringify(text.slice(0, 40))} of content; there are ${Object.keys(CONTENT_TYPES).join(", ")}`,
    { format: text },
  );
}

/** Headers of content, beside the trailer or header `Content-Digest` (RFC 9530). */
export const CONTENT_HEADERS = {
  /** Bytes of the stream, as near as can be told before it is read. */
  length: "Libstorage-Content-Length",
  /** Bytes of the disk, where it is one. */
  size: "Libstorage-Content-Size",
  /** Names this very content, so that a later increment can build on it. */
  id: "Libstorage-Content-Id",
  /** The content that this one builds on; without it, it stands alone. */
  parent: "Libstorage-Content-Parent",
} as const;

/** What is told of content before its first byte. */
export interface ContentAbout {
  readonly format: ContentFormat;
  readonly lengthBytes?: number;
  readonly sizeBytes?: number;
  readonly contentID?: string;
  readonly parentID?: string;
}

/** What is known of content after its last byte. */
export const ContentSummary = v.object({
  bytes: v.number(),
  /** In hex. */
  sha256: v.string(),
});
export type ContentSummary = v.InferOutput<typeof ContentSummary>;

/**
 * A stretch of a volume. Drivers that can tell give this shape alike: in ascending order, apart from each
 * other, none of length 0. Over HTTP each is a line of JSON.
 */
export const VolumeExtent = v.object({
  /** Bytes from the beginning of the volume. */
  offset: v.number(),
  length: v.number(),
  /** `zero`: all of it reads as zeros now. */
  kind: v.picklist(["data", "zero"]),
});
export type VolumeExtent = v.InferOutput<typeof VolumeExtent>;

const DIGEST = /(?:^|,)\s*sha-256=:([\w+/]{43}=):/i;

/** `Content-Digest`'s SHA-256 in hex, or undefined when it has none. @see RFC 9530 */
export function parseDigest(text: string): string | undefined {
  const base64 = DIGEST.exec(text)?.[1];
  if (base64 === undefined) return undefined;
  return Array.from(atob(base64), (one) => one.charCodeAt(0).toString(16).padStart(2, "0")).join(
    "",
  );
}

/** @param sha256 in hex */
export function formatDigest(sha256: string): string {
  const bytes = sha256.match(/../g) ?? [];
  const text = bytes.map((byte) => String.fromCharCode(Number.parseInt(byte, 16))).join("");
  return `sha-256=:${btoa(text)}:`;
}
