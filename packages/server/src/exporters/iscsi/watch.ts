/** Looks again and again whether exports are still there. */

/** Exports that could not be made at start (a device or an address came late) are tried again so often. */
const RETRY_MS = 60_000;

export interface Watched {
  /** How often it is looked. */
  readonly everyMs: number;
  /** How many looks in a row must find them lost. */
  readonly looks: number;
  isLost(): Promise<boolean>;
  /** Whether some could not be made at start. */
  hasFailed(): boolean;
}

/** @returns how to stop */
export function watchExports(watched: Watched, onLost: () => void): () => void {
  let lost = 0;
  let retried = Date.now();
  let isLooking = false;
  const look = async (): Promise<void> => {
    lost = (await watched.isLost()) ? lost + 1 : 0;
    const isDue = watched.hasFailed() && Date.now() - retried >= RETRY_MS;
    if (lost < watched.looks && !isDue) return;
    lost = 0;
    retried = Date.now();
    onLost();
  };
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    // What cannot be looked at now is looked at again.
    void look()
      .catch(() => {})
      .finally(() => (isLooking = false));
  }, watched.everyMs).unref();
  return () => clearInterval(timer);
}
