/** Which quota is on, what a service wants of it, and the limits of its volumes. */
import { readFileSync, existsSync, statSync } from "node:fs";
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { clearStaleGroups, enableQuota } from "./btrfs.js";
import type { QuotaMode } from "./btrfs.js";
import type { BtrfsConfig } from "./config.js";
import { limitsOf } from "./limits.js";
import type { Limits } from "./limits.js";

const SYSFS = "/sys/fs/btrfs";

/** After which time deleted subvolumes are mostly cleaned, so that their groups can go. */
const STALE_MS = 60_000;

/** How often it is looked whether somebody has switched quota on or off. */
const LOOK_MS = 15_000;

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

/**
 * What there is of quota at a moment: two texts differ when it was switched off and on between them, which took all
 * limits away. Undefined when none is on.
 */
function stateOf(uuid: string): string | undefined {
  const mode = quotaModeOf(uuid);
  const stats = statSync(`${SYSFS}/${uuid}/qgroups`, { throwIfNoEntry: false });
  // The kernel makes the folder anew each time.
  return mode === undefined ? undefined : `${mode} ${stats?.ino}`;
}

export class Quota {
  readonly limits: Limits;
  readonly #uuid: string;
  readonly #path: string;
  readonly #wanted: BtrfsConfig["quota"];
  readonly #context: OpContext;
  #staleTimer: NodeJS.Timeout | undefined;
  #lookTimer: NodeJS.Timeout | undefined;
  /** As it was when all limits were last looked at. */
  #seen: string | undefined;

  private constructor(
    uuid: string,
    path: string,
    wanted: BtrfsConfig["quota"],
    context: OpContext,
  ) {
    this.#uuid = uuid;
    this.#path = path;
    this.#wanted = wanted;
    this.#context = context;
    this.limits = limitsOf(path, context);
  }

  /**
   * Switches quota on where the service wants it and none is.
   * @param path the service's root
   * @param context lives as long as this
   * @throws {StorageError} `failed-precondition` when the service cannot have what it wants
   */
  static async open(
    uuid: string,
    path: string,
    wanted: BtrfsConfig["quota"],
    context: OpContext,
  ): Promise<Quota> {
    const quota = new Quota(uuid, path, wanted, context);
    if (wanted !== "auto" && wanted !== "off") await quota.#enable(wanted, context);
    return quota;
  }

  /**
   * From the first call on, all limits are set again whenever quota turns out to have been switched on. What is soon
   * done is done when this answers.
   * @param volumes that there are
   */
  async begin(volumes: readonly VolumeRecord[]): Promise<void> {
    if (this.#wanted === "off") this.limits.forget();
    else if (this.#lookTimer !== undefined) this.#look();
    else {
      this.#seen = stateOf(this.#uuid);
      if (this.#seen === undefined) this.limits.forget();
      else this.limits.settle(volumes);
      this.#lookTimer = setInterval(() => this.#look(), LOOK_MS).unref();
    }
    await this.limits.settled();
  }

  #look(): void {
    // It has not begun, or never will.
    if (this.#lookTimer === undefined) return;
    const now = stateOf(this.#uuid);
    if (now !== this.#seen && now === undefined)
      this.#context.log.warn(
        { path: this.#path },
        "quota was switched off on the file system: sizes are not enforced (btrfs quota enable)",
      );
    if (now !== undefined && (now !== this.#seen || this.limits.hasFailed)) this.limits.settle();
    this.#seen = now;
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
    this.#look();
    const mode = quotaModeOf(this.#uuid);
    if (mode !== undefined || this.#wanted === "auto") return mode;
    throw new StorageError(
      "failed-precondition",
      `quota: ${this.#wanted} cannot be met: quota was switched off on the file system of ${this.#path}; switch it on with btrfs quota enable, or restart the server: then all volumes get their limits again`,
      { path: this.#path },
    );
  }

  /** What `--check` says. */
  async detail(context: OpContext): Promise<string> {
    return this.isOn ? this.#modeDetail + (await this.limits.detail(context)) : this.#modeDetail;
  }

  get #modeDetail(): string {
    const mode = quotaModeOf(this.#uuid);
    if (this.#wanted === "off")
      return mode === undefined
        ? "sizes are not enforced: switched off"
        : "sizes are not enforced: switched off; a limit that was set before stays until the volume is expanded";
    if (mode === undefined)
      return "sizes are not enforced: no quota is on in this file system (btrfs quota enable)";
    const doubt = isInconsistent(this.#uuid) ? "; the kernel counts anew or wants a rescan" : "";
    return mode === "simple"
      ? "simple quota: what a volume has written counts, what it shares with its source does not"
      : `quota groups: all that a volume refers to counts, shared data too${doubt}`;
  }

  get isOn(): boolean {
    return this.#wanted !== "off" && quotaModeOf(this.#uuid) !== undefined;
  }

  /**
   * @param mayHaveOne whether there may be a limit already: that of the source, which a snapshot inherits under quota
   * groups, or an earlier one
   */
  async limit(
    path: string,
    sizeBytes: number,
    mayHaveOne: boolean,
    context: OpContext,
  ): Promise<void> {
    if (this.#wanted === "off") {
      const isOn = quotaModeOf(this.#uuid) !== undefined;
      if (isOn && mayHaveOne) await this.limits.set(path, 0, context);
      return;
    }
    if (this.#mode() === undefined) return;
    if (sizeBytes > 0 || mayHaveOne) await this.limits.set(path, sizeBytes, context);
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

  async close(): Promise<void> {
    clearTimeout(this.#staleTimer);
    clearInterval(this.#lookTimer);
    await this.limits.close();
  }
}
