/**
 * How a holder gets a volume and loses it: directly when it is this host, through the service's exporter when
 * it is another. The record comes before the export and goes after it, so that nothing is ever exported
 * that no record names.
 */
import { basename } from "node:path";
import { StorageError, hostFactsOf } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { heldBy } from "./access.js";
import { Claims } from "./claims.js";
import type { AttachmentRecord, OpContext, StorageDriver, VolumeRecord } from "./driver.js";
import { doorOf, exporterOf, fieldsOfDoor, holdsOf, keyOf, restoreEach } from "./exporter.js";
import type { DoorState, Exporter, Hold, NotRestored, Session } from "./exporter.js";
import type { LiveImage } from "./live-image.js";
import { stored } from "./operations.js";
import { isThisHost } from "./this-host.js";

/** A hold that is about to be made: who, through which exporter and by which door. */
export interface PlannedHold {
  readonly attachment: AttachmentRecord;
  /** Undefined when the holder gets the source itself. */
  readonly exporter: Exporter | undefined;
}

/** Without an error it is just being cut off, or that has failed half way. */
interface Missing {
  readonly volumeID: string;
  readonly holder: string;
  readonly error?: unknown;
}

export class Holds {
  readonly #service: string;
  readonly #driver: StorageDriver;
  /** Through which other hosts get volumes. */
  readonly #exporter: Exporter | undefined;
  readonly #exporters: ReadonlyMap<string, Exporter>;
  /** Names and paths of what is exported. */
  readonly claims = new Claims();
  /** Holds that a record names and that may not be exported. */
  readonly #missing = new Map<string, Missing>();
  /** Exporters that could not be brought to what the records say, and why. */
  readonly #unsettled = new Map<string, unknown>();

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

  /**
   * Chooses how a holder will be let in; changes nothing.
   * @param volume as it will be, without those who are cut off for the new holder
   * @throws {StorageError} what stands in the way, as far as it can be seen before
   */
  async plan(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<PlannedHold> {
    for (const name of this.#unsettled.keys()) this.#needSettled(name);
    const exporter = this.#exporterFor(volume, attachment.instanceID);
    const { metadata, ...holder } = attachment.instanceID;
    const facts = hostFactsOf(metadata);
    // What a host tells of itself is for now; the record names it by its id.
    const plain = facts === undefined ? attachment : { ...attachment, instanceID: holder };
    if (exporter === undefined) return { attachment: plain, exporter };
    if (facts === undefined)
      throw new StorageError(
        "invalid-argument",
        `cannot attach volume ${volume.id} to ${holder.id}: its client tells nothing of that host that ${exporter.name} needs; use a client of this version`,
        { volumeID: volume.id, instanceID: holder.id, exporter: exporter.name },
      );
    const wanted = { holder, facts, epoch: attachment.epoch };
    const door = await exporter.plan(volume, wanted, context);
    // A door may have been given this name.
    this.claims.needFree(door.fields);
    const fields = { ...plain.fields, ...fieldsOfDoor(exporter.name, door) };
    return { attachment: { ...plain, deviceName: door.deviceName, fields }, exporter };
  }

  /** Lets a holder in as planned. */
  async admit(
    volume: VolumeRecord,
    { attachment, exporter }: PlannedHold,
    context: OpContext,
  ): Promise<VolumeRecord> {
    if (exporter !== undefined) this.#needSettled(exporter.name);
    const recorded = await this.#driver.volumeAttach(volume, attachment, context);
    const hold = { volume: recorded, attachment };
    if (exporter !== undefined) await this.#export(exporter, hold, context);
    return recorded;
  }

  /** Brings a hold to the state that its record names. */
  async #export(exporter: Exporter, hold: Hold, context: OpContext): Promise<void> {
    this.claims.claim(hold);
    if (!isLeaving(hold)) await exporter.export(hold, context);
    // It lets nobody in again. Its record may say more than was done.
    else await exporter.doors?.hide(hold, stateOf(hold) === "shutdown", context);
  }

  async #unexport(exporter: Exporter, hold: Hold, context: OpContext): Promise<void> {
    // Then it was never let in, and what goes by its name is that one's.
    if (!this.claims.mayTouch(hold)) return;
    await exporter.unexport(hold, context);
    this.claims.release(hold);
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
    if (name === undefined) return this.#driver.volumeDetach(volume, holder, force, context);
    const exporter = this.named(name, volume);
    this.#needSettled(name);
    const hold = { volume, attachment };
    this.#miss(hold);
    await this.#unexport(exporter, hold, context);
    const left = await this.#driver.volumeDetach(volume, holder, force, context);
    this.#missing.delete(keyOf(hold));
    return left;
  }

