import { formatSize } from "@libstorage/model";
import type { Command } from "../cli/command.js";

export const command: Command = {
  about: "Show the free space around a hypervisor's file, or in its folder",
  args: [{ name: "PATH", about: "in one of the server's file locations, or a folder of one" }],
  options: {},
  async run({ args: [path = ""] }, session) {
    const client = await session.client();
    const space = await client.storageFileStatVFS({ path }, undefined, await session.context());
    const { bsize, bavail } = space;
    session.table(space, ["PATH", "FREE"], [[path, formatSize(bsize * bavail)]]);
  },
};
