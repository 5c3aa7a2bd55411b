/**
 * How a holder gets a volume and loses it: directly when it is this host, through the service's exporter when
 * it is another. The record comes before the export and goes after it, so that nothing is ever exported
 * that no record names.
 */
import { basename } from "node:path";
import { StorageError, hostFactsOf } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { heldBy } from "./access.js";
import type { AttachmentRecord, OpContext, StorageDriver, VolumeRecord } from "./driver.js";
import { exporterOf, fieldsOfDoor, holdsOf } from "./exporter.js";
import type { Exporter, Hold, NotRestored, Session } from "./exporter.js";
import type { LiveImage } from "./live-image.js";
import { stored } from "./operations.js";
import { isThisHost } from "./this-host.js";

export class Holds {
  readonly #service: string;
  readonly #driver: StorageDriver;
  /** Through which other hosts get volumes. */
  readonly #exporter: Exporter | undefined;
  readonly #exporters: ReadonlyMap<string, Exporter>;

  constructor(
    service: string,
    driver: StorageDriver,
    exporter: Exporter | undefined,
    others: readonly Exporter[] = [],
  ) {
    this.#service = service;
    this.#driver = driver;
    this.#exporter = exporter;
    const all = [...others, ...(exporter === undefined ? [] : [exporter])];
    this.#exporters = new Map(all.map((one) => [one.name, one]));
  }

  get exporters(): ReadonlyMap<string, Exporter> {
    return this.#exporters;
  }

