/** The exports of one service: made again at the start and when they are lost, added and removed as doors. */
import { StorageError } from "@libstorage/model";
import type { ExportAddRequest, ExportRemoveMode, ExportUpdateRequest } from "@libstorage/model";
import { randomUUID } from "node:crypto";
import { Doors } from "./doors.js";
import type { DoorsOptions, OpenDoor } from "./doors.js";
import type { OpContext, VolumeRecord } from "./driver.js";
import type { Session } from "./exporter.js";
import type { Holds } from "./holds.js";
import type { Inventory } from "./inventory.js";
import { lockKeyOf } from "./locks.js";
import type { Logger } from "./log.js";
import { stored } from "./operations.js";
import type { Caller, Operations, Prepared } from "./operations.js";

/** Doors on their way out are looked at so often. */
const LOOK_MS = 1_000;
/** What could not be exported is tried again so often. */
const SETTLE_MS = 10_000;

export interface ExportsOptions extends DoorsOptions {
  readonly operations: Operations;
  readonly log: Logger;
  readonly normalize: (volumeID: string) => string;
  readonly isShareable: () => boolean;
}

const REMOVE = "exportRemove";

export class Exports {
  readonly #service: string;
  readonly #holds: Holds;
  readonly #inventory: Inventory;
  readonly #operations: Operations;
  readonly #log: Logger;
  readonly #normalize: (volumeID: string) => string;
  readonly #isShareable: () => boolean;
  readonly #doors: Doors;
  readonly #idsInMaking = new Set<string>();
  #stops: (() => void)[] = [];
  #looking: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: ExportsOptions) {
    this.#service = options.service;
    this.#holds = options.holds;
    this.#inventory = options.inventory;
    this.#operations = options.operations;
    this.#log = options.log;
    this.#normalize = options.normalize;
    this.#isShareable = options.isShareable;
    this.#doors = new Doors(options);
  }

  /**
   * Makes the exports that the volumes' records name, and watches them from then on. To be called once, before
   * anything else. @returns what could not be restored, in words
   */
  async restore(context: OpContext): Promise<readonly string[]> {
    const failed = await this.#holds.restore(this.#inventory.volumes.all(), context);
    for (const exporter of this.#holds.exporters.values()) {
      const stop = exporter.watch?.(() => {
        this.#log.warn({ exporter: exporter.name }, "exports were lost, and are made again");
        for (const { id } of this.#inventory.volumes.all()) void this.#again(id);
      });
      if (stop !== undefined) this.#stops.push(stop);
    }
    this.#lookOut();
    this.#settleLater();
    return failed;
  }

  /** What is not as the records say now, in words. */
  get warnings(): readonly string[] {
    return this.#holds.warnings;
  }

  /** Tries again what could not be exported, until it can. */
  #settleLater(): void {
    this.#settling = setTimeout(() => {
      this.#settle()
        .catch((error: unknown) =>
          this.#log.warn({ error: stored(error) }, "exports could not be tried again"),
        )
        .finally(() => {
          if (!this.#isStopped) this.#settleLater();
        });
    }, SETTLE_MS).unref();
  }

  async #settle(): Promise<void> {
    const holds = this.#holds;
    if (holds.isUnsettled)
      await holds.settle(this.#inventory.volumes.all(), this.#context(600_000));
    for (const id of holds.volumesMissing)
      await this.#underLock(id, (volume) => holds.readmit(volume, this.#context(60_000)));
  }

  #again(id: string): Promise<void> {
    return this.#underLock(id, (volume) => this.#holds.exportAgain(volume, this.#context(60_000)));
  }

  /** Under the volume's lock, because its holders may be changing. */
  async #underLock(id: string, act: (volume: VolumeRecord) => Promise<void>): Promise<void> {
    const { locks } = this.#operations;
    await locks
      .run(lockKeyOf(this.#service, id), async () => {
        const volume = this.#inventory.volumes.get(id);
        if (volume === undefined) this.#holds.forget(id);
        else await act(volume);
      })
      .catch((error: unknown) =>
        this.#log.error({ error: stored(error), volumeID: id }, "could not be exported again"),
      );
  }

  #context(timeoutMs: number): OpContext {
    return this.#operations.context(this.#log, AbortSignal.timeout(timeoutMs));
  }

  /** Who is connected now. */
  sessions(): Promise<readonly Session[]> {
    return this.#holds.sessions(this.#inventory.volumes.all(), this.#context(30_000));
  }

  /** @throws {StorageError} `not-found` */
  door(id: string): OpenDoor {
    return this.#doors.door(id);
  }

  /** Serves a volume on this host, through a door of its own. */
  add(request: ExportAddRequest, caller: Caller): Promise<OpenDoor> {
    const volumeID = this.#normalize(request.volumeID);
    let taken: string | undefined;
    return this.#run("exportAdd", volumeID, { ...request, volumeID }, caller, async () => {
      const volume = this.#inventory.volumes.get(volumeID);
      if (volume === undefined)
        throw new StorageError("not-found", `volume ${volumeID} not found`, {
          resourceID: volumeID,
          service: this.#service,
        });
      const id = request.id ?? this.#doors.freeID();
      taken = this.#take(id);
      const isShareable = this.#isShareable();
      return this.#doors.add(volume, id, request, isShareable, this.#context(30_000));
    }).finally(() => {
      if (taken !== undefined) this.#idsInMaking.delete(taken);
    });
  }

  /** Two volumes may get an export of the same id at the same time. */
  #take(id: string): string {
    const key = id.toLowerCase();
    const there = this.#doors.find(id);
    if (there === undefined && !this.#idsInMaking.has(key)) {
      this.#idsInMaking.add(key);
      return key;
    }
    throw new StorageError(
      "already-exists",
      `service ${this.#service} has an export ${id} already${there === undefined ? "" : `, of volume ${there.volume.id}`}; choose another id or remove that one`,
      { exportID: id, ...(there !== undefined && { volumeID: there.volume.id }) },
    );
  }

  /** Changes an export that may be in use. */
  async update(id: string, request: ExportUpdateRequest, caller: Caller): Promise<OpenDoor> {
    const asked = {
      operation: "exportUpdate",
      service: this.#service,
      request: { id, ...request },
    };
    // It may be gone since.
    const earlier = this.#operations.repeated<OpenDoor>(asked, caller);
    if (earlier !== undefined) return earlier;
    const { volume } = this.door(id);
    return this.#run("exportUpdate", volume.id, { id, ...request }, caller, async () =>
      this.#doors.update(this.door(id), request),
    );
  }

  /** @returns what is left of it for now: null when it is gone */
  async remove(id: string, mode: ExportRemoveMode, caller: Caller): Promise<OpenDoor | null> {
    const asked = { operation: REMOVE, service: this.#service, request: { id, mode } };
    // It is gone if that succeeded.
    const earlier = this.#operations.repeated<OpenDoor | null>(asked, caller);
    if (earlier !== undefined) return earlier;
    const { volume } = this.door(id);
    const left = await this.#remove(id, mode, caller).catch(async (error: unknown) => {
      // To see whether somebody uses a door may have taken away one that nobody uses.
      const isInUse = error instanceof StorageError && error.data["user"] !== undefined;
      if (!isInUse && !this.#isStopped) await this.#again(volume.id);
      throw error;
    });
    this.#lookOut();
    return left;
  }

  async #remove(id: string, mode: ExportRemoveMode, caller: Caller): Promise<OpenDoor | null> {
    const { volume } = this.door(id);
    // What is hidden is not removed: those who follow the events learn of the removal when it is.
    const isLater =
      (mode === "hide" || mode === "soft") &&
      (await this.#doors.isUsed(this.door(id), this.#context(30_000)));
    return this.#run<OpenDoor | null>(
      isLater ? "exportHide" : REMOVE,
      volume.id,
      { id, mode },
      caller,
      () => this.#doors.remove(this.door(id), mode, this.#context(30_000)),
      REMOVE,
    );
  }

  /** While doors are on their way out, those that have nobody left are removed. */
  #lookOut(): void {
    const isNeeded = this.#doors.all().some(({ door }) => door.state !== "open");
    if (this.#isStopped || !isNeeded || this.#looking !== undefined) return;
    this.#looking = setTimeout(() => {
      this.#removeDeserted()
        .catch((error: unknown) => this.#log.warn({ error: stored(error) }, "looking failed"))
        .finally(() => {
          this.#looking = undefined;
          this.#lookOut();
        });
    }, LOOK_MS).unref();
  }

  async #removeDeserted(): Promise<void> {
    for (const found of this.#doors.all()) {
      if (found.door.state === "open") continue;
      if (await this.#doors.isUsed(found, this.#context(30_000))) continue;
      const caller = { who: "", via: "core", tx: randomUUID() };
      await this.remove(found.door.id, "hide", caller);
    }
  }

  #run<T>(
    operation: string,
    volumeID: string,
    request: object,
    caller: Caller,
    prepare: () => Promise<Prepared<T>>,
    asked = operation,
  ): Promise<T> {
    const lock = lockKeyOf(this.#service, volumeID);
    const wanted = { operation, asked, service: this.#service, lock, request, prepare };
    return this.#operations.run(wanted, caller);
  }

  stop(): void {
    clearTimeout(this.#settling);
    clearTimeout(this.#looking);
    this.#isStopped = true;
    for (const stop of this.#stops) stop();
    this.#stops = [];
  }
}
