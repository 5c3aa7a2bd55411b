/** What btrfs(8) prints. */

/** A line of `subvolume list -o`: words, then the path up to the end of the line. */
const LISTED = /^ID (\d+) gen \d+ top level \d+ path (.+)$/;
const DELETED = /^ID \d+ gen \d+ top level \d+ path DELETED$/;

/** The paths, relative to the top of the file system and not to where it is mounted. */
export function parsePaths(report: string): string[] {
  return report.split("\n").flatMap((line) => LISTED.exec(line)?.[2] ?? []);
}

/** The same lines, by subvolume ID. */
export function parseIDs(report: string): ReadonlyMap<string, string> {
  const found = report.split("\n").map((line) => LISTED.exec(line));
  return new Map(
    found.flatMap((match) => (match === null ? [] : [[match[1] ?? "", match[2] ?? ""]])),
  );
}

/** A line of `qgroup show -r --raw`: the group of a subvolume, two counts, and its limit. */
const GROUP = /^0\/(\d+)\s+\d+\s+\d+\s+(none|\d+)(?:\s|$)/;

/** The limits by subvolume ID, in bytes; undefined for none. */
export function parseLimits(report: string): ReadonlyMap<string, number | undefined> {
  const limits = new Map<string, number | undefined>();
  for (const line of report.split("\n")) {
    const [, id, limit] = GROUP.exec(line) ?? [];
    if (id !== undefined) limits.set(id, limit === "none" ? undefined : Number(limit));
  }
  return limits;
}

/** A line of `subvolume list -u -R`. */
const WITH_UUIDS = /^ID \d+ gen \d+ top level \d+ received_uuid (\S+)\s+uuid (\S+)\s+path (.+)$/;

export interface SubvolumeUUID {
  /** Relative to the top of the file system. */
  readonly path: string;
  /** What a stream of it names: its own UUID, or that of the one it was received from. */
  readonly contentID: string;
}

export function parseUUIDs(report: string): SubvolumeUUID[] {
  return report.split("\n").flatMap((line) => {
    const [, received = "-", own = "", path = ""] = WITH_UUIDS.exec(line) ?? [];
    return path === "" ? [] : [{ path, contentID: received === "-" ? own : received }];
  });
}

/** How many lines of `subvolume list -d` there are. */
export function parseDeleted(report: string): number {
  return report.split("\n").filter((line) => DELETED.test(line)).length;
}

/** @throws {Error} when the report of `filesystem show` names no UUID */
export function parseUUID(report: string): string {
  const uuid = /\buuid: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/m.exec(report)?.[1];
  if (uuid === undefined)
    throw new Error(`btrfs filesystem show names no UUID: ${report.slice(0, 200)}`);
  return uuid;
}
