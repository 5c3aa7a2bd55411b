/**
 * Volumes with all their space from the beginning. A snapshot has space of its own for what changes in its
 * volume, and needs it: a removed volume stays, without a record, until its last snapshot goes. A copy is
 * read and written whole, from a snapshot that stands still meanwhile.
 */
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { copyBlocks, zeroBlocks } from "./blocks.js";
import { isGone } from "./failures.js";
import type { Known } from "./known.js";
import type { Layout, Made, NewObject } from "./layout.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import type { LvRow } from "./reports.js";
import { isOurs, MAKING, REMOVED, UNWIPED } from "./tags.js";
import type { Wiping } from "./wiping.js";

export interface ThickParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly names: Names;
  readonly wiping: Wiping;
  readonly snapshotPercent: number;
}

export class ThickLayout implements Layout {
  readonly #lvm: Lvm;
  readonly #known: Known;
  readonly #names: Names;
  readonly #wiping: Wiping;
  readonly #snapshotPercent: number;

  constructor({ lvm, known, names, wiping, snapshotPercent }: ThickParts) {
    this.#lvm = lvm;
    this.#known = known;
    this.#names = names;
    this.#wiping = wiping;
    this.#snapshotPercent = snapshotPercent;
  }

  async create({ id, sizeBytes, tags }: NewObject, context: OpContext): Promise<Made> {
    const all = [...tags, UNWIPED];
    await this.#lvm.createThick({ name: id, tags: all }, sizeBytes, context);
    return { tags: all };
  }

  async snapshot(source: LvRow, { id, tags }: NewObject, context: OpContext): Promise<Made> {
    const all = [...tags, ...inheritedFrom(source)];
    const wanted = { name: id, tags: all };
    await this.#lvm.snapThick(source.name, wanted, this.#snapshotPercent, context);
    return { tags: all, origin: source.name };
  }

  async copy(
    source: LvRow,
    { id, sizeBytes, tags }: NewObject,
    _kind: "volume" | "snapshot",
    context: OpContext,
  ): Promise<Made> {
    const lvm = this.#lvm;
    const all = [...tags, ...inheritedFrom(source)];
    const from = await this.#still(source, id, context);
    const first = [MAKING];
    await lvm.createThick({ name: id, tags: first }, sizeBytes, context);
    await Promise.all([lvm.activate(from, context), lvm.activate(id, context)]);
    const bytes = Math.min(source.dataBytes, sizeBytes);
    await copyBlocks(lvm.device(from), lvm.device(id), bytes, context);
    if (sizeBytes > bytes) await zeroBlocks(lvm.device(id), bytes, sizeBytes - bytes, context);
    if (from !== source.name) await this.clear(id, context);
    await lvm.deactivate(id, context);
    await lvm.retag(id, first, all, context);
    return { tags: all };
  }

  /** What is copied: a snapshot of a volume, and a snapshot itself, which stands still anyway. */
  async #still(source: LvRow, id: string, context: OpContext): Promise<string> {
    if (this.#names.kindOf(source.name) === "snapshot") return source.name;
    const name = this.#names.stillOf(id);
    // Left by an earlier copy to this id, which was cut short.
    if (this.#known.get(name) !== undefined) await this.clear(id, context);
    await this.#lvm.snapThick(source.name, { name, tags: [MAKING] }, 100, context);
    return name;
  }

  async clear(id: string, context: OpContext): Promise<void> {
    const name = this.#names.stillOf(id);
    // It keeps what was written over in its volume meanwhile.
    const row = this.#wiping.isWanted ? await this.#lvm.lv(name, context) : undefined;
    if (row !== undefined) await this.remove(row, context);
    else await this.#remove(name, context);
  }

  async #remove(name: string, context: OpContext): Promise<void> {
    await this.#lvm.remove([name], context).catch((error: unknown) => {
      if (!isGone(error)) throw error;
    });
    this.#known.forget(name);
  }

  async prepareToGrow({ name }: LvRow, context: OpContext): Promise<void> {
    // LVM grows what has snapshots only while it is inactive.
    if (this.#snapshotsOf(name).length > 0) await this.#lvm.deactivate(name, context);
  }

  #snapshotsOf(name: string): readonly LvRow[] {
    return this.#known.all().filter(({ origin }) => origin === name);
  }

  /**
   * Whether it has snapshots now: LVM removes them with it, also those that were made by hand since it was
   * last looked at.
   * @throws {StorageError} `failed-precondition` when some are not ours
   */
  async #isOrigin({ name }: LvRow, context: OpContext): Promise<boolean> {
    const snapshots = await this.#lvm.snapshotsOf(name, context);
    const foreign = snapshots.filter(({ tags }) => !tags.some(isOurs));
    if (foreign.length === 0) return snapshots.length > 0;
    const paths = foreign.map((one) => this.#lvm.path(one.name));
    throw new StorageError(
      "failed-precondition",
      `${name} cannot be removed: libStorage has not made ${paths.join(", ")}, which would go with it as its snapshot; remove it first: lvremove ${paths.join(" ")}`,
      { resourceID: name, snapshots: paths },
    );
  }

  async remove(row: LvRow, context: OpContext): Promise<void> {
    const { name } = row;
    const stays = row.origin === "" && (await this.#isOrigin(row, context));
    if (stays && row.tags.includes(REMOVED)) return;
    if (stays) {
      // It proves that nobody uses it any more.
      await this.#lvm.deactivate(name, context);
      await this.#lvm.retag(name, row.tags, [REMOVED], context);
      this.#known.put({ ...row, tags: [REMOVED] });
      return;
    }
    if (row.origin === "") await this.#wiping.before(row, context);
    else await this.#wiping.beforeSnapshot(row, context);
    await this.#remove(name, context);
  }
}

function inheritedFrom({ tags }: LvRow): readonly string[] {
  return tags.filter((tag) => tag === UNWIPED);
}
