/** A number that no other server has: hosts may be clones of each other, with one machine ID and one name. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ExporterContext } from "../../core/exporter.js";

const FILE = "server-id";
const FORM = /^[\da-f]{32}$/;

/** Read from the server's own folder, and made there at the first time. */
export async function serverID({
  libFolder,
  files,
}: Pick<ExporterContext, "libFolder" | "files">): Promise<string> {
  const folder = join(libFolder, "iscsi");
  const path = join(folder, FILE);
  const found = (await readFile(path, "utf8").catch(() => "")).trim();
  if (FORM.test(found)) return found;
  const id = randomBytes(16).toString("hex");
  await files.makeFolder(folder);
  await files.write(path, `${id}\n`);
  return id;
}
