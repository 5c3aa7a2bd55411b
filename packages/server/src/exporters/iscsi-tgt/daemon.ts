/**
 * One tgtd: its own, which is started on demand, or one that runs already. What is known about it from use:
 * a portal that it cannot have it replaces by every address of the host, so what it listens on is looked at after
 * the start, and a daemon that listens elsewhere is killed; it does not heed SIGTERM; it keeps nothing
 * on disk, so when it is gone all its targets are.
 */
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { formatPortal, isWildcard, parsePortal } from "../iscsi/portals.js";
import type { Portal } from "../iscsi/portals.js";
import { isAway, missingTool } from "./tgtadm.js";
import type { TgtAdm } from "./tgtadm.js";

const START_MS = 15_000;
const END_MS = 10_000;
const POLL_MS = 25;

export class Daemon {
  readonly adm: TgtAdm;
  readonly #portals: () => readonly Portal[];
  readonly #isOwn: boolean;

  /** @param portals where it must listen; throws when this host does not have them */
  constructor(adm: TgtAdm, portals: () => readonly Portal[], isOwn: boolean) {
    this.adm = adm;
    this.#portals = portals;
    this.#isOwn = isOwn;
  }

  /** Whether it answers; false when there is none. @throws when one is there and does not answer */
  async isUp(context: OpContext): Promise<boolean> {
    try {
      await this.adm.portals(context);
      return true;
    } catch (error) {
      const missing = missingTool(error);
      if (missing !== undefined) throw missing;
      if (!isAway(error)) throw error;
    }
    const pids = await this.pids();
    if (this.#isOwn && pids.length > 0)
      throw new StorageError(
        "unavailable",
        `tgtd (process ${pids.join(", ")}) runs and does not answer at ${this.adm.socket}.0; look at what it waits for, and end it with kill -9 if need be`,
        { pids },
      );
    return false;
  }

  /** Makes sure that it runs, and listens on these portals, and its own one nowhere else than it shall. */
  async ensure(needed: readonly Portal[], context: OpContext): Promise<void> {
    if (!(await this.isUp(context))) {
      if (!this.#isOwn)
        throw new StorageError(
          "unavailable",
          `no tgtd answers at ${this.adm.socket}.0; start it (Debian: systemctl start tgt), or leave "socket" out, so that the server starts one of its own`,
          { socket: this.adm.socket },
        );
      await this.#start(this.#portals(), context);
    }
    const found = await this.#listening(context);
    const missing = needed.map(formatPortal).filter((portal) => !found.includes(portal));
    if (missing.length === 0 || (!this.#isOwn && found.some(isEverywhere))) return;
    throw new StorageError(
      "failed-precondition",
      `the tgtd at ${this.adm.socket}.0 listens on ${found.join(", ")} and not on ${missing.join(", ")}; ${this.#isOwn ? "detach its volumes, so that it is started anew with the addresses of today" : 'correct "portals", or start it with --iscsi portal=…'}`,
      { found, missing },
    );
  }

  async #listening(context: OpContext): Promise<readonly string[]> {
    return (await this.adm.portals(context)).map(normal);
  }

  async #start(wanted: readonly Portal[], context: OpContext): Promise<void> {
    const portals = wanted.flatMap((portal) => ["--iscsi", `portal=${formatPortal(portal)}`]);
    try {
      await context.exec("tgtd", portals, context.signal, {
        env: { TGT_IPC_SOCKET: this.adm.socket },
      });
    } catch (error) {
      throw missingTool(error) ?? error;
    }
    const end = Date.now() + START_MS;
    while (!(await this.#answers(context))) {
      if (Date.now() > end) {
        await this.kill();
        throw new StorageError(
          "unavailable",
          "tgtd was started and does not answer; see the log of the host for its reason",
        );
      }
      await sleep(POLL_MS);
    }
    const expected = wanted.map(formatPortal);
    const found = await this.#listening(context);
    const elsewhere = found.filter((portal) => !expected.includes(portal));
    if (found.length === expected.length && elsewhere.length === 0) return;
    await this.kill();
    const busy = expected.filter((portal) => !found.includes(portal));
    throw new StorageError(
      "failed-precondition",
      `tgtd cannot listen on ${busy.join(", ") || expected.join(", ")}; it listened on ${found.join(", ")} instead, so it was ended: the port is in use (ss -ltnp shows by what); set "portals" to another address or port`,
      { wanted: expected, found },
    );
  }

  async #answers(context: OpContext): Promise<boolean> {
    return this.adm.portals(context).then(
      () => true,
      (error: unknown) => {
        if (isAway(error)) return false;
        throw error;
      },
    );
  }

  /** The processes of the own daemon. */
  async pids(): Promise<readonly number[]> {
    const mark = `TGT_IPC_SOCKET=${this.adm.socket}`;
    const found = await Promise.all(
      (await readdir("/proc").catch(() => []))
        .filter((name) => /^\d+$/.test(name))
        .map(async (pid) => {
          const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
          if (name !== "tgtd\n") return [];
          const variables = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
          return variables.split("\0").includes(mark) ? [Number(pid)] : [];
        }),
    );
    return found.flat();
  }

  /** Ends the own daemon, and waits until it has ended. */
  async kill(): Promise<void> {
    if (!this.#isOwn) return;
    const end = Date.now() + END_MS;
    for (;;) {
      const pids = await this.pids();
      if (pids.length === 0) return;
      for (const pid of pids) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It has ended meanwhile.
        }
      }
      if (Date.now() > end)
        throw new StorageError("unavailable", `tgtd (process ${pids.join(", ")}) does not end`, {
          pids,
        });
      await sleep(POLL_MS);
    }
  }

  /** Ends the own daemon when it has nothing to do any more. */
  async endIfIdle(context: OpContext): Promise<void> {
    if (!this.#isOwn || (await this.pids()).length === 0) return;
    const isIdle = await this.adm.targets(context).then(
      (targets) => targets.length === 0,
      () => false,
    );
    if (isIdle) await this.kill();
  }
}

function normal(portal: string): string {
  const parsed = parsePortal(portal);
  return parsed === undefined ? portal : formatPortal(parsed);
}

function isEverywhere(portal: string): boolean {
  const parsed = parsePortal(portal);
  return parsed !== undefined && isWildcard(parsed);
}
