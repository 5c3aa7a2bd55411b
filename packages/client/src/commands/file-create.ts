import { KIB, VIR_STORAGE_SPARSE_FILE, parseSize } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import { UsageError } from "../cli/usage-error.js";
import { FILE_HEAD, fileRow } from "./file-stat.js";

function kilobytesOf(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes === 0 || bytes % KIB !== 0)
    throw new UsageError(`SIZE must be whole KiB, such as 512K or 10G, not "${text}"`);
  return bytes / KIB;
}

export const command: Command = {
  about: "Create a file for a hypervisor on the server's host",
  args: [
    { name: "PATH", about: "in one of the server's file locations" },
    { name: "SIZE", about: "such as 10G or 512M; a bare number counts GiB" },
  ],
  options: { sparse: { type: "boolean", about: "take no space before it is written to" } },
  notes: ["Example: libstorage file create /var/lib/libvirt/images/web1.img 10G --sparse"],
  async run(given, session) {
    const [path = "", size = ""] = given.args;
    const flags = given.flag("sparse") ? VIR_STORAGE_SPARSE_FILE : 0;
    const body = { path, size: kilobytesOf(size), flags } as const;
    const client = await session.client();
    const stat = await client.storageCreateFile({}, body, await session.longContext());
    session.table(stat, FILE_HEAD, [fileRow(path, stat)]);
  },
};
