import type { Command } from "../cli/command.js";
import { waitForTask } from "../task-wait.js";

export const command: Command = {
  about: "Wait until a task has ended, and print its result",
  args: [{ name: "TASK", about: "its number", completes: "task" }],
  options: {},
  notes: ["Fails with the task's error if the task failed."],
  async run({ args: [taskID = ""] }, session) {
    const client = await session.client();
    const context = await session.longContext();
    const inspect = (id: string): ReturnType<typeof client.taskInspect> =>
      client.taskInspect({ taskID: id }, undefined, { signal: session.signal });
    const result = await waitForTask(await inspect(taskID), inspect, context);
    session.print(result, () => (result === null ? "" : JSON.stringify(result, null, 2)));
  },
};
