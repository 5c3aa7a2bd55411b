/**
 * From which fill of a thin pool on something is done. Data and metadata fill by themselves, and each has limits of its own:
 * a pool with many snapshots runs out of metadata first, one with large volumes out of data, and metadata that is full
 * is worse, since the pool then has to be repaired.
 */
import { parseSize } from "@libstorage/model";
import { stepOf } from "./config.js";
import type { ThinPoolConfig } from "./config.js";
import type { PoolState } from "./reports.js";

export const PARTS = ["data", "metadata"] as const;
export type Part = (typeof PARTS)[number];

/** The largest metadata that device-mapper uses. @see lvmthin(7) */
const MOST_METADATA_BYTES = 16 * 1024 ** 3;

export interface Limits {
  readonly warnAt: number;
  readonly extendAt: number;
  readonly refuseAt: number;
  readonly suspendAt: number;
  /** A size or a share; undefined: never. */
  readonly extendBy: string | undefined;
  /** Infinity: no limit. */
  readonly mostBytes: number;
}

/** What is said of one part counts before what is said of both. */
export function limitsOf(config: ThinPoolConfig): Readonly<Record<Part, Limits>> {
  const { data = {}, metadata = {}, extendTo, ...both } = config;
  const of = (own: NonNullable<ThinPoolConfig[Part]>, mostBytes: number): Limits => ({
    warnAt: own.warnAt ?? both.warnAt,
    extendAt: own.extendAt ?? both.extendAt,
    refuseAt: own.refuseAt ?? both.refuseAt,
    suspendAt: own.suspendAt ?? both.suspendAt,
    extendBy: own.extendBy ?? both.extendBy,
    mostBytes: Math.min(mostBytes, bytesOf(own.extendTo) ?? Infinity),
  });
  return {
    // What stood there before the parts had limits of their own was for the data.
    data: of({ ...data, extendTo: data.extendTo ?? extendTo }, Infinity),
    metadata: of(metadata, MOST_METADATA_BYTES),
  };
}

function bytesOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseSize(text);
}

/** Undefined percentages are those of a pool that is not active. */
export function fillOf({ dataPercent = 0, metadataPercent = 0 }: PoolState): Record<Part, number> {
  return { data: dataPercent, metadata: metadataPercent };
}

/** The parts that have reached a limit. */
export function partsAt(
  state: PoolState,
  limits: Readonly<Record<Part, Limits>>,
  limit: "warnAt" | "extendAt" | "refuseAt" | "suspendAt",
): readonly Part[] {
  const fill = fillOf(state);
  return PARTS.filter((part) => fill[part] >= limits[part][limit]);
}

/** For people: `93 % of its metadata are used, and 92 % is the limit`. */
export function wordsFor(
  parts: readonly Part[],
  state: PoolState,
  limits: Readonly<Record<Part, Limits>>,
): string {
  const fill = fillOf(state);
  return parts
    .map(
      (part) =>
        `${fill[part]} % of its ${part} are used, and ${limits[part].refuseAt} % is the limit`,
    )
    .join("; ");
}

/** The size that a part gets by one extension; the present one when it gets none. */
export function grown(bytes: number, limits: Limits, extentBytes: number): number {
  const step = limits.extendBy === undefined ? undefined : stepOf(limits.extendBy);
  if (step === undefined) return bytes;
  const more = "bytes" in step ? step.bytes : (bytes * step.percent) / 100;
  const wanted = Math.ceil((bytes + more) / extentBytes) * extentBytes;
  return Math.max(bytes, Math.min(limits.mostBytes, wanted));
}

/** A pool as it was found at some time. */
export interface Look {
  /** By a clock that never goes back. */
  readonly atMs: number;
  /** Of its data. */
  readonly sizeBytes: number;
  readonly state: PoolState;
}

/** How soon the next look comes when nothing was written lately, or the volumes are suspended. */
const SOON_MS = 500;
/** How soon it comes at most. A look itself takes some tens of milliseconds. */
const SOONEST_MS = 100;
/** By a third of the time that is left, so that two more looks come when one takes long or more is written. */
const LOOKS_LEFT = 3;

/**
 * More than most disks take, in bytes a second. Metadata grows fastest when blocks all over a volume are written
 * after a snapshot: 4 KiB for a block of 64 KiB, at first.
 */
const MOST_BYTES_PER_SECOND: Readonly<Record<Part, number>> = { data: 2e9, metadata: 20e6 };

/**
 * How long the next look may wait: never longer than `wholeMs`, nor than what is left between `warnAt` and
 * `suspendAt` allows; and not so long that a part could reach `suspendAt` meanwhile, neither as fast as it
 * filled since the look before, nor as fast as anything can be written.
 * @param before undefined: nothing is known of how fast it fills
 */
export function waitMs(
  now: Look,
  before: Look | undefined,
  limits: Readonly<Record<Part, Limits>>,
  wholeMs: number,
): number {
  const soon = Math.min(SOON_MS, wholeMs);
  // Nothing can be written then, and what waits shall not wait for long.
  if (partsAt(now.state, limits, "suspendAt").length > 0) return soon;
  const most = Math.max(soon, wholeMs * shareOfInterval(now.state, limits));
  const waits = PARTS.map((part) => {
    const limit = (bytesIn(now, part) * limits[part].suspendAt) / 100;
    const room = limit - usedIn(now, part);
    const atMost = (room / MOST_BYTES_PER_SECOND[part]) * 1000;
    const perMs = before === undefined ? undefined : bytesPerMs(before, now, part);
    if (perMs === 0) return Math.max(SOON_MS, atMost);
    const asSeen = perMs === undefined ? Infinity : room / perMs / LOOKS_LEFT;
    return Math.max(SOONEST_MS, Math.min(atMost, asSeen));
  });
  return Math.min(most, ...waits);
}

function bytesIn({ sizeBytes, state }: Look, part: Part): number {
  return part === "data" ? sizeBytes : state.metadataBytes;
}

function usedIn(look: Look, part: Part): number {
  return (bytesIn(look, part) * fillOf(look.state)[part]) / 100;
}

/** How fast a part fills; 0 when something was given back. */
function bytesPerMs(before: Look, now: Look, part: Part): number {
  const more = usedIn(now, part) - usedIn(before, part);
  return Math.max(0, more) / Math.max(1, now.atMs - before.atMs);
}

/** How much of the interval between two looks is waited: all of it up to `warnAt`, then the less the less room there is. */
function shareOfInterval(state: PoolState, limits: Readonly<Record<Part, Limits>>): number {
  const fill = fillOf(state);
  const shares = PARTS.map((part) => {
    const { warnAt, suspendAt } = limits[part];
    if (warnAt >= suspendAt) return 1;
    return Math.min(1, Math.max(0, suspendAt - fill[part]) / (suspendAt - warnAt));
  });
  return Math.min(...shares);
}

/** What could never be in the pool; undefined when there is no bound. */
export function mostBytesIn(
  sizeBytes: number,
  { extendBy, mostBytes }: Limits,
): number | undefined {
  if (extendBy === undefined) return sizeBytes;
  return mostBytes === Infinity ? undefined : Math.max(sizeBytes, mostBytes);
}
