/**
 * The kernel's target (LIO) as a tree of folders, configfs: a folder made is an object made, a link gives one
 * object to another, a removed folder ends its object. See Documentation/target in the kernel's sources.
 */
import { access, lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";

/** What configfs holds is in memory: there is nothing to sync. */
export const UNSYNCED = { isSyncDeferred: true } as const;

export const CONFIGFS = "/sys/kernel/config";

const MODULES = ["target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod"];

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Names in a folder; none when it is not there. */
export async function names(path: string): Promise<readonly string[]> {
  return readdir(path).catch(() => []);
}

/** Only the folders in a folder: beside them stand the attributes of the object. */
export async function folders(path: string): Promise<readonly string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** The links in a folder. */
export async function links(path: string): Promise<readonly string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name);
}

/** An attribute's value, or undefined when there is none of that name. */
export async function attribute(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").then(
    (text) => text.replace(/\n$/, ""),
    () => undefined,
  );
}

/**
 * Makes the kernel's target ready: its modules, configfs, its iSCSI part. Done already: changes nothing.
 * @returns the root of the target's tree
 * @throws {StorageError} `failed-precondition` that says which module or right is missing
 */
export async function openTarget(context: OpContext, configfs = CONFIGFS): Promise<string> {
  const root = join(configfs, "target");
  const fabric = join(root, "iscsi");
  if (!(await exists(fabric))) await loadModules(configfs, context);
  try {
    await context.files.makeFolder(fabric, 0o755, UNSYNCED);
  } catch (error) {
    throw unavailable(
      `${fabric} cannot be made (${codeOf(error)}); run as root: modprobe iscsi_target_mod`,
      error,
    );
  }
  return root;
}

async function loadModules(configfs: string, { exec, signal }: OpContext): Promise<void> {
  const root = join(configfs, "target");
  let failure: unknown;
  await exec("modprobe", ["-a", ...MODULES], signal).catch((error: unknown) => (failure = error));
  if (!(await exists(root)) && (await names(configfs)).length === 0)
    await exec("mount", ["-t", "configfs", "configfs", configfs], signal).catch(
      (error: unknown) => (failure ??= error),
    );
  if (await exists(root)) return;
  const said = failure instanceof Error ? ` (${failure.message})` : "";
  throw unavailable(
    `${root} is not there${said}; the kernel needs the modules ${MODULES.join(", ")}: modprobe -a ${MODULES.join(" ")}, and for a mount that is missing: mount -t configfs configfs ${configfs}. Where the kernel has no such modules (Debian: linux-image-amd64 and linux-image-cloud-amd64 have them; a container uses its host's), use the exporter iscsi-tgt`,
    failure,
  );
}

function unavailable(what: string, cause: unknown): StorageError {
  return new StorageError(
    "failed-precondition",
    `the kernel's iSCSI target (LIO) cannot be used: ${what}`,
    {},
    { cause },
  );
}

export function codeOf(error: unknown): string {
  return error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : "";
}

/** How long the kernel may take to end what runs on an object that is removed. */
const END_MS = 30_000;

/**
 * Removes what the kernel lets go only after all commands on it have ended, by a process of its own: where a
 * device has stopped answering, it hangs in the kernel, and would keep one of this process's few threads.
 * @param command `rmdir`, or `unlink` for a link; what is not there is fine
 * @throws {StorageError} `failed-precondition` when commands did not end in time
 */
export async function removeAndWait(
  command: "rmdir" | "unlink",
  path: string,
  what: string,
  context: OpContext,
): Promise<void> {
  if (!(await isThere(path))) return;
  const ended = context.exec(command, ["--", path], context.signal, { timeoutMs: END_MS });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), END_MS + 5_000);
  });
  try {
    const first = await Promise.race([ended, late]);
    if (first !== "late") return;
    // It may end later, as a failure that nobody waits for.
    ended.catch(() => {});
    throw stillRunning(what, undefined);
  } catch (error) {
    if (!(await isThere(path))) return;
    if (error instanceof StorageError && error.code === "deadline-exceeded")
      throw stillRunning(what, error);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The kernel removes an object before its folder goes, so a folder that is not there is the end. */
async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

function stillRunning(what: string, cause: unknown): StorageError {
  return new StorageError(
    "failed-precondition",
    `whether ${what} is cut off cannot be proven: the kernel still waits for its commands on the device; see to the device (dmesg, dmsetup info, lsblk), then try again`,
    {},
    { cause },
  );
}
