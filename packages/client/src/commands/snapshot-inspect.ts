import type { Command } from "../cli/command.js";
import { columns } from "../cli/columns.js";
import { details, sizeOf, timeOf } from "./volume-view.js";

export const command: Command = {
  about: "Show all that is known of a snapshot",
  args: [{ name: "SNAPSHOT", about: "its id or exact name", completes: "snapshot" }],
  options: {},
  async run({ args: [name = ""] }, session) {
    const { service, snapshot } = await session.findSnapshot(name);
    const fields = Object.entries(snapshot.fields ?? {}).map(([key, value]) => `${key}=${value}`);
    session.print(snapshot, () =>
      columns(
        details([
          ["id", snapshot.id],
          ["name", snapshot.name],
          ["service", service],
          ["volume", snapshot.volumeID],
          ["size", sizeOf(snapshot.volumeSize)],
          ["created", timeOf(snapshot.startTime)],
          ["status", snapshot.status],
          ["description", snapshot.description],
          ["encrypted", snapshot.encrypted === true ? "yes" : undefined],
          ["fields", fields.join(" ")],
        ]),
      ),
    );
  },
};
