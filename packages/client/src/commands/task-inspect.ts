import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";
import { TASK_HEAD, taskRow } from "./task-view.js";
import { details } from "./volume-view.js";

export const command: Command = {
  about: "Show a task",
  args: [{ name: "TASK", about: "its number", completes: "task" }],
  options: {},
  async run({ args: [taskID = ""] }, session) {
    const client = await session.client();
    const task = await client.taskInspect({ taskID }, undefined, await session.context());
    const row = taskRow(task);
    session.print(task, () =>
      columns(details(TASK_HEAD.map((head, index) => [head.toLowerCase(), row[index]]))),
    );
  },
};
