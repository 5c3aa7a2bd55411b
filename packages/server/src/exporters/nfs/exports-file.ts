/**
 * A file of exports(5) that names what the service exports, so that `exportfs -r`, which an administrator or a
 * restart of the NFS server runs, keeps it. It is written after the records and changed before them, so that it
 * never names more than they do. `mountpoint` keeps the empty folder below from being exported after a boot.
 */
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { OpContext } from "../../core/driver.js";
import type { Client, Share } from "./share.js";

export type OptionsOf = (share: Share, client: Client) => readonly string[];

const HEAD =
  "# Made by libstorage from its volumes' records, and made again whenever they change.\n";

export function exportsText(shares: readonly Share[], optionsOf: OptionsOf): string {
  const lines = shares.map((share) => {
    const clients = share.clients.map(
      (client) => `${client.address}(${optionsOf(share, client).join(",")})`,
    );
    return `${share.path} ${clients.join(" ")}\n`;
  });
  return [HEAD, ...lines.toSorted()].join("");
}

/** Which paths and clients such a file names. */
export function namedIn(text: string): string[] {
  return text.split("\n").flatMap((line) => {
    const [path = "", ...clients] = line.split(" ");
    if (!path.startsWith("/")) return [];
    return clients.map((client) => `${path} ${client.replace(/\(.*$/, "")}`);
  });
}

/** Brings the file to the text; without shares it is removed. */
export async function writeExports(
  path: string,
  text: string,
  { files }: OpContext,
): Promise<void> {
  const before = await readFile(path, "utf8").catch(() => undefined);
  if (text === HEAD) {
    if (before !== undefined) await files.unlink(path);
  } else if (before !== text) {
    if (before === undefined) await files.makeFolder(dirname(path), 0o755);
    await files.write(path, text, { mode: 0o644 });
  }
}
