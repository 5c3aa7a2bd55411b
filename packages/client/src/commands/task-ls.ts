import type { Command } from "../cli/command.js";
import { TASK_HEAD, taskRow } from "./task-view.js";

export const command: Command = {
  about: "List the server's tasks",
  args: [],
  options: { running: { type: "boolean", about: "only those that have not ended" } },
  async run(given, session) {
    const client = await session.client();
    const tasks = await client.tasks({}, undefined, await session.context());
    const wanted = Object.values(tasks)
      .filter(
        ({ state }) =>
          !given.flag("running") || state === "" || state === "running" || state === "queued",
      )
      .toSorted((a, b) => a.id - b.id);
    session.table(
      Object.fromEntries(wanted.map((task) => [task.id, task])),
      TASK_HEAD,
      wanted.map(taskRow),
    );
  },
};
