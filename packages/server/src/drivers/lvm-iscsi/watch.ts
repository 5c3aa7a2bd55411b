/**
 * Notices what is done to the group by hand, since its sequence number grows with every change, and what happens
 * by itself: a disk that goes, and a snapshot with space of its own that overflows.
 */
import type { DriverContext } from "../../core/driver.js";
import { isSameRow } from "./known.js";
import type { Known } from "./known.js";
import { isThin } from "./reports.js";
import type { Lvm } from "./lvm.js";
import type { VgRow } from "./reports.js";

/** Of how many looks one goes through all volumes although the group has not changed. */
const WHOLE_LOOK_EVERY = 6;

export interface Watched {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly seconds: number;
  readonly context: DriverContext;
  /** Whether this driver changes it now. */
  readonly isBusy: (name: string) => boolean;
}

/** What of a group's report changes with what is told of its volumes. */
function stateOf(group: VgRow | undefined): string {
  return `${group?.seqno} ${group?.missingDisks} ${group?.isExported}`;
}

/** @returns how to stop */
export function watchGroup(
  { lvm, known, seconds, context, isBusy }: Watched,
  onChange: (names: readonly string[]) => void,
): () => void {
  const stopping = new AbortController();
  const own = { ...context, signal: stopping.signal };
  let state: string | undefined;
  let looks = 0;
  // The kernel alone knows of a snapshot that overflows.
  const mayOverflow = (): boolean =>
    known.all().some((row) => row.origin !== "" && !isThin(row) && !row.isSnapshotInvalid);
  let isUnwell = false;
  const look = async (): Promise<void> => {
    const now = stateOf(await lvm.vg(own));
    looks += 1;
    const isWhole = looks % WHOLE_LOOK_EVERY === 0 && mayOverflow();
    if (now === state && !isWhole) return;
    const { rows, touched } = await known.list(() => lvm.lvs(own));
    state = now;
    const names = new Set([...rows, ...known.all()].map(({ name }) => name));
    const byName = new Map(rows.map((row) => [row.name, row]));
    const isForeign = (name: string): boolean => {
      const [before, after] = [known.get(name), byName.get(name)];
      if (before === undefined || after === undefined) return before !== after;
      return !isSameRow(before, after);
    };
    const changed = [...names].filter(
      (name) => !touched.has(name) && !isBusy(name) && isForeign(name),
    );
    if (changed.length > 0) onChange(changed);
  };
  const timer = setInterval(() => {
    look().then(
      () => {
        isUnwell = false;
      },
      (error: unknown) => {
        if (stopping.signal.aborted || isUnwell) return;
        isUnwell = true;
        context.log.warn({ error, volumeGroup: lvm.about.group }, "the group cannot be looked at");
      },
    );
  }, seconds * 1000).unref();
  return () => {
    clearInterval(timer);
    stopping.abort();
  };
}
