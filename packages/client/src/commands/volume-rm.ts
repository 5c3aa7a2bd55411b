import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Remove volumes and their data",
  args: [{ name: "VOLUME", about: "id or exact name", isRepeated: true, completes: "volume" }],
  options: { force: { type: "boolean", about: "even if it is attached or cannot be read" } },
  async run(given, session) {
    const removed: { service: string; id: string }[] = [];
    // All are looked up before the first one goes.
    const found = [];
    for (const name of given.args) found.push(await session.findVolume(name, 0));
    const client = await session.client();
    for (const { service, volume } of found) {
      const params = { service, volumeID: volume.id, force: given.flag("force") };
      await client.volumeRemove(params, undefined, await session.longContext());
      removed.push({ service, id: volume.id });
      // What is gone is said even if the next one fails.
      if (!session.isJson) session.line(volume.id);
    }
    if (session.isJson) session.print(removed, () => "");
  },
};
