/** Waiting for work that goes on at the server after its answer (202, 408). */
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { CallContext, Task } from "@libstorage/model";
import { failureOfTask } from "./http-failure.js";

const FIRST_WAIT_MS = 25;
const LONGEST_WAIT_MS = 500;

export function isTask(value: unknown): value is Task {
  if (typeof value !== "object" || value === null) return false;
  const { id, state } = value as Partial<Task>;
  return typeof id === "number" && typeof state === "string";
}

/** Whether two looks at a task show the same to a person. */
function isSame(a: Task | undefined, b: Task): boolean {
  return a?.state === b.state && a.progress?.done === b.progress?.done;
}

/**
 * Asks for a task until it has ended, and tells of it through `context.onTask`.
 * @param inspect asks the server once
 * @returns what the synchronous call would have answered
 * @throws {StorageError} the task's own error; `cancelled` when the signal ended the waiting, with the
 *   task, which goes on, in the data
 */
export async function waitForTask(
  first: Task,
  inspect: (taskID: string) => Promise<Task>,
  { signal, onTask }: Pick<CallContext, "signal" | "onTask">,
): Promise<unknown> {
  let task = first;
  let told: Task | undefined;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 1.5, LONGEST_WAIT_MS)) {
    if (!isSame(told, task)) onTask?.(task);
    told = task;
    if (task.state === "success") return task.result ?? null;
    if (task.state === "error") throw failureOfTask(task);
    await sleep(wait, undefined, { ...(signal && { signal }) }).catch(() => {
      throw new StorageError(
        "cancelled",
        `no longer waiting; task ${task.id} goes on at the server: look at it with "libstorage task inspect ${task.id}", end it with "libstorage task cancel ${task.id}"`,
        { task: task.id },
      );
    });
    task = await inspectOnce(task, inspect);
  }
}

async function inspectOnce(task: Task, inspect: (taskID: string) => Promise<Task>): Promise<Task> {
  try {
    return await inspect(String(task.id));
  } catch (error) {
    if (!(error instanceof StorageError) || error.code !== "not-found") throw error;
    throw new StorageError(
      "aborted",
      `the server no longer knows task ${task.id}, so its result is lost: look at the object before you repeat the work`,
      { task: task.id },
      { cause: error },
    );
  }
}
