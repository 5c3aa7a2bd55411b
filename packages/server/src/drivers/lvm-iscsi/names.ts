/** Names of logical volumes. An id is the name, so it passes these forms before any command gets it. */
import type { IdScheme } from "../../core/driver.js";

/** What LVM allows and does not take for its own parts. @see lvm(8), VALID NAMES */
const ALLOWED = /^(?!-)[a-zA-Z0-9+_.-]{1,100}$/;
const RESERVED =
  /^(?:\.{1,2}$|snapshot|pvmove)|_(?:cdata|cmeta|corig|cpool|cvol|wcorig|mlog|mimage|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin|imeta|iorig)/;

/** So that the longest id, `PREFIX` and two numbers, stays a name. */
export const MAX_PREFIX = 48;

export function isLvmName(name: string): boolean {
  return ALLOWED.test(name) && !RESERVED.test(name);
}

export interface Names {
  readonly ids: IdScheme;
  /** What an id names by its form; undefined for one that this service never gives. */
  kindOf(id: string): "volume" | "snapshot" | undefined;
  /** The snapshot that stands still while `id` is copied from a volume in use. */
  stillOf(id: string): string;
  /** The copy of a snapshot that `id` goes back to, until it gets that name. */
  nextOf(id: string): string;
  /** What `id` was before it went back to a snapshot. */
  oldOf(id: string, number: number): string;
  isOldOf(name: string, id: string): boolean;
  /** The id for whose sake something has this name: itself, or what it is made for; undefined for what is not ours. */
  ownerOf(name: string): string | undefined;
  /** The volume that the name of a part of a revert belongs to. */
  revertedBy(name: string): string | undefined;
}

function padded(number: number): string {
  return String(number).padStart(3, "0");
}

/** `PREFIX000` and `PREFIX000-000`, with one counter for the snapshots of all volumes. */
export function namesWith(prefix: string): Names {
  const start = prefix.replace(/[+.]/g, "\\$&");
  const volume = new RegExp(`^${start}(\\d{3,15})$`);
  const snapshot = new RegExp(`^${start}\\d{3,15}-(\\d{3,15})$`);
  const numberIn = (form: RegExp, id: string): number | undefined => {
    const digits = form.exec(id)?.[1];
    return digits === undefined ? undefined : Number(digits);
  };
  const kindOf: Names["kindOf"] = (id) =>
    volume.test(id) ? "volume" : snapshot.test(id) ? "snapshot" : undefined;
  return {
    ids: {
      first: 0,
      volumeID: (number) => `${prefix}${padded(number)}`,
      snapshotID: (number, volumeID) => `${volumeID}-${padded(number)}`,
      numberOfVolume: (id) => numberIn(volume, id),
      numberOfSnapshot: (id) => numberIn(snapshot, id),
    },
    kindOf,
    ownerOf: (name) => {
      const id = name.replace(/\.(?:still|next|old\d+)$/, "");
      return kindOf(id) === undefined ? undefined : id;
    },
    stillOf: (id) => `${id}.still`,
    nextOf: (id) => `${id}.next`,
    oldOf: (id, number) => `${id}.old${number}`,
    isOldOf: (name, id) => /\.old\d+$/.test(name) && name.replace(/\.old\d+$/, "") === id,
    revertedBy: (name) => {
      const id = name.replace(/\.(?:next|old\d+)$/, "");
      return id !== name && volume.test(id) ? id : undefined;
    },
  };
}
