/**
 * A record as LVM tags. LVM allows few characters and 1024 of them in a tag, so the record's JSON stands in
 * Base64url, in as many tags as it takes: `libstorage:vol:1/2:DIGEST:TEXT`. A change of the record is one
 * command that takes the old tags away and adds the new ones, so that it happens or not.
 */
import { createHash } from "node:crypto";
import { StorageError } from "@libstorage/model";

/** A volume whose data is being copied into it; it has no record yet. */
export const MAKING = "libstorage:making";
/** A removed volume that its snapshots still need. */
export const REMOVED = "libstorage:removed";
/** A volume nobody has held yet, whose first blocks hold what was on the disk before. */
export const UNWIPED = "libstorage:unwiped";

export type RecordKind = "vol" | "snap";

const CHUNK = 960;
/** A group's metadata holds all tags, and is small: 1 MiB unless it was made with more. */
const MAX_CHUNKS = 32;
const RECORD_TAG = /^libstorage:(vol|snap):(\d{1,2})\/(\d{1,2}):([\da-f]{12}):([\w-]*)$/;

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

/** @throws {StorageError} `resource-exhausted` for a record that is too long */
export function tagsOf(kind: RecordKind, record: unknown): string[] {
  const json = JSON.stringify(record);
  const text = Buffer.from(json).toString("base64url");
  const count = Math.max(1, Math.ceil(text.length / CHUNK));
  if (count > MAX_CHUNKS)
    throw new StorageError(
      "resource-exhausted",
      `the record would have ${json.length} bytes and may have about ${MAX_CHUNKS * CHUNK * 0.75}, because LVM keeps it in the volume group's metadata: there are too many holders or fields`,
      { bytes: json.length },
    );
  const digest = digestOf(json);
  return Array.from(
    { length: count },
    (_none, index) =>
      `libstorage:${kind}:${index + 1}/${count}:${digest}:${text.slice(index * CHUNK, (index + 1) * CHUNK)}`,
  );
}

export function isOurs(tag: string): boolean {
  return tag.startsWith("libstorage:");
}

/**
 * The record in a volume's tags, as JSON; undefined when they hold none at all.
 * @throws {Error} whose message says what is wrong with the tags
 */
export function recordIn(tags: readonly string[], wanted: RecordKind): unknown {
  const own = tags.filter((tag) => isOurs(tag) && tag !== UNWIPED);
  if (own.length === 0) return undefined;
  const chunks: string[] = [];
  const heads = new Set<string>();
  for (const tag of own) {
    const [, kind, number, count, digest, text] = RECORD_TAG.exec(tag) ?? [];
    if (text === undefined) throw new Error(`the tag ${tag.slice(0, 60)} is not one of ours`);
    if (kind !== wanted) throw new Error(`its tags are those of another kind of object (${kind})`);
    heads.add(`${count} ${digest}`);
    chunks[Number(number) - 1] = text;
  }
  const [head = ""] = heads;
  if (heads.size > 1) throw new Error("its tags hold parts of several records");
  const [count = "", digest] = head.split(" ");
  const whole = Array.from({ length: Number(count) }, (_none, index) => chunks[index]);
  if (whole.includes(undefined) || own.length !== Number(count))
    throw new Error(`${own.length} of the ${count} tags of its record are there`);
  const json = Buffer.from(whole.join(""), "base64url").toString();
  if (digestOf(json) !== digest) throw new Error("its tags were changed: the digest does not fit");
  return JSON.parse(json) as unknown;
}
