/** Tasks as people read them. */
import type { Task } from "@libstorage/model";
import { progressText } from "../cli/progress.js";
import { timeOf } from "./volume-view.js";

export const TASK_HEAD = ["ID", "OPERATION", "STATE", "QUEUED", "ENDED", "DETAIL"] as const;

function detailOf(task: Task): string {
  const { error, state } = task;
  if (state === "running" && task.progress !== undefined) return progressText(task);
  if (error === undefined) return "";
  if (typeof error === "string") return error;
  const message = (error as { readonly msg?: unknown } | null)?.msg;
  return typeof message === "string" ? message : JSON.stringify(error);
}

export function taskRow(task: Task): string[] {
  return [
    String(task.id),
    task.operation ?? "-",
    task.state === "" ? "queued" : task.state,
    timeOf(task.queueTime),
    timeOf(task.completeTime),
    detailOf(task),
  ];
}
