/**
 * Doors: volumes that are served on this host, each with its own options. A door stands in its volume's record as
 * a holder, so that the access table, force, removal and recovery treat it as any other.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError, notFound } from "@libstorage/model";
import type { ExportAddRequest, ExportRemoveMode, ExportUpdateRequest } from "@libstorage/model";
import { decideDoor, heldBy, isShareable } from "./access.js";
import type { AttachmentRecord, OpContext, StorageDriver, VolumeRecord } from "./driver.js";
import {
  doorOf,
  exporterOf,
  fieldsOfDoor,
  fieldsOfDoorRecord,
  holderOfDoor,
  holdsOf,
} from "./exporter.js";
import type {
  DoorAbilities,
  DoorOptions,
  DoorRecord,
  DoorState,
  Exporter,
  Hold,
} from "./exporter.js";
import type { Holds } from "./holds.js";
import type { Inventory } from "./inventory.js";
import type { Prepared, Work } from "./operations.js";
import { bounded, usable } from "./refusals.js";

const LOOKS = 10;
const LOOK_EVERY_MS = 50;

/** A door with its volume. */
export interface OpenDoor extends Hold {
  readonly service: string;
  readonly door: DoorRecord;
}

export interface DoorsOptions {
  readonly service: string;
  readonly driverName: string;
  readonly driver: StorageDriver;
  readonly holds: Holds;
  readonly inventory: Inventory;
}

export class Doors {
  readonly #service: string;
  readonly #driverName: string;
  readonly #driver: StorageDriver;
  readonly #holds: Holds;
  readonly #inventory: Inventory;

  constructor({ service, driverName, driver, holds, inventory }: DoorsOptions) {
    this.#service = service;
    this.#driverName = driverName;
    this.#driver = driver;
    this.#holds = holds;
    this.#inventory = inventory;
  }

