/** Volumes as logical volumes. Active only while somebody holds them, so that no boot and no list waits for them. */
import { basename } from "node:path";
import { isSameInstance, notFound, roundUp, StorageError } from "@libstorage/model";
import type { Instance, InstanceID, NextDeviceInfo } from "@libstorage/model";
import type {
  Ability,
  AttachmentRecord,
  Change,
  DriverContext,
  IdScheme,
  Listing,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "../../core/driver.js";
import { exporterOf } from "../../core/exporter.js";
import { abilitiesOf } from "./abilities.js";
import { wipeSigns } from "./blocks.js";
import { dmUUIDOf, isLinkOf, linkOf } from "./devices.js";
import { isSameSize } from "./failures.js";
import type { Known } from "./known.js";
import type { Made, NewObject } from "./layout.js";
import { PROVISIONING } from "./layouts.js";
import { isThin } from "./reports.js";
import type { Layouts } from "./layouts.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import { Objects } from "./objects.js";
import type { PoolGuard } from "./pool-guard.js";
import { snapshotTags, volumeTags } from "./records.js";
import { Reverting } from "./reverting.js";
import type { LvRow, VgRow } from "./reports.js";
import { isOurs, UNWIPED } from "./tags.js";
import { usesOf, wordsOf } from "./uses.js";
import { watchGroup } from "./watch.js";

const NEXT_DEVICE: NextDeviceInfo = { ignore: true, prefix: "", pattern: "" };

export interface LvmParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly layouts: Layouts;
  readonly group: VgRow;
  readonly defaultSizeBytes: number;
  readonly watchSeconds: number;
  readonly lockFolder: string;
  /** Whether removing something takes as long as writing all of it. */
  readonly isWipingSlow: boolean;
  /** Whether a volume that says nothing is thin. */
  readonly isUsuallyThin: boolean;
  /** Of a service with a thin pool. */
  readonly guard: PoolGuard | undefined;
}

export class LvmDriver implements StorageDriver {
  readonly type = "block";
  readonly nextDevice = NEXT_DEVICE;
  readonly isHostBound = true;
  readonly mutable = ["name", "fields"] as const;
  readonly fixedFields = [PROVISIONING];
  readonly allocationUnitBytes: number;
  readonly defaultSizeBytes: number;
  readonly ids: IdScheme;
  readonly ownFolders: readonly string[];
  readonly #parts: LvmParts;
  readonly #lvm: Lvm;
  readonly #known: Known;
  readonly #layouts: Layouts;
  readonly #objects: Objects;
  readonly #reverting: Reverting;
  readonly #context: DriverContext;
  readonly #closing = new AbortController();
  #sweeping = Promise.resolve();

  constructor(parts: LvmParts, context: DriverContext) {
    this.#parts = parts;
    this.#lvm = parts.lvm;
    this.#known = parts.known;
    this.#layouts = parts.layouts;
    this.#objects = new Objects(parts);
    this.#reverting = new Reverting({ ...parts, objects: this.#objects });
    this.#context = context;
    this.ids = parts.names.ids;
    this.ownFolders = [parts.lockFolder];
    this.allocationUnitBytes = parts.group.extentBytes;
    this.defaultSizeBytes = roundUp(parts.defaultSizeBytes, parts.group.extentBytes);
  }

  list(context: OpContext): Promise<Listing> {
    return this.#objects.list(context);
  }

  async volumeInspect(id: string, context: OpContext): Promise<VolumeRecord | undefined> {
    const row = await this.#objects.inspect(id, "volume", context);
    return row === undefined ? undefined : this.#objects.volume(row);
  }

  async snapshotInspect(id: string, context: OpContext): Promise<SnapshotRecord | undefined> {
    const row = await this.#objects.inspect(id, "snapshot", context);
    return row === undefined ? undefined : this.#objects.snapshot(row);
  }

