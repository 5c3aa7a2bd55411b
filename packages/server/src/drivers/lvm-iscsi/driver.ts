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
import { dmUUIDOf, isLinkOf, linkOf, usesOf, wordsOf } from "./devices.js";
import { failureOf, isGone, isInUse, isSameSize, isTaken } from "./failures.js";
import type { Known } from "./known.js";
import type { Layout, Made, NewObject } from "./layout.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import type { PoolGuard } from "./pool-guard.js";
import { snapshotIn, snapshotTags, volumeIn, volumeTags } from "./records.js";
import type { LvRow, VgRow } from "./reports.js";
import { isOurs, MAKING, REMOVED, UNWIPED } from "./tags.js";
import { watchGroup } from "./watch.js";

const NEXT_DEVICE: NextDeviceInfo = { ignore: true, prefix: "", pattern: "" };

/** An undo has its own time, since the end of the operation's may be what failed. */
const UNDO_MS = 10 * 60_000;

export interface LvmParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly layout: Layout;
  readonly group: VgRow;
  readonly defaultSizeBytes: number;
  readonly watchSeconds: number;
  /** Of a service with a thin pool. */
  readonly guard: PoolGuard | undefined;
}

type Kind = "volume" | "snapshot";

export class LvmDriver implements StorageDriver {
  readonly type = "block";
  readonly nextDevice = NEXT_DEVICE;
  readonly isHostBound = true;
  readonly allocationUnitBytes: number;
  readonly defaultSizeBytes: number;
  readonly ids: IdScheme;
  readonly #parts: LvmParts;
  readonly #lvm: Lvm;
  readonly #known: Known;
  readonly #names: Names;
  readonly #layout: Layout;
  readonly #context: DriverContext;
  /** What is being changed, and how often at once. */
  readonly #busy = new Map<string, number>();

  constructor(parts: LvmParts, context: DriverContext) {
    this.#parts = parts;
    this.#lvm = parts.lvm;
    this.#known = parts.known;
    this.#names = parts.names;
    this.#layout = parts.layout;
    this.#context = context;
    this.ids = parts.names.ids;
    this.allocationUnitBytes = parts.group.extentBytes;
    this.defaultSizeBytes = roundUp(parts.defaultSizeBytes, parts.group.extentBytes);
  }

  // ---- what there is

