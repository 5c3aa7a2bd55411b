/**
 * LVM that is killed in the middle may leave devices suspended, and nearly always ends within moments by
 * itself. So a request that is cancelled waits that long before its command is ended.
 */
const PATIENCE_MS = 2_000;

/** @returns a signal that is aborted a while after the other; and what to call when nobody needs it */
export function patient(signal: AbortSignal): {
  readonly signal: AbortSignal;
  readonly release: () => void;
} {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    timer = setTimeout(() => controller.abort(signal.reason), PATIENCE_MS);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return {
    signal: controller.signal,
    release: () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    },
  };
}
