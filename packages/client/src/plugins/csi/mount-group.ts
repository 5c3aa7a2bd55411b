/** Makes a volume's files those of a group: what `volume_mount_group` asks for. */
import { stat } from "node:fs/promises";
import type { Exec } from "../../executor/exec.js";

const SETGID = 0o2000;
const GROUP_RWX = 0o070;
/** There may be millions of files. */
const LIMIT_MS = 10 * 60_000;

/** Whether all has been done. */
export async function isOfGroup(path: string, group: number): Promise<boolean> {
  const { gid, mode } = await stat(path);
  return gid === group && (mode & SETGID) !== 0 && (mode & GROUP_RWX) === GROUP_RWX;
}

/**
 * New files get the group by the folders' setgid bit. The root of the volume gets that bit last, so that
 * one which was cut short is done again, and one that was not is known by a look.
 */
export async function giveToGroup(
  exec: Exec,
  path: string,
  group: number,
  signal: AbortSignal,
): Promise<void> {
  if (await isOfGroup(path, group)) return;
  const limits = { signal, timeoutMs: LIMIT_MS };
  await exec("chmod", ["g-s", "--", path], limits);
  await exec("chgrp", ["--recursive", "--no-dereference", "--", String(group), path], limits);
  await exec("chmod", ["--recursive", "g+rwX", "--", path], limits);
  const folders = ["-xdev", "-depth", "-type", "d", "-exec", "chmod", "g+s", "{}", "+"];
  await exec("find", [path, ...folders], limits);
}
