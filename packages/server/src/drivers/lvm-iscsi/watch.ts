/** Notices what is done to the group by hand: its sequence number grows with every change. */
import type { DriverContext } from "../../core/driver.js";
import { isSameRow } from "./known.js";
import type { Known } from "./known.js";
import type { Lvm } from "./lvm.js";

export interface Watched {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly seconds: number;
  readonly context: DriverContext;
  /** Whether this driver changes it now. */
  readonly isBusy: (name: string) => boolean;
}

/** @returns how to stop */
export function watchGroup(
  { lvm, known, seconds, context, isBusy }: Watched,
  onChange: (names: readonly string[]) => void,
): () => void {
  const stopping = new AbortController();
  const own = { ...context, signal: stopping.signal };
  let seqno: number | undefined;
  let isUnwell = false;
  const look = async (): Promise<void> => {
    const now = (await lvm.vg(own))?.seqno;
    if (now === seqno) return;
    const { rows, touched } = await known.list(() => lvm.lvs(own));
    seqno = now;
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
