/** The way back after a step that failed. */
import { failing } from "./mount-errors.js";

export type Undo = (signal: AbortSignal) => Promise<unknown>;

/** As long as a session takes to give up. */
const UNDO_MS = 150_000;

/** Undoes what was done, last first, and adds to the error what could not be undone. */
export async function takenBack(error: unknown, undo: readonly Undo[]): Promise<unknown> {
  const signal = AbortSignal.timeout(UNDO_MS);
  for (const step of undo.toReversed())
    try {
      await step(signal);
    } catch (failure) {
      return failing.undo(error, failure);
    }
  return error;
}
