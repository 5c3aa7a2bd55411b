import { StorageError } from "@libstorage/model";
import type { StorageStat } from "@libstorage/model";
import type { Command } from "../cli/command.js";

const TYPES: Readonly<Record<StorageStat["type"], string>> = { 1: "block", 2: "file", 3: "folder" };

export const FILE_HEAD = ["PATH", "TYPE", "BYTES"];

export function fileRow(path: string, { type, size }: StorageStat): readonly string[] {
  return [path, TYPES[type], String(size)];
}

export const command: Command = {
  about: "Show type and size of a hypervisor's file or device on the server's host",
  args: [{ name: "PATH", about: "in one of the server's file locations" }],
  options: {},
  async run({ args: [path = ""] }, session) {
    const client = await session.client();
    const stat = await client.storageFileStat({ path }, undefined, await session.context());
    if (stat === null) throw new StorageError("not-found", `${path} does not exist`, { path });
    session.table(stat, FILE_HEAD, [fileRow(path, stat)]);
  },
};
