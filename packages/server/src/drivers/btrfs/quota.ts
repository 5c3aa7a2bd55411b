/** Which quota is on, what a service wants of it, and the limits of its volumes. */
import { readFileSync, existsSync } from "node:fs";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { clearStaleGroups, enableQuota, limitSubvolume } from "./btrfs.js";
import type { QuotaMode } from "./btrfs.js";
import type { BtrfsConfig } from "./config.js";

const SYSFS = "/sys/fs/btrfs";

/** After which time deleted subvolumes are mostly cleaned, so that their groups can go. */
const STALE_MS = 60_000;

/** @returns undefined when none is on. @see btrfs(5), FILESYSTEM EXPORTED VALUES; `mode` since Linux 6.7 */
export function quotaModeOf(uuid: string, sysfs = SYSFS): QuotaMode | undefined {
  const groups = `${sysfs}/${uuid}/qgroups`;
  try {
    return readFileSync(`${groups}/mode`, "utf8").trim() === "squota" ? "simple" : "qgroup";
  } catch {
    return existsSync(groups) ? "qgroup" : undefined;
  }
}

function isInconsistent(uuid: string): boolean {
  try {
    return readFileSync(`${SYSFS}/${uuid}/qgroups/inconsistent`, "utf8").trim() === "1";
  } catch {
    return false;
  }
}

export class Quota {
  readonly #uuid: string;
  readonly #path: string;
  readonly #wanted: BtrfsConfig["quota"];
  #staleTimer: NodeJS.Timeout | undefined;

  private constructor(uuid: string, path: string, wanted: BtrfsConfig["quota"]) {
    this.#uuid = uuid;
    this.#path = path;
    this.#wanted = wanted;
  }

  /**
   * Switches quota on where the service wants it and none is.
   * @param path on the file system
   * @throws {StorageError} `failed-precondition` when the service cannot have what it wants
   */
  static async open(
    uuid: string,
    path: string,
    wanted: BtrfsConfig["quota"],
    context: OpContext,
  ): Promise<Quota> {
    const quota = new Quota(uuid, path, wanted);
    if (wanted !== "auto" && wanted !== "off") await quota.#enable(wanted, context);
    return quota;
  }

  async #enable(wanted: "simple" | "qgroup" | "require", context: OpContext): Promise<void> {
    const found = quotaModeOf(this.#uuid);
    if (found === undefined) return this.#switchOn(wanted, context);
    if (wanted === "require" || found === wanted) return undefined;
    throw new StorageError(
      "failed-precondition",
      `quota: ${wanted} cannot be met: the file system of ${this.#path} has ${found} quota on, which may serve others; set quota: ${found}, or switch it off with btrfs quota disable`,
      { path: this.#path },
    );
  }

  async #switchOn(wanted: "simple" | "qgroup" | "require", context: OpContext): Promise<void> {
    try {
      if (wanted !== "require") return await enableQuota(context, this.#path, wanted);
      return await enableQuota(context, this.#path, "simple").catch((error: unknown) => {
        if (!(error instanceof StorageError) || error.code !== "unimplemented") throw error;
        return enableQuota(context, this.#path, "qgroup");
      });
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      const text = `quota: ${wanted} cannot be met on ${this.#path}: ${error.message}`;
      throw new StorageError("failed-precondition", text, error.data, { cause: error });
    }
  }

  /** What enforces sizes now; it may be switched by hand at any time. */
  #mode(): QuotaMode | undefined {
    if (this.#wanted === "off") return undefined;
    const mode = quotaModeOf(this.#uuid);
    if (mode !== undefined || this.#wanted === "auto") return mode;
    throw new StorageError(
      "failed-precondition",
      `quota: ${this.#wanted} cannot be met: quota was switched off on the file system of ${this.#path}; switch it on with btrfs quota enable, or restart the server`,
      { path: this.#path },
    );
  }

  get detail(): string {
    const mode = this.#wanted === "off" ? undefined : quotaModeOf(this.#uuid);
    if (mode === undefined)
      return this.#wanted === "off"
        ? "sizes are not enforced: switched off"
        : "sizes are not enforced: no quota is on in this file system (btrfs quota enable)";
    const doubt = isInconsistent(this.#uuid) ? "; the kernel counts anew or wants a rescan" : "";
    return mode === "simple"
      ? "simple quota: what a volume has written counts, what it shares with its source does not"
      : `quota groups: all that a volume refers to counts, shared data too${doubt}`;
  }

  get isOn(): boolean {
    return this.#wanted !== "off" && quotaModeOf(this.#uuid) !== undefined;
  }

  /** @param isCopy a snapshot may have inherited its source's limit */
  async limit(path: string, sizeBytes: number, isCopy: boolean, context: OpContext): Promise<void> {
    const mode = this.#mode();
    if (mode === undefined) return;
    if (sizeBytes === 0 && !isCopy) return;
    await limitSubvolume(context, path, sizeBytes);
  }

  async clearStale(context: OpContext): Promise<void> {
    if (this.isOn) await clearStaleGroups(context, this.#path);
  }

  /** Some time after the last removal, and not once for each. */
  clearStaleLater(context: OpContext): void {
    if (!this.isOn) return;
    this.#staleTimer ??= setTimeout(() => {
      this.#staleTimer = undefined;
      this.clearStale({ ...context, signal: AbortSignal.timeout(STALE_MS) }).catch(
        (error: unknown) =>
          context.log.warn({ error, path: this.#path }, "stale quota groups could not be cleared"),
      );
    }, STALE_MS).unref();
  }

  close(): void {
    clearTimeout(this.#staleTimer);
  }
}
