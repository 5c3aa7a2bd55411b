import assert from "node:assert/strict";
import { it } from "node:test";
import { progressText } from "./progress.js";

const task = { id: 3, queueTime: 0, state: "running", operation: "volumeCopy" } as const;

it("shows how far a task is", () => {
  const half = { ...task, progress: { done: 512 * 1024, total: 1024 ** 2, unit: "bytes" } };
  assert.equal(progressText(half), "volumeCopy [############------------] 50% (512 KiB of 1 MiB)");
  assert.equal(progressText(task), "volumeCopy …");
  const odd = { ...task, progress: { done: 9, total: 4, unit: "files" } };
  assert.match(progressText(odd), /\] 100% \(9 files of 4 files\)$/);
  assert.match(progressText({ ...task, progress: { done: 0, total: 0, unit: "x" } }), /…$/);
});
