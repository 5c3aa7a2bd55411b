import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Remove snapshots",
  args: [{ name: "SNAPSHOT", about: "id or exact name", isRepeated: true, completes: "snapshot" }],
  options: {},
  async run(given, session) {
    const found = [];
    for (const name of given.args) found.push(await session.findSnapshot(name));
    const client = await session.client();
    const removed: { service: string; id: string }[] = [];
    for (const { service, snapshot } of found) {
      const params = { service, snapshotID: snapshot.id };
      await client.snapshotRemove(params, undefined, await session.longContext());
      removed.push({ service, id: snapshot.id });
      // What is gone is said even if the next one fails.
      if (!session.isJson) session.line(snapshot.id);
    }
    if (session.isJson) session.print(removed, () => "");
  },
};
