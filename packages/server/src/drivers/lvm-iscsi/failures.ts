/** What LVM says when it refuses, in the words of the API. The texts are those of the C locale. */
import { formatSize, StorageError } from "@libstorage/model";
import type { ErrorCode } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";

/** What a message may name. */
export interface About {
  readonly group: string;
  readonly pool: string | undefined;
  readonly extentBytes: number;
}

interface Meaning {
  readonly code: ErrorCode;
  readonly text: string;
}

type Row = readonly [RegExp, (match: RegExpExecArray, about: About) => Meaning];

const refused = (text: string): Meaning => ({ code: "failed-precondition", text });
const full = (text: string): Meaning => ({ code: "resource-exhausted", text });

const MEANINGS: readonly Row[] = [
  [/Failed to find logical volume/, () => ({ code: "not-found", text: "there is none" })],
  [/Snapshot origin LV \S+ not found/, () => ({ code: "not-found", text: "there is none" })],
  [
    /insufficient free space \((\d+) extents\): (\d+) required/,
    ([, free, needed], { group, extentBytes }) =>
      full(
        `the volume group ${group} has ${formatSize(Number(free) * extentBytes)} free, and it takes ${formatSize(Number(needed) * extentBytes)}; add a disk (vgextend), or ask for less`,
      ),
  ],
  [
    /Insufficient suitable|No free extents|Insufficient free space/i,
    (_match, { group }) =>
      full(`the volume group ${group} has not enough free space; add a disk (vgextend)`),
  ],
  [
    /Volume too large|too large for extent size/,
    () => ({ code: "invalid-argument", text: "it is larger than LVM can address" }),
  ],
  [
    /(?:metadata|VG) .*too large|circular buffer|Failed to write VG|no space .*metadata area/i,
    (_match, { group }) =>
      full(
        `the metadata area of the volume group ${group} is full: LVM keeps all names, records and layouts there, and it was made too small (pvcreate --metadatasize)`,
      ),
  ],
  [
    /free space in (?:thin )?pool \S+ (?:reached )?threshold|Cannot create new thin volume, free space/i,
    (_match, { pool }) =>
      full(`the thin pool ${pool} is nearly full; extend it (lvextend), or remove something`),
  ],
  [
    /out_of_data|out-of-data|No space left on device/i,
    (_match, { pool }) => full(`the thin pool ${pool ?? ""} is full; extend it (lvextend)`),
  ],
  [
    /Pool (\S+) not found|is not a thin pool/,
    (_match, { pool, group }) => refused(`${group}/${pool} is no thin pool; see lvs ${group}`),
  ],
  [
    /Volume group "?(\S+?)"? is exported/,
    ([, group]) => refused(`the volume group ${group} is exported; import it first: vgimport`),
  ],
  [
    /Cannot access VG (\S+) with system ID (\S+)/,
    ([, group, id]) =>
      refused(`the volume group ${group} belongs to the host with the system ID ${id}`),
  ],
  [
    // Not any word with `lock` in it: a group may be called so.
    /LV locked by other host|Locking failed for LV|(?:VG \S+|Global) lock (?:failed|skipped)|Skipping global lock|due to failed lock|requires lvmlockd/i,
    (_match, { group }) => refused(`the volume group ${group} is locked by another host`),
  ],
  [
    /missing P|partial|Couldn't find device/i,
    (_match, { group }) =>
      refused(
        `a disk of the volume group ${group} is missing; bring it back, or take it out: vgreduce --removemissing`,
      ),
  ],
  [
    /Volume group "?(\S+?)"? not found/,
    ([, group]) => refused(`there is no volume group ${group} on this host; see vgs`),
  ],
  [
    /create ioctl on (\S+) .*failed: Device or resource busy/,
    ([, node]) =>
      refused(
        `a device-mapper device ${node} was left behind and stands in the way; look who uses it, then: dmsetup remove ${node}`,
      ),
  ],
  [
    /Snapshot origin volumes can be resized only while inactive/,
    () =>
      refused(
        "it has snapshots and is in use; without a thin pool LVM grows such a volume only while nobody holds it: detach it first, or remove its snapshots",
      ),
  ],
  [
    /metadata_read_only|read.only/i,
    (_match, { pool, group }) =>
      refused(
        `${pool === undefined ? `the volume group ${group}` : `the thin pool ${group}/${pool}`} is read-only; see dmesg, and lvconvert --repair`,
      ),
  ],
  [
    /Can't get lock|Failed to lock|Can't get exclusive access/,
    (_match, { group }) => ({
      code: "unavailable",
      text: `the volume group ${group} is locked by another command`,
    }),
  ],
];

/** @param doing such as `create volume lvm-001` */
export function failureOf(error: unknown, doing: string, about: About): unknown {
  if (error instanceof CommandError) {
    if (error.isMissing)
      return new StorageError(
        "failed-precondition",
        `cannot ${doing}: ${error.message} (Debian: apt-get install lvm2 thin-provisioning-tools)`,
        error.data,
        { cause: error },
      );
    if (error.code !== "internal") return error;
    for (const [form, meaningOf] of MEANINGS) {
      const match = form.exec(error.stderr);
      if (match === null) continue;
      const { code, text } = meaningOf(match, about);
      return new StorageError(code, `cannot ${doing}: ${text}`, error.data, { cause: error });
    }
    return error;
  }
  if (error instanceof Error && error.name === "AbortError")
    return new StorageError("cancelled", `${doing} was cancelled`, {}, { cause: error });
  return error;
}

function says(error: unknown, form: RegExp): boolean {
  return error instanceof CommandError && form.test(error.stderr);
}

export const isTaken = (error: unknown): boolean => says(error, /already exists in volume group/);

export const isGone = (error: unknown): boolean => says(error, /Failed to find logical volume/);

export const isInUse = (error: unknown): boolean =>
  says(error, /\bin use\b|is used by another device|filesystem in use/);

export const isSameSize = (error: unknown): boolean =>
  says(error, /matches existing size|not larger than existing size/);
