import { KIB, formatSize } from "@libstorage/model";
import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "List the services as storage groups, with their space",
  args: [],
  options: {},
  notes: ["SIZE is 0 B for a service that cannot tell."],
  async run(_given, session) {
    const client = await session.client();
    const groups = await client.storageListGroups({}, undefined, await session.context());
    const rows = groups.map(({ name, size, avail }) => [
      name,
      formatSize(size * KIB),
      formatSize(avail * KIB),
    ]);
    session.table(groups, ["GROUP", "SIZE", "FREE"], rows);
  },
};
