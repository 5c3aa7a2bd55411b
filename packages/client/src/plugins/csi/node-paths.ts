/** Paths of the orchestrator: what may be done at them. */
import { lstat, mkdir, open, rmdir, stat, unlink } from "node:fs/promises";
import { dirname, isAbsolute, normalize } from "node:path";
import { CsiError, invalid } from "./status.js";

/** PATH_MAX of limits.h, with its final zero. */
const MAX_BYTES = 4095;
/** NAME_MAX of limits.h. */
const MAX_PART_BYTES = 255;

/** @throws {CsiError} INVALID_ARGUMENT */
export function checkPath(what: string, path: string): void {
  if (path === "") throw invalid(`${what} is missing`);
  if (Buffer.byteLength(path) > MAX_BYTES)
    throw invalid(`${what} has more than ${MAX_BYTES} bytes`);
  const long = path.split("/").find((part) => Buffer.byteLength(part) > MAX_PART_BYTES);
  if (long !== undefined)
    throw invalid(
      `${what} has a part of more than ${MAX_PART_BYTES} bytes: ${long.slice(0, 40)}… in ${dirname(path).slice(0, 200)}`,
    );
  if (!isAbsolute(path) || path.includes("\0") || normalize(path) === "/")
    throw invalid(`${what} is no absolute path of a folder below the root`);
}

/** The staging folder is the orchestrator's to make. @throws {CsiError} FAILED_PRECONDITION */
export async function checkFolder(what: string, path: string): Promise<void> {
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (found?.isDirectory() === true) return;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `${what} ${path} is ${found === undefined ? "not there" : "no folder"}; the orchestrator makes it, so it may have vanished: call again once it is there`,
  );
}

/** The folder of a target is the orchestrator's to make, too. @throws {CsiError} FAILED_PRECONDITION */
export async function checkParent(target: string): Promise<void> {
  const parent = dirname(normalize(target).replace(/\/$/, ""));
  const found = await stat(parent).catch(({ code = "" }: NodeJS.ErrnoException) => code);
  if (typeof found === "object" && found.isDirectory()) return;
  const what =
    found === "ENOENT"
      ? "not there"
      : typeof found === "object" || found === "ENOTDIR"
        ? "no folder"
        : `not to be looked at (${found})`;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `target_path ${target} cannot be made: ${parent} is ${what}; the orchestrator makes it, so call again once it is there`,
  );
}

/** An empty file, on which a device can be mounted. @throws {CsiError} FAILED_PRECONDITION */
export async function makeFile(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) {
    await (await open(path, "wx", 0o600)).close();
    return;
  }
  if (found.isFile() && found.size === 0) return;
  throw new CsiError(
    "FAILED_PRECONDITION",
    `target_path ${path} is not free: there is ${found.isFile() ? "a file with content" : "no plain file"}; remove it`,
  );
}

export async function makeTargetFolder(path: string): Promise<void> {
  await mkdir(path, { mode: 0o750 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
}

/** What the plugin made at a target; something else with content stays. */
export async function removeTarget(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  const tolerate = (error: NodeJS.ErrnoException): void => {
    if (!["ENOENT", "ENOTEMPTY", "EEXIST", "EBUSY"].includes(error.code ?? "")) throw error;
  };
  if (found.isDirectory()) await rmdir(path).catch(tolerate);
  else if (found.isFile() && found.size === 0) await unlink(path).catch(tolerate);
}