  all(): readonly OpenDoor[] {
    return holdsOf(this.#inventory.volumes.all()).flatMap((hold) => this.#doorsIn(hold));
  }

  /** A record that was changed by hand is nobody's door; removing its holder by force still takes it away. */
  #doorsIn(hold: Hold): readonly OpenDoor[] {
    try {
      const door = doorOf(hold.attachment);
      return door === undefined ? [] : [{ ...hold, service: this.#service, door }];
    } catch {
      return [];
    }
  }

  /** By id, without case. */
  find(id: string): OpenDoor | undefined {
    return this.all().find(({ door }) => door.id.toLowerCase() === id.toLowerCase());
  }

  /** @throws {StorageError} `not-found` */
  door(id: string): OpenDoor {
    const found = this.find(id);
    if (found === undefined) throw notFound("export", id, { service: this.#service });
    return found;
  }

  /** An id that no other export has; short, and a valid id of QEMU's. */
  freeID(): string {
    for (;;) {
      const id = `export-${randomBytes(5).toString("hex")}`;
      if (this.find(id) === undefined) return id;
    }
  }

  async add(
    volume: VolumeRecord,
    exportID: string,
    { volumeID: _volumeID, type, id: _id, ...options }: ExportAddRequest,
    shareableByService: boolean,
    context: OpContext,
  ): Promise<Prepared<OpenDoor>> {
    const isWritable = options.writable === true;
    const exporter = this.#exporterFor(type, volume);
    decideDoor(usable(volume), isWritable, isShareable(volume, shareableByService));
    const { claims } = this.#holds;
    const { name, path } = options;
    // Before the exporter looks: what it would find there is that export's.
    claims.needFree({ ...(name && { export: name }), ...(path && { socket: path }) });
    const epoch = volume.epoch + 1;
    const planned = await abilitiesOf(exporter).plan(volume, { exportID, options, epoch }, context);
    claims.needFree(planned.fields);
    const holder = holderOfDoor(exportID, this.#driverName);
    const record = { id: exportID, isWritable, state: "open", options } as const;
    const fields = {
      ...fieldsOfDoor(exporter.name, planned),
      ...fieldsOfDoorRecord(record),
    };
    const attachment = {
      instanceID: holder,
      deviceName: planned.deviceName,
      status: "attached",
      epoch,
      since: Date.now(),
      fields: bounded(fields),
    };
    return {
      work: {
        subject: { volumeID: volume.id, exportID, holder },
        run: async (running) => {
          const raised = { ...volume, epoch };
          const opened = await this.#holds.admit(raised, { attachment, exporter }, running);
          return { service: this.#service, volume: opened, attachment, door: record };
        },
        apply: (opened) => this.#inventory.putVolume(opened.volume),
        takeBack: async (undoing) => {
          const now = await this.#inventory.rereadVolume(volume.id, undoing);
          if (now === undefined || heldBy(now, holder) === undefined) return;
          this.#inventory.putVolume(await this.#holds.cut(now, holder, false, undoing));
        },
      },
    };
  }

  /** @throws {StorageError} `failed-precondition` when the service cannot serve a volume in this way */
  #exporterFor(type: string, volume: VolumeRecord): Exporter {
    const { exporters } = this.#holds;
    const exporter = exporters.get(type);
    const about = { volumeID: volume.id, service: this.#service, exporter: type };
    if (exporter?.doors === undefined) {
      const able = [...exporters.values()].filter(({ doors }) => doors !== undefined);
      const has = able.length === 0 ? "none" : `only ${able.map(({ name }) => name).join(" and ")}`;
      throw new StorageError(
        "failed-precondition",
        `volume ${volume.id} cannot be exported as ${type}: of the exporters that serve volumes on this host the service ${this.#service} has ${has}; add ${type} to its "exports"`,
        about,
      );
    }
    if (exporter.sources.includes(volume.source.kind)) return exporter;
    throw new StorageError(
      "failed-precondition",
      `volume ${volume.id} cannot be exported as ${type}: that takes ${exporter.sources.join(" or ")}, and the volume is a ${volume.source.kind}`,
      about,
    );
  }

  update(found: OpenDoor, request: ExportUpdateRequest): Prepared<OpenDoor> {
    const { volume, attachment, door } = found;
    const abilities = this.#served(found);
    if (door.state !== "open")
      throw new StorageError(
        "failed-precondition",
        `export ${door.id} of volume ${volume.id} is ${door.state}, on its way out; its options change no more`,
        { exportID: door.id },
      );
    const changed = { ...door, options: { ...door.options, ...request } satisfies DoorOptions };
    if (JSON.stringify(changed.options) === JSON.stringify(door.options)) return { settled: found };
    return {
      work: this.#change(volume, attachment, changed, (hold, context) =>
        abilities.update(hold, context),
      ),
    };
  }

  /** @throws {StorageError} `failed-precondition` for `safe` while it is used */
  async remove(
    found: OpenDoor,
    mode: ExportRemoveMode,
    context: OpContext,
  ): Promise<Prepared<OpenDoor | null>> {
    const { volume, attachment, door } = found;
    const abilities = this.#served(found);
    const userOf = (): Promise<string | undefined> => abilities.userOf(found, context);
    let user = mode === "hard" ? undefined : await userOf();
    // A client that has just ended is seen for a moment still.
    for (let looks = 0; user !== undefined && mode === "safe" && looks < LOOKS; looks += 1) {
      await sleep(LOOK_EVERY_MS);
      user = await userOf();
    }
    if (user !== undefined && mode === "safe")
      throw new StorageError(
        "failed-precondition",
        `export ${door.id} of volume ${volume.id} is in use by ${user}; end that, or remove it with mode "hide", "soft" or "hard"`,
        { exportID: door.id, volumeID: volume.id, user },
      );
    if (user === undefined) return { work: this.#close(found) };
    const state: DoorState = mode === "soft" ? "shutdown" : "hidden";
    // Hidden again, it stays as it is; what fails already does not come back.
    if (door.state === state || door.state === "shutdown") return { settled: found };
    return {
      work: this.#change(volume, attachment, { ...door, state }, (hold, running) =>
        abilities.hide(hold, mode === "soft", running),
      ),
    };
  }

  async isUsed(found: OpenDoor, context: OpContext): Promise<boolean> {
    const abilities = this.#served(found);
    return (await abilities.userOf(found, context)) !== undefined;
  }

  #served({ attachment, volume }: Hold): DoorAbilities {
    return abilitiesOf(this.#holds.named(exporterOf(attachment) ?? "", usable(volume)));
  }

  #close({ volume, attachment, door }: OpenDoor): Work<null> {
    const { instanceID: holder } = attachment;
    let left = volume;
    return {
      subject: { volumeID: volume.id, exportID: door.id, holder },
      run: async (context) => {
        left = await this.#holds.cut(volume, holder, true, context);
        return null;
      },
      apply: () => this.#inventory.putVolume(left),
      takeBack: async (context) => {
        const now = await this.#inventory.rereadVolume(volume.id, context);
        await this.#holds.readmitIfPossible(now, context);
      },
    };
  }

  /** The record first: what is in use may be told again from it. */
  #change(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    door: DoorRecord,
    tell: (hold: Hold, context: OpContext) => Promise<void>,
  ): Work<OpenDoor> {
    const fields = bounded({ ...attachment.fields, ...fieldsOfDoorRecord(door) });
    const changed = { ...attachment, fields };
    const attachments = volume.attachments.map((one) => (one === attachment ? changed : one));
    return {
      subject: { volumeID: volume.id, exportID: door.id, holder: attachment.instanceID },
      run: async (context) => {
        const written = await this.#driver.volumeUpdate({ ...volume, attachments }, context);
        await tell({ volume: written, attachment: changed }, context);
        return { service: this.#service, volume: written, attachment: changed, door };
      },
      apply: (opened) => this.#inventory.putVolume(opened.volume),
      takeBack: async (context) => {
        const now = await this.#inventory.rereadVolume(volume.id, context);
        if (now === undefined || heldBy(now, attachment.instanceID) === undefined) return;
        const back = now.attachments.map((one) =>
          one.instanceID.id === attachment.instanceID.id ? attachment : one,
        );
        const before = await this.#driver.volumeUpdate({ ...now, attachments: back }, context);
        this.#inventory.putVolume(before);
        // Also what was hidden half way is open again.
        await this.#holds
          .exportAgain(before, context)
          .catch((error: unknown) =>
            context.log.warn({ error, exportID: door.id }, "the export is not as before"),
          );
      },
    };
  }
}

function abilitiesOf({ name, doors }: Exporter): DoorAbilities {
  if (doors !== undefined) return doors;
  throw new StorageError("unimplemented", `${name} exports volumes to hosts that attach them only`);
}
