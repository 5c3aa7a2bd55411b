import type { Command } from "../cli/command.js";
import { TASK_HEAD, taskRow } from "./task-view.js";

export const command: Command = {
  about: "Cancel a task",
  args: [{ name: "TASK", about: "its number", completes: "task" }],
  options: {},
  async run({ args: [taskID = ""] }, session) {
    const client = await session.client();
    const task = await client.taskCancel({ taskID }, undefined, await session.context());
    session.table(task, TASK_HEAD, [taskRow(task)]);
  },
};