  #miss(hold: Hold, error?: unknown): void {
    const { volume, attachment } = hold;
    const of = { volumeID: volume.id, holder: attachment.instanceID.id };
    this.#missing.set(keyOf(hold), { ...of, ...(error !== undefined && { error }) });
  }

  /**
   * Lets those in again whom the record names and who are outside, as after a cut that failed.
   * @throws {StorageError} what stands in the way of one of them
   */
  async readmit(volume: VolumeRecord, context: OpContext): Promise<void> {
    const holds = holdsOf([volume]);
    const known = new Set(holds.map(keyOf));
    for (const [key, { volumeID }] of this.#missing)
      if (volumeID === volume.id && !known.has(key)) this.#missing.delete(key);
    await this.#exportEach(
      holds.filter((hold) => this.#missing.has(keyOf(hold))),
      context,
    );
  }

  /** One that fails keeps no other out. @throws {StorageError} the first failure */
  async #exportEach(holds: readonly Hold[], context: OpContext): Promise<void> {
    const failed = await restoreEach(holds, async (hold) => {
      const name = exporterOf(hold.attachment) ?? "";
      this.#needSettled(name);
      const exporter = this.#exporters.get(name);
      if (exporter !== undefined) await this.#export(exporter, hold, context);
      this.#missing.delete(keyOf(hold));
    });
    for (const { hold, error } of failed) this.#miss(hold, error);
    if (failed[0] !== undefined) throw failed[0].error;
  }

  /** Volumes of which a hold is not exported that should be. */
  get volumesMissing(): ReadonlySet<string> {
    return new Set([...this.#missing.values()].map(({ volumeID }) => volumeID));
  }

  /** A volume that is gone. */
  forget(volumeID: string): void {
    for (const [key, one] of this.#missing)
      if (one.volumeID === volumeID) this.#missing.delete(key);
  }

  /** What is not as the records say now, in words. */
  get warnings(): readonly string[] {
    const message = (error: unknown): string => stored(error).message;
    return [
      ...[...this.#unsettled].map(
        ([name, error]) =>
          `the exporter ${name} of service ${this.#service} could not be brought to what the records say: ${message(error)}; until it is, which is tried again by itself, it lets nobody in`,
      ),
      ...[...this.#missing.values()]
        .filter(({ error }) => error !== undefined)
        .map(
          ({ volumeID, holder, error }) =>
            `the export of volume ${volumeID} of service ${this.#service} to ${holder} could not be made again: ${message(error)}; it is tried again by itself`,
        ),
    ];
  }

  /** As `readmit`, after a failure: what cannot be now is done when the holder asks again. */
  async readmitIfPossible(volume: VolumeRecord | undefined, context: OpContext): Promise<void> {
    if (volume === undefined) return;
    await this.readmit(volume, context).catch((error: unknown) =>
      context.log.warn(
        { error: stored(error), volumeID: volume.id },
        "whom the record names is not let in again; attaching it again does it",
      ),
    );
  }

  #needSettled(name: string): void {
    if (!this.#unsettled.has(name)) return;
    throw new StorageError(
      "unavailable",
      `the exporter ${name} of service ${this.#service} has not been brought to what the records say since the server started, so nobody is let in or cut off: ${stored(this.#unsettled.get(name)).message}; it is tried again by itself`,
      { service: this.#service, exporter: name },
    );
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
   * @returns what they name and the configuration does not, in words; the rest is in `warnings`
   */
  async restore(volumes: readonly VolumeRecord[], context: OpContext): Promise<readonly string[]> {
    const holds = holdsOf(volumes);
    const known = (hold: Hold): boolean => this.#exporters.has(exporterOf(hold.attachment) ?? "");
    const failed = await this.#restore(volumes, new Set(this.#exporters.keys()), context);
    for (const { hold, error } of failed) this.#miss(hold, error);
    return holds
      .filter((hold) => !known(hold))
      .map(
        ({ volume, attachment }) =>
          `the export of volume ${volume.id} of service ${this.#service} to ${attachment.instanceID.id} waits for its exporter ${exporterOf(attachment)}, which the service does not use now`,
      );
  }

  /** Whether an exporter could not be restored. */
  get isUnsettled(): boolean {
    return this.#unsettled.size > 0;
  }

  /** Tries again what could not be restored. Meanwhile nothing else is asked of these exporters. */
  async settle(volumes: readonly VolumeRecord[], context: OpContext): Promise<void> {
    const names = new Set(this.#unsettled.keys());
    for (const { hold, error } of await this.#restore(volumes, names, context))
      this.#miss(hold, error);
  }

  async #restore(
    volumes: readonly VolumeRecord[],
    names: ReadonlySet<string>,
    context: OpContext,
  ): Promise<readonly NotRestored[]> {
    const holds = holdsOf(volumes);
    const failed: NotRestored[] = [];
    for (const [name, exporter] of this.#exporters) {
      if (!names.has(name)) continue;
      const own = holds.filter(({ attachment }) => exporterOf(attachment) === name);
      try {
        failed.push(...(await this.#restoreIn(exporter, own, holds, context)));
        this.#unsettled.delete(name);
      } catch (error) {
        // The others serve all the same.
        this.#unsettled.set(name, error);
        context.log.error({ error: stored(error), exporter: name }, "is not as the records say");
      }
    }
    return failed;
  }

  async #restoreIn(
    exporter: Exporter,
    own: readonly Hold[],
    all: readonly Hold[],
    context: OpContext,
  ): Promise<readonly NotRestored[]> {
    const [open, leaving]: [Hold[], Hold[]] = [[], []];
    const unclaimed = await restoreEach(own, async (hold) => {
      this.claims.claim(hold);
      (isLeaving(hold) ? leaving : open).push(hold);
    });
    const unmade = await exporter.restore(open, context, all);
    const unhidden = await restoreEach(leaving, (hold) => this.#export(exporter, hold, context));
    return [...unclaimed, ...unmade, ...unhidden];
  }

  /** Makes the exports of one volume anew, after they were lost. */
  async exportAgain(volume: VolumeRecord, context: OpContext): Promise<void> {
    await this.#exportEach(holdsOf([volume]), context);
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

const stateOf = ({ attachment }: Hold): DoorState => doorOf(attachment)?.state ?? "open";

/** Whether it is a door on its way out. */
const isLeaving = (hold: Hold): boolean => stateOf(hold) !== "open";
