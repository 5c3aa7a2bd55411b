/** A number that no other server has: hosts may be clones of each other, with one machine ID and one name. */
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ExporterContext } from "../core/exporter.js";

const FILE = "server-id";
const FORM = /^[\da-f]{32}$/;

/** Read from the server's own folder, and made there at the first time. */
export async function serverID({
  libFolder,
  files,
}: Pick<ExporterContext, "libFolder" | "files">): Promise<string> {
  // Where iSCSI, the first to need it, has put it: names in use begin with it.
  const folder = join(libFolder, "iscsi");
  const path = join(folder, FILE);
  const found = (await readFile(path, "utf8").catch(() => "")).trim();
  if (FORM.test(found)) return found;
  const id = randomBytes(16).toString("hex");
  await files.makeFolder(folder);
  await files.write(path, `${id}\n`);
  return id;
}

export function digest(...parts: readonly string[]): string {
  return createHash("sha256").update(parts.join("\0")).digest("hex");
}

/** Stands in every name that a service of a server gives to hosts: two servers never meet, even on one host. */
export function ownerOf(serverID: string, service: string): string {
  return digest(serverID, service).slice(0, 10);
}
