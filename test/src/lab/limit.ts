/** Time limits of the lab. Machines without virtualisation are 6 to 30 times slower than their host. */
import { setTimeout as sleep } from "node:timers/promises";

/** @throws when the promise is not settled in time; what it stood for goes on */
export async function within<T>(
  limitMs: number,
  promise: Promise<T>,
  what: () => string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${limitMs} ms for ${what()}`)), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until the answer is neither undefined nor false. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false>,
  limitMs = 120_000,
): Promise<T> {
  const end = Date.now() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > end) throw new Error(`waited ${limitMs} ms until ${what}`);
    await sleep(100);
  }
}
