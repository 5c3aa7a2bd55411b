/**
 * Open-iscsi's record of one portal of one target. Secrets are written into its file: as arguments of
 * iscsiadm(8) every user of the host could read them. The record is a text of `key = value` lines between
 * `# BEGIN RECORD` and `# END RECORD`, of mode 600, that iscsiadm reads at login and iscsid when it starts
 * again under a session; so it stays as long as the session.
 * @see iscsiadm(8), "FILES"
 */
import { randomUUID } from "node:crypto";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { Places } from "../../executor/executor.js";
import { writeDurably } from "../../host/durable-file.js";
import type { IscsiDoor, Portal } from "./door.js";
import { portalText } from "./door.js";
import type { ChapCredentials } from "./secrets.js";

/** How long a login may take, in the terms of open-iscsi. */
export interface LoginTimes {
  readonly loginSeconds: number;
  readonly retries: number;
  /** How long writes wait for a session that is cut, before they fail. */
  readonly replacementSeconds: number;
}

/** Without a tag of the portal group the record is a file; with one it is a folder with a file per interface. */
async function recordIn(folder: string, { address, port }: Portal): Promise<string | undefined> {
  const names = await fs.readdir(folder).catch(() => []);
  const own = names.find((name) => name === `${address},${port}`);
  const tagged = names.find((name) => name.startsWith(`${address},${port},`));
  for (const name of [own, tagged].filter((one) => one !== undefined)) {
    const path = join(folder, name);
    if ((await fs.stat(path)).isFile()) return path;
    const [first] = await fs.readdir(path);
    if (first !== undefined) return join(path, first);
  }
  return undefined;
}

/** The file of a record that iscsiadm has made. */
export async function recordFile(
  { iscsi }: Places,
  { iqn }: IscsiDoor,
  portal: Portal,
): Promise<string | undefined> {
  for (const folder of iscsi) {
    const found = await recordIn(join(folder, "nodes", iqn), portal);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The lines that a record gets. */
export function recordLines(
  credentials: ChapCredentials | undefined,
  { loginSeconds, retries, replacementSeconds }: LoginTimes,
): ReadonlyMap<string, string> {
  const lines = new Map([
    // A session that the system makes at its start would belong to nobody.
    ["node.startup", "manual"],
    ["node.conn[0].startup", "manual"],
    // Only the LUN that is wanted is looked for; a target may show others.
    ["node.session.scan", "manual"],
    ["node.session.nr_sessions", "1"],
    ["node.session.initial_login_retry_max", String(retries)],
    ["node.conn[0].timeo.login_timeout", String(loginSeconds)],
    ["node.session.timeo.replacement_timeout", String(replacementSeconds)],
    ["node.session.auth.authmethod", credentials === undefined ? "None" : "CHAP"],
  ]);
  if (credentials === undefined) return lines;
  const { own, target } = credentials;
  lines.set("node.session.auth.username", own.userName);
  lines.set("node.session.auth.password", own.secret);
  if (target !== undefined) {
    lines.set("node.session.auth.username_in", target.userName);
    lines.set("node.session.auth.password_in", target.secret);
  }
  return lines;
}

const KEY = /^([\w.[\]]+) =/;

/** A record with lines of its own; credentials that it had and that are not among them go. */
export function editRecord(text: string, lines: ReadonlyMap<string, string>): string {
  const kept = text.split("\n").filter((line) => {
    const key = KEY.exec(line)?.[1] ?? "";
    return !lines.has(key) && !/^node\.session\.auth\.(?:username|password)/.test(key);
  });
  const end = kept.indexOf("# END RECORD");
  if (end < 0) throw new StorageError("internal", "open-iscsi's record has no end");
  const added = [...lines].map(([key, value]) => `${key} = ${value}`);
  return kept.toSpliced(end, 0, ...added).join("\n");
}

/**
 * @throws {StorageError} `internal` when iscsiadm has made no record, or one of another form
 */
export async function writeRecord(
  places: Places,
  door: IscsiDoor,
  portal: Portal,
  lines: ReadonlyMap<string, string>,
): Promise<void> {
  const file = await recordFile(places, door, portal);
  if (file === undefined)
    throw new StorageError(
      "internal",
      `iscsiadm keeps no record of ${door.iqn} at ${portalText(portal)} below ${places.iscsi.join(" or ")}; look for its folder "nodes"`,
      { iqn: door.iqn },
    );
  const text = editRecord(await fs.readFile(file, "utf8"), lines);
  // Beside the records every file would be taken for one.
  const folder = places.iscsi.find((one) => file.startsWith(`${one}/`)) ?? "";
  // One process may write records of several targets at once.
  const temporary = join(folder, `${TEMPORARY}${randomUUID()}`);
  // An empty record, which a loss of power would leave, makes iscsiadm fail for every target of the host.
  await writeDurably(file, text, temporary);
}

/** A record is empty while iscsiadm makes it, for less than this. */
const MAKING_MS = 30_000;

/**
 * Removes records that a loss of power has left empty: with one of them iscsiadm fails, whichever target it is asked for.
 * @param prefix with which the names of their targets begin
 */
export async function clearEmptyRecords({ iscsi }: Places, prefix: string): Promise<void> {
  for (const folder of iscsi) {
    const nodes = join(folder, "nodes");
    for (const iqn of await namesIn(nodes))
      if (iqn.startsWith(prefix))
        for (const file of await filesBelow(join(nodes, iqn)))
          if (await isLeftEmpty(file)) await fs.rm(join(nodes, iqn), { recursive: true });
  }
}

async function namesIn(folder: string): Promise<readonly string[]> {
  return fs.readdir(folder).catch(() => []);
}

async function filesBelow(folder: string): Promise<readonly string[]> {
  const entries = await fs
    .readdir(folder, { recursive: true, withFileTypes: true })
    .catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
}

async function isLeftEmpty(file: string): Promise<boolean> {
  const stats = await fs.stat(file).catch(() => undefined);
  return stats !== undefined && stats.size === 0 && Date.now() - stats.mtimeMs > MAKING_MS;
}

/** Begins the name of a file that a process has left which was killed while it wrote a record. */
export const TEMPORARY = ".libstorage-record-";