  watch(onChange: (change: Change) => void): () => void {
    const { lvm, known, names, watchSeconds: seconds } = this.#parts;
    const isBusy = (id: string): boolean => this.#objects.isBusy(id);
    return watchGroup({ lvm, known, seconds, context: this.#context, isBusy }, (changed) => {
      const of = (kind: "volume" | "snapshot"): string[] =>
        changed.filter((name) => names.kindOf(name) === kind);
      const [volumeIDs, snapshotIDs] = [of("volume"), of("snapshot")];
      if (volumeIDs.length + snapshotIDs.length > 0) onChange({ volumeIDs, snapshotIDs });
    });
  }

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#makeVolume(volume, context, async (wanted) => {
      const { layout, isThin: admits } = this.#layouts.for(volume);
      if (admits) this.#parts.guard?.admit(volume.sizeBytes);
      return layout.create(wanted, context);
    });
  }

  #makeVolume(
    volume: VolumeRecord,
    context: OpContext,
    make: (wanted: NewObject) => Promise<Made>,
  ): Promise<VolumeRecord> {
    const { id, sizeBytes } = volume;
    const objects = this.#objects;
    return objects.change("volume", id, "create", context, async () => {
      const wanted = { id, sizeBytes, tags: volumeTags(volume) };
      return objects.volume(await objects.make("volume", wanted, context, () => make(wanted)));
    });
  }

  #makeSnapshot(
    snapshot: SnapshotRecord,
    context: OpContext,
    make: (wanted: NewObject) => Promise<Made>,
  ): Promise<SnapshotRecord> {
    const { id, sizeBytes } = snapshot;
    const objects = this.#objects;
    return objects.change("snapshot", id, "create", context, async () => {
      const wanted = { id, sizeBytes, tags: snapshotTags(snapshot) };
      return objects.snapshot(await objects.make("snapshot", wanted, context, () => make(wanted)));
    });
  }

  /** What something new is made from, unless it would be in a pool that is too full. */
  async #source(id: string, kind: "volume" | "snapshot", sizeBytes: number, context: OpContext) {
    const row = await this.#objects.existing(id, kind, context);
    this.#admit(row, sizeBytes);
    return row;
  }

  #admit(row: LvRow, sizeBytes: number): void {
    if (isThin(row)) this.#parts.guard?.admit(sizeBytes);
  }

  volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    return this.#volumeFrom(source.id, "volume", volume, context);
  }

  #volumeFrom(
    id: string,
    kind: "volume" | "snapshot",
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<VolumeRecord> {
    return this.#makeVolume(volume, context, async (wanted) => {
      const row = await this.#source(id, kind, volume.sizeBytes, context);
      return this.#layouts.forCopy(row, volume).copy(row, wanted, "volume", context);
    });
  }

  readonly snapshots = {
    snapshotCreate: (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(snapshot, context, async (wanted) => {
        const row = await this.#source(source.id, "volume", snapshot.sizeBytes, context);
        return this.#layouts.of(row).snapshot(row, wanted, context);
      }),
    snapshotRemove: (id: string, context: OpContext) =>
      this.#objects
        .change("snapshot", id, "remove", context, () =>
          this.#objects.remove("snapshot", id, context),
        )
        .then(() => this.#sweep(context)),
    snapshotCopy: (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(snapshot, context, async (wanted) => {
        const row = await this.#source(source.id, "snapshot", snapshot.sizeBytes, context);
        return this.#layouts.of(row).copy(row, wanted, "snapshot", context);
      }),
    volumeCreateFromSnapshot: (source: SnapshotRecord, volume: VolumeRecord, context: OpContext) =>
      this.#volumeFrom(source.id, "snapshot", volume, context),
  };

  readonly reverts = {
    volumeRevert: (volume: VolumeRecord, { id: from }: SnapshotRecord, context: OpContext) =>
      this.#changeVolume(volume.id, "revert", context, async () => {
        const admit = (source: LvRow): void => this.#admit(source, volume.sizeBytes);
        return this.#objects.volume(await this.#reverting.revert(volume, from, admit, context));
      }),
    volumeRevertSettle: (id: string, context: OpContext) =>
      this.#changeVolume(id, "revert", context, async () => {
        await this.#reverting.settle(id, context);
      }),
  };

  volumeRemove(id: string, context: OpContext): Promise<void> {
    return this.#changeVolume(id, "remove", context, async () => {
      // Something failed here: a revert may have been cut short.
      if (this.#known.get(id) === undefined) await this.#reverting.settle(id, context);
      await this.#objects.remove("volume", id, context);
    }).then(() => this.#sweep(context));
  }

  #changeVolume<R>(id: string, verb: string, context: OpContext, act: () => Promise<R>) {
    return this.#objects.change("volume", id, verb, context, act);
  }

  #existing(id: string, context: OpContext): Promise<LvRow> {
    return this.#objects.existing(id, "volume", context);
  }

  async #write(row: LvRow, volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    // Whoever holds it has got it wiped.
    const isWiped = volume.attachments.length > 0;
    const kept = row.tags.filter((tag) => !isOurs(tag) || (tag === UNWIPED && !isWiped));
    const tags = [...kept, ...volumeTags(volume)];
    await this.#lvm.retag(row.name, row.tags, tags, context);
    const written = { ...row, tags };
    this.#known.put(written);
    return this.#objects.volume(written);
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "update", context, async () =>
      this.#write(await this.#existing(volume.id, context), volume, context),
    );
  }

  volumeAttach(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "attach", context, async () => {
      const row = await this.#existing(volume.id, context);
      const device = this.#lvm.device(row.name);
      await this.#lvm.activate(row.name, context);
      if (row.tags.includes(UNWIPED)) await wipeSigns(device, row.sizeBytes, context);
      const isHolder = ({ instanceID }: AttachmentRecord): boolean =>
        isSameInstance(instanceID, attachment.instanceID);
      const isExported = exporterOf(attachment) !== undefined;
      const deviceName = isExported ? attachment.deviceName : await this.#linkOf(row, context);
      const attachments = volume.attachments.some(isHolder)
        ? volume.attachments
        : [...volume.attachments, { ...attachment, deviceName }];
      const epoch = Math.max(volume.epoch, attachment.epoch);
      return this.#write(row, { ...volume, attachments, epoch }, context);
    });
  }

  /** The one name of an active volume that is never given again. */
  async #linkOf({ name }: LvRow, context: OpContext): Promise<string> {
    const uuid = dmUUIDOf(this.#lvm.device(name)) ?? (await this.#lvm.lv(name, context))?.dmUUID;
    if (uuid !== undefined) return linkOf(uuid);
    throw notFound("volume", name);
  }

  /**
   * LVM deactivates only what nobody has open, which proves the cut. Without `force`, too: who detaches what
   * is still mounted would lose what it has not written yet.
   */
  volumeDetach(volume: VolumeRecord, holder: InstanceID, _force: boolean, context: OpContext) {
    return this.#changeVolume(volume.id, "detach", context, async () => {
      const row = await this.#existing(volume.id, context);
      const attachments = volume.attachments.filter(
        ({ instanceID }) => !isSameInstance(instanceID, holder),
      );
      if (attachments.length === volume.attachments.length) return this.#objects.volume(row);
      // While others hold it, it stays active: only what can be seen is told then.
      if (attachments.length > 0) this.#checkUnmounted(volume.id, attachments);
      else
        await this.#lvm.deactivate(row.name, context).catch(async (error: unknown) => {
          const doing = `be taken from ${holder.id}`;
          throw await this.#objects.explained(error, "volume", volume.id, doing, context);
        });
      return this.#write(row, { ...volume, attachments }, context);
    });
  }

  /** @param left those who hold it still, one of whom may be on this host */
  #checkUnmounted(id: string, left: readonly AttachmentRecord[]): void {
    if (left.some((attachment) => exporterOf(attachment) === undefined)) return;
    const uses = usesOf(this.#lvm.device(id));
    if (uses.mountPoints.length === 0) return;
    throw new StorageError(
      "failed-precondition",
      `volume ${id} cannot be taken from this host: ${wordsOf(uses)}; then try again`,
      { resourceID: id, ...uses },
    );
  }

  volumeExpand(volume: VolumeRecord, sizeBytes: number, context: OpContext) {
    return this.#changeVolume(volume.id, "expand", context, async () => {
      const row = await this.#existing(volume.id, context);
      if (row.sizeBytes >= sizeBytes) return this.#objects.volume(row);
      this.#admit(row, sizeBytes);
      if (volume.attachments.length === 0) await this.#layouts.of(row).prepareToGrow(row, context);
      await this.#lvm.extend(row.name, sizeBytes, context).catch((error: unknown) => {
        if (!isSameSize(error)) throw error;
      });
      const grown = { ...row, sizeBytes, dataBytes: sizeBytes };
      this.#known.put(grown);
      return this.#objects.volume(grown);
    });
  }

  /** Activates what is held, as after a boot. What cannot be is left to its holder to miss. */
  async wake(rows: readonly LvRow[], context: OpContext): Promise<void> {
    this.#known.take(rows, new Set());
    await this.#reverting.settleAll(context);
    await this.#sweep(context);
    const isAsleep = (row: LvRow): boolean =>
      !row.isActive && this.#objects.volume(row).attachments.length > 0;
    const held = this.#objects.shown(this.#known.all(), "volume").filter(isAsleep);
    await Promise.all(
      held.map(({ name }) =>
        this.#lvm
          .activate(name, context)
          .catch((error: unknown) => context.log.warn({ error, volumeID: name }, "not activated")),
      ),
    );
  }

  /** Nobody waits while zeros are written over what was removed before, which may be a disk's worth of data. */
  async #sweep(context: OpContext): Promise<void> {
    if (!this.#parts.isWipingSlow) return this.#objects.sweep(context);
    const own = { ...context, signal: this.#closing.signal };
    this.#sweeping = this.#sweeping.then(() => this.#objects.sweep(own));
  }

  instanceInspect(id: InstanceID): Instance {
    if (id.id !== "") return { instanceID: id, name: "lvmInstance", providerName: "" };
    throw new StorageError("invalid-argument", "the instance ID is empty");
  }

  attachToken({ deviceName }: AttachmentRecord): string {
    return isLinkOf(deviceName) ? basename(deviceName).toLowerCase() : "";
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return abilitiesOf(this.#lvm, context);
  }

  async capacity(context: OpContext) {
    const { guard, group, isUsuallyThin } = this.#parts;
    if (guard !== undefined && isUsuallyThin) return guard.capacity();
    const { freeBytes, totalBytes } = (await this.#lvm.vg(context)) ?? group;
    return { freeBytes, totalBytes };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#parts.guard?.close();
    await this.#sweeping;
  }
}