  /** @throws {StorageError} `failed-precondition` when the holder's host cannot be reached */
  async admit(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<VolumeRecord> {
    const exporter = this.#exporterFor(volume, attachment.instanceID);
    const { metadata, ...holder } = attachment.instanceID;
    const facts = hostFactsOf(metadata);
    // What a host tells of itself is for now; the record names it by its id.
    const plain = facts === undefined ? attachment : { ...attachment, instanceID: holder };
    if (exporter === undefined) return this.#driver.volumeAttach(volume, plain, context);
    if (facts === undefined)
      throw new StorageError(
        "invalid-argument",
        `cannot attach volume ${volume.id} to ${holder.id}: its client tells nothing of that host that ${exporter.name} needs; use a client of this version`,
        { volumeID: volume.id, instanceID: holder.id, exporter: exporter.name },
      );
    const wanted = { holder, facts, epoch: attachment.epoch };
    const door = await exporter.plan(volume, wanted, context);
    const fields = { ...plain.fields, ...fieldsOfDoor(exporter.name, door) };
    const planned = { ...plain, deviceName: door.deviceName, fields };
    return this.admitPlanned(volume, planned, exporter, context);
  }

  /** Lets a holder in whose door is chosen already. */
  async admitPlanned(
    volume: VolumeRecord,
    planned: AttachmentRecord,
    exporter: Exporter,
    context: OpContext,
  ): Promise<VolumeRecord> {
    const recorded = await this.#driver.volumeAttach(volume, planned, context);
    await exporter.export({ volume: recorded, attachment: planned }, context);
    return recorded;
  }

  /** Cuts a holder off and takes it out of the record. One that holds nothing is fine. */
  async cut(
    volume: VolumeRecord,
    holder: InstanceID,
    force: boolean,
    context: OpContext,
  ): Promise<VolumeRecord> {
    const attachment = heldBy(volume, holder);
    if (attachment === undefined) return volume;
    const name = exporterOf(attachment);
    if (name !== undefined)
      await this.named(name, volume).unexport({ volume, attachment }, context);
    return this.#driver.volumeDetach(volume, holder, force, context);
  }

  /** Cuts several off, one by one. */
  async cutAll(
    volume: VolumeRecord,
    holders: readonly AttachmentRecord[],
    force: boolean,
    context: OpContext,
  ): Promise<VolumeRecord> {
    let current = volume;
    for (const { instanceID } of holders)
      current = await this.cut(current, instanceID, force, context);
    return current;
  }

  /**
   * Whether a volume can grow while somebody has it. A folder grows where it lies; a device has to be told of
   * to those that it is exported to.
   */
  get canGrow(): boolean {
    const isTold = this.#exporter === undefined || this.#exporter.expanded !== undefined;
    return this.#driver.type !== "block" || isTold;
  }

  async expand(volume: VolumeRecord, sizeBytes: number, context: OpContext): Promise<VolumeRecord> {
    const expanded = await this.#driver.volumeExpand?.(volume, sizeBytes, context);
    if (expanded === undefined) return volume;
    const used = new Set(holdsOf([expanded]).map(({ attachment }) => exporterOf(attachment)));
    for (const [name, exporter] of this.#exporters)
      if (used.has(name)) await exporter.expanded?.(expanded, context);
    return expanded;
  }

  /** A volume's image as its exporters have it. Those of one volume share who has it open. */
  async live(
    volume: VolumeRecord,
    isLocked: boolean,
    context: OpContext,
  ): Promise<LiveImage | undefined> {
    for (const { attachment } of holdsOf([volume])) {
      const exporter = this.#exporters.get(exporterOf(attachment) ?? "");
      if (exporter?.live !== undefined) return exporter.live(volume, isLocked, context);
    }
    return undefined;
  }

  attachToken(attachment: AttachmentRecord): string {
    if (exporterOf(attachment) === undefined) return this.#driver.attachToken(attachment);
    const { deviceName } = attachment;
    return deviceName.startsWith("/dev/") ? basename(deviceName).toLowerCase() : "";
  }

  /**
   * Makes the exports that the records name, as after a reboot.
   * @returns what could not be restored, in words
   */
  async restore(volumes: readonly VolumeRecord[], context: OpContext): Promise<readonly string[]> {
    const holds = holdsOf(volumes);
    const known = (hold: Hold): boolean => this.#exporters.has(exporterOf(hold.attachment) ?? "");
    const failed: NotRestored[] = [];
    for (const [name, exporter] of this.#exporters) {
      const own = holds.filter(({ attachment }) => exporterOf(attachment) === name);
      failed.push(...(await exporter.restore(own, context, holds)));
    }
    const words = ({ volume, attachment }: Hold): string =>
      `the export of volume ${volume.id} of service ${this.#service} to ${attachment.instanceID.id}`;
    return [
      ...failed.map(
        ({ hold, error }) => `${words(hold)} could not be restored: ${stored(error).message}`,
      ),
      ...holds
        .filter((hold) => !known(hold))
        .map(
          (hold) =>
            `${words(hold)} waits for its exporter ${exporterOf(hold.attachment)}, which the service does not use now`,
        ),
    ];
  }

  /** Makes the exports of one volume anew, after they were lost. */
  async exportAgain(volume: VolumeRecord, context: OpContext): Promise<void> {
    for (const hold of holdsOf([volume])) {
      const name = exporterOf(hold.attachment) ?? "";
      await this.#exporters.get(name)?.export(hold, context);
    }
  }

  async sessions(
    volumes: readonly VolumeRecord[],
    context: OpContext,
  ): Promise<readonly Session[]> {
    const all: Session[] = [];
    for (const exporter of this.#exporters.values())
      all.push(...(await exporter.sessions(volumes, context)));
    return all;
  }

  /** The exporter through which an instance gets a volume; undefined when it gets the source itself. */
  #exporterFor(volume: VolumeRecord, instance: InstanceID): Exporter | undefined {
    const exporter = this.#exporter;
    const { isHostBound = false } = this.#driver;
    if (exporter === undefined && !isHostBound) return undefined;
    if (isThisHost(instance)) return undefined;
    const about = { volumeID: volume.id, instanceID: instance.id, service: this.#service };
    if (exporter === undefined)
      throw new StorageError(
        "failed-precondition",
        `cannot attach volume ${volume.id} to ${instance.id}: the service ${this.#service} has no exporter, so only the server's own host can use its volumes; set "exporter" for the service`,
        about,
      );
    if (exporter.sources.includes(volume.source.kind)) return exporter;
    throw new StorageError(
      "failed-precondition",
      `cannot attach volume ${volume.id} to ${instance.id}: the exporter ${exporter.name} takes ${exporter.sources.join(" or ")}, and the volume is a ${volume.source.kind}; set another exporter for the service ${this.#service}`,
      { ...about, exporter: exporter.name },
    );
  }

  /** @throws {StorageError} `failed-precondition` for one that is not configured now */
  named(name: string, { id }: Pick<VolumeRecord, "id">): Exporter {
    const exporter = this.#exporters.get(name);
    if (exporter !== undefined) return exporter;
    throw new StorageError(
      "failed-precondition",
      `volume ${id} was exported through ${name}, which the service ${this.#service} does not use now; set "exporter: ${name}" for it again, or add ${name} to its "exports", so that the holder can be cut off`,
      { volumeID: id, exporter: name },
    );
  }
}
