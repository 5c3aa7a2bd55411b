/** What a call waits for at the moment, for the error of one that took too long. */
import { AsyncLocalStorage } from "node:async_hooks";

const STEPS = new AsyncLocalStorage<Set<string>>();

/** Runs `act`, in which everything that is noted goes to `steps`. */
export function watched<T>(steps: Set<string>, act: () => T): T {
  return STEPS.run(steps, act);
}

/** While `act` runs, it waits for `step`. */
export async function noting<T>(step: string, act: () => Promise<T>): Promise<T> {
  const steps = STEPS.getStore();
  steps?.add(step);
  try {
    return await act();
  } finally {
    steps?.delete(step);
  }
}
