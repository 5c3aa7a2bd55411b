import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "List the wildcards of the files that hypervisors may use",
  args: [],
  options: {},
  async run(_given, session) {
    const client = await session.client();
    const locations = await client.storageFileLocations({}, undefined, await session.context());
    session.print(locations, () => locations.join("\n"));
  },
};