  async list(context: OpContext): Promise<Listing> {
    const { rows, touched } = await this.#known.list(() => this.#lvm.lvs(context));
    this.#known.take(rows, touched);
    const shown = this.#own(rows, "volume");
    const snapshots = this.#own(rows, "snapshot").map((row) => this.#snapshot(row));
    return { volumes: shown.map((row) => this.#volume(row)), snapshots };
  }

  /** Those of one kind that are shown, in order of id. */
  #own(rows: readonly LvRow[], kind: Kind): LvRow[] {
    return rows
      .filter((row) => this.#names.kindOf(row.name) === kind && this.#isShown(row))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** What is being made is no volume yet, and what was removed is none any more. */
  #isShown({ name, tags }: LvRow): boolean {
    if (tags.includes(REMOVED)) return false;
    return !(tags.includes(MAKING) && this.#busy.has(name));
  }

  #volume(row: LvRow): VolumeRecord {
    if (row.tags.includes(MAKING)) return { ...volumeIn(row, ""), broken: CUT_SHORT };
    return volumeIn(row, this.#lvm.device(row.name));
  }

  #snapshot(row: LvRow): SnapshotRecord {
    const snapshot = snapshotIn(row, row.origin);
    return row.tags.includes(MAKING) ? { ...snapshot, broken: CUT_SHORT } : snapshot;
  }

  async volumeInspect(id: string, context: OpContext): Promise<VolumeRecord | undefined> {
    const row = await this.#inspect(id, "volume", context);
    return row === undefined ? undefined : this.#volume(row);
  }

  async snapshotInspect(id: string, context: OpContext): Promise<SnapshotRecord | undefined> {
    const row = await this.#inspect(id, "snapshot", context);
    return row === undefined ? undefined : this.#snapshot(row);
  }

  async #inspect(id: string, kind: Kind, context: OpContext): Promise<LvRow | undefined> {
    if (this.#names.kindOf(id) !== kind) return undefined;
    const row = await this.#look(id, context);
    return row !== undefined && this.#isShown(row) ? row : undefined;
  }

  async #look(id: string, context: OpContext): Promise<LvRow | undefined> {
    const { rows, touched } = await this.#known.list(async () => {
      const row = await this.#lvm.lv(id, context);
      return row === undefined ? [] : [row];
    });
    const [row] = rows;
    if (touched.has(id)) return row;
    if (row === undefined) this.#known.forget(id);
    else this.#known.put(row);
    return row;
  }

  /** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
  async #existing(id: string, kind: Kind, context: OpContext): Promise<LvRow> {
    const isKind = this.#names.kindOf(id) === kind;
    const row = isKind ? (this.#known.get(id) ?? (await this.#look(id, context))) : undefined;
    if (row === undefined || !this.#isShown(row)) throw notFound(kind, id);
    const { broken } = kind === "volume" ? this.#volume(row) : this.#snapshot(row);
    if (broken === undefined) return row;
    throw new StorageError("failed-precondition", `${kind} ${id} is broken: ${broken}`, {
      resourceID: id,
    });
  }

  watch(onChange: (change: Change) => void): () => void {
    return watchGroup(
      {
        lvm: this.#lvm,
        known: this.#known,
        seconds: this.#parts.watchSeconds,
        context: this.#context,
        isBusy: (id) => this.#busy.has(id),
      },
      (rows) => {
        const names = (kind: Kind): string[] =>
          rows.filter((name) => this.#names.kindOf(name) === kind);
        onChange({ volumeIDs: names("volume"), snapshotIDs: names("snapshot") });
      },
    );
  }

  // ---- changes

  async #change<R>(
    kind: Kind,
    id: string,
    verb: string,
    context: OpContext,
    act: () => Promise<R>,
  ): Promise<R> {
    this.#busy.set(id, (this.#busy.get(id) ?? 0) + 1);
    try {
      context.signal.throwIfAborted();
      return await act();
    } catch (error) {
      this.#known.forget(id);
      throw failureOf(error, `${verb} ${kind} ${id}`, this.#lvm.about);
    } finally {
      const left = (this.#busy.get(id) ?? 1) - 1;
      if (left > 0) this.#busy.set(id, left);
      else this.#busy.delete(id);
    }
  }

  /**
   * Makes something, unless it is there already. What is half there after a failure is taken away.
   * @param tags those of the record
   */
  async #make(
    kind: Kind,
    wanted: NewObject,
    context: OpContext,
    make: () => Promise<Made>,
  ): Promise<LvRow> {
    const { id, sizeBytes } = wanted;
    const before = this.#known.get(id);
    if (before !== undefined) return sameOrTaken(kind, before, wanted);
    try {
      const row = newRow(id, sizeBytes, await make());
      this.#known.put(row);
      return row;
    } catch (error) {
      if (isTaken(error)) return sameOrTaken(kind, await this.#lvm.lv(id, context), wanted);
      const undoContext = { ...context, signal: AbortSignal.timeout(UNDO_MS) };
      await this.#unmake(wanted, undoContext).catch((undoError: unknown) =>
        context.log.error({ error: undoError }, "undo failed"),
      );
      throw error;
    }
  }

  /** Only what this call has made: something else may have the name. */
  async #unmake({ id, tags }: NewObject, context: OpContext): Promise<void> {
    await this.#layout.clear(id, context);
    const row = await this.#lvm.lv(id, context);
    if (row === undefined) return;
    if (!row.tags.includes(MAKING) && !tags.every((tag) => row.tags.includes(tag))) return;
    await this.#lvm.deactivate(id, context);
    await this.#lvm.remove([id], context);
  }

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#makeVolume(volume, context, (wanted) => this.#layout.create(wanted, context));
  }

  #makeVolume(
    volume: VolumeRecord,
    context: OpContext,
    make: (wanted: NewObject) => Promise<Made>,
  ): Promise<VolumeRecord> {
    const { id, sizeBytes } = volume;
    return this.#change("volume", id, "create", context, async () => {
      this.#parts.guard?.admit();
      const wanted = { id, sizeBytes, tags: volumeTags(volume) };
      return this.#volume(await this.#make("volume", wanted, context, () => make(wanted)));
    });
  }

  #makeSnapshot(
    snapshot: SnapshotRecord,
    context: OpContext,
    make: (wanted: NewObject) => Promise<Made>,
  ): Promise<SnapshotRecord> {
    const { id, sizeBytes } = snapshot;
    return this.#change("snapshot", id, "create", context, async () => {
      this.#parts.guard?.admit();
      const wanted = { id, sizeBytes, tags: snapshotTags(snapshot) };
      return this.#snapshot(await this.#make("snapshot", wanted, context, () => make(wanted)));
    });
  }

  volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    return this.#makeVolume(volume, context, async (wanted) => {
      const row = await this.#existing(source.id, "volume", context);
      return this.#layout.copy(row, wanted, "volume", context);
    });
  }

  readonly snapshots = {
    snapshotCreate: (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(snapshot, context, async (wanted) => {
        const row = await this.#existing(source.id, "volume", context);
        return this.#layout.snapshot(row, wanted, context);
      }),
    snapshotRemove: (id: string, context: OpContext) => this.#remove("snapshot", id, context),
    snapshotCopy: (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(snapshot, context, async (wanted) => {
        const row = await this.#existing(source.id, "snapshot", context);
        return this.#layout.copy(row, wanted, "snapshot", context);
      }),
    volumeCreateFromSnapshot: (source: SnapshotRecord, volume: VolumeRecord, context: OpContext) =>
      this.#makeVolume(volume, context, async (wanted) => {
        const row = await this.#existing(source.id, "snapshot", context);
        return this.#layout.copy(row, wanted, "volume", context);
      }),
  };

  volumeRemove(id: string, context: OpContext): Promise<void> {
    return this.#remove("volume", id, context);
  }

  async #remove(kind: Kind, id: string, context: OpContext): Promise<void> {
    if (this.#names.kindOf(id) !== kind) return;
    await this.#change(kind, id, "remove", context, async () => {
      const known = this.#known.get(id);
      if (known === undefined || known.tags.includes(MAKING)) await this.#layout.clear(id, context);
      const row = known ?? (await this.#look(id, context));
      if (row === undefined) return;
      if (!row.tags.some(isOurs)) {
        // Never shown: it got its name by hand while this server was about to use it. It is left alone.
        if (known === undefined) return;
        throw new StorageError(
          "failed-precondition",
          `${kind} ${id} has no tags of libStorage, so it may be someone else's; remove it by hand: lvremove ${this.#lvm.path(id)}`,
          { resourceID: id },
        );
      }
      await this.#layout.remove(row, context).catch((error: unknown) => {
        if (isGone(error)) return;
        throw this.#explained(error, kind, id, "be removed");
      });
      if (this.#known.get(id)?.tags.includes(REMOVED) !== true) this.#known.forget(id);
    });
  }

  /** Names what has a volume open, where that is why it failed. */
  #explained(error: unknown, kind: Kind, id: string, doing: string): unknown {
    if (!isInUse(error)) return error;
    const uses = usesOf(this.#lvm.device(id));
    return new StorageError(
      "failed-precondition",
      `${kind} ${id} cannot ${doing}: ${wordsOf(uses)}; then try again`,
      { resourceID: id, ...uses },
      { cause: error },
    );
  }

  // ---- the record

  async #write(row: LvRow, volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    const kept = row.tags.filter((tag) => !isOurs(tag) || tag === UNWIPED);
    const isHeld = volume.attachments.length > 0;
    const tags = [...kept.filter((tag) => tag !== UNWIPED || !isHeld), ...volumeTags(volume)];
    await this.#lvm.retag(row.name, row.tags, tags, context);
    const written = { ...row, tags };
    this.#known.put(written);
    return this.#volume(written);
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#change("volume", volume.id, "update", context, async () =>
      this.#write(await this.#existing(volume.id, "volume", context), volume, context),
    );
  }

  volumeAttach(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<VolumeRecord> {
    return this.#change("volume", volume.id, "attach", context, async () => {
      const row = await this.#existing(volume.id, "volume", context);
      const device = this.#lvm.device(row.name);
      await this.#lvm.activate(row.name, context);
      if (row.tags.includes(UNWIPED)) await wipeSigns(device, row.sizeBytes, context);
      const isHolder = ({ instanceID }: AttachmentRecord): boolean =>
        isSameInstance(instanceID, attachment.instanceID);
      const deviceName =
        exporterOf(attachment) === undefined ? ownLink(device, volume.id) : attachment.deviceName;
      const attachments = volume.attachments.some(isHolder)
        ? volume.attachments
        : [...volume.attachments, { ...attachment, deviceName }];
      const epoch = Math.max(volume.epoch, attachment.epoch);
      return this.#write(row, { ...volume, attachments, epoch }, context);
    });
  }

  /** Without `force`, too: who detaches what is still mounted would lose what it has not written yet. */
  volumeDetach(volume: VolumeRecord, holder: InstanceID, _force: boolean, context: OpContext) {
    return this.#change("volume", volume.id, "detach", context, async () => {
      const row = await this.#existing(volume.id, "volume", context);
      const attachments = volume.attachments.filter(
        ({ instanceID }) => !isSameInstance(instanceID, holder),
      );
      if (attachments.length === volume.attachments.length) return this.#volume(row);
      // While others hold it, it stays active: only what can be seen is told then.
      if (attachments.length > 0) this.#checkUnmounted(volume.id, attachments);
      else
        await this.#lvm.deactivate(row.name, context).catch((error: unknown) => {
          throw this.#explained(error, "volume", volume.id, `be taken from ${holder.id}`);
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
    return this.#change("volume", volume.id, "expand", context, async () => {
      const row = await this.#existing(volume.id, "volume", context);
      if (row.sizeBytes >= sizeBytes) return this.#volume(row);
      this.#parts.guard?.admit();
      if (volume.attachments.length === 0) await this.#layout.prepareToGrow(row, context);
      await this.#lvm.extend(row.name, sizeBytes, context).catch((error: unknown) => {
        if (!isSameSize(error)) throw error;
      });
      const grown = { ...row, sizeBytes };
      this.#known.put(grown);
      return this.#volume(grown);
    });
  }

  // ---- the host

  /** Activates what is held, as after a boot. What cannot be is left to its holder to miss. */
  async wake(rows: readonly LvRow[], context: OpContext): Promise<void> {
    this.#known.take(rows, new Set());
    const isHeld = (row: LvRow): boolean =>
      !row.isActive && this.#volume(row).attachments.length > 0;
    const held = this.#own(rows, "volume").filter(isHeld);
    await Promise.all(
      held.map(({ name }) =>
        this.#lvm
          .activate(name, context)
          .catch((error: unknown) => context.log.warn({ error, volumeID: name }, "not activated")),
      ),
    );
  }

  instanceInspect(id: InstanceID): Instance {
    const about = { name: "lvmInstance", providerName: "" };
    if (id.id !== "") return { instanceID: id, ...about };
    throw new StorageError("invalid-argument", "the instance ID is empty");
  }

  attachToken({ deviceName }: AttachmentRecord): string {
    return isLinkOf(deviceName) ? basename(deviceName).toLowerCase() : "";
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return abilitiesOf(this.#lvm, context);
  }

  async capacity(context: OpContext) {
    const { guard } = this.#parts;
    if (guard !== undefined) return guard.capacity();
    const { freeBytes, totalBytes } = (await this.#lvm.vg(context)) ?? this.#parts.group;
    return { freeBytes, totalBytes };
  }

  async close(): Promise<void> {
    await this.#parts.guard?.close();
  }
}

const CUT_SHORT = "a copy to it was cut short; remove it with force";

/** @throws {StorageError} when udev has made no link, since a name that may be given again is not safe */
function ownLink(device: string, id: string): string {
  const uuid = dmUUIDOf(device);
  if (uuid !== undefined) return linkOf(uuid);
  throw new StorageError(
    "internal",
    `volume ${id} is active, but its device ${device} is not there; does udev run on this host?`,
    { volumeID: id, device },
  );
}

function newRow(name: string, sizeBytes: number, { tags, origin = "" }: Made): LvRow {
  return {
    name,
    dmUUID: "",
    seqno: 0,
    sizeBytes,
    dataBytes: sizeBytes,
    tags,
    origin,
    pool: "",
    isActive: false,
    health: "",
    isSnapshotInvalid: false,
    segmentType: "",
  };
}

/** The same record under the same id is what an earlier, equal call has made. */
function sameOrTaken(kind: Kind, there: LvRow | undefined, { id, tags }: NewObject): LvRow {
  if (there !== undefined && tags.every((tag) => there.tags.includes(tag))) return there;
  throw new StorageError(
    "already-exists",
    `there is a logical volume ${id} already, which is not the ${kind} that was to be made`,
    { resourceID: id },
  );
}
