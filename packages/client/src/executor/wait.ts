/** Waiting until an attached device appears, sections 16.2 and 17.1 of the contract. */
import { setTimeout as sleep } from "node:timers/promises";
import type { LocalDevices } from "@libstorage/model";
import type { Executor, Scan } from "./executor.js";

const EVERY_MS = 500;

export interface WaitResult {
  readonly found: boolean;
  /** As they were at the last look. */
  readonly devices: LocalDevices;
}

/** Looks every half second until a key of the local devices is the token, without case, or time is up. */
export async function waitForDevice(
  executor: Executor,
  {
    token,
    scan,
    timeoutMs,
    signal,
  }: {
    readonly token: string;
    readonly scan: Scan;
    readonly timeoutMs: number;
    readonly signal?: AbortSignal;
  },
): Promise<WaitResult> {
  const wanted = token.toLowerCase();
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const devices = await executor.localDevices(scan);
    if (Object.keys(devices.deviceMap).some((key) => key.toLowerCase() === wanted))
      return { found: true, devices };
    const left = deadline - performance.now();
    if (left <= 0) return { found: false, devices };
    await sleep(Math.min(EVERY_MS, left), undefined, { ...(signal && { signal }) });
  }
}
